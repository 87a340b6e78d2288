"""Memory of large results: used again, and never by two tensors at a time."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from conftest import Backend

import vae_fast.functional as F
from vae_fast import memory

LARGE = (1024, 1024)  # 4 MiB in float32


@pytest.fixture(autouse=True)
def own_cache() -> Iterator[None]:
    """An empty cache with room for some tensors of LARGE."""
    before = memory.limit()
    memory.set_limit(0)
    memory.set_limit(64 << 20)
    yield
    memory.set_limit(0)
    memory.set_limit(before)


def large(value: float = 0.0) -> torch.Tensor:
    return memory.empty(LARGE, torch.float32).fill_(value)


def test_freed_memory_is_used_again() -> None:
    first = large()
    address = first.data_ptr()
    assert memory.cached_bytes() == 0
    del first
    assert memory.cached_bytes() == 4 << 20
    second = large()
    assert second.data_ptr() == address and memory.cached_bytes() == 0


def test_a_tensor_is_what_torch_makes() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        made = memory.empty((3, 1024, 1024), dtype)
        plain = torch.empty((3, 1024, 1024), dtype=dtype)
        for name in ("shape", "dtype", "device", "layout", "requires_grad"):
            assert getattr(made, name) == getattr(plain, name)
        assert made.stride() == plain.stride() and made.is_contiguous() and made.is_leaf
        assert made.data_ptr() % 64 == 0
        assert made.isnan().all()  # the suite fills new memory: see conftest.py


def test_small_tensors_are_left_to_torch() -> None:
    tensor = memory.empty((10, 10), torch.float32)
    del tensor
    assert memory.cached_bytes() == 0


@pytest.mark.parametrize(
    "keep",
    [
        lambda tensor: tensor.detach(),
        lambda tensor: tensor[1:, ::2],
        lambda tensor: tensor.view(-1)[:1],
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: torch.utils.dlpack.to_dlpack(tensor),
        lambda tensor: torch.ones(LARGE, requires_grad=True) * tensor,  # saved for its backward
    ],
    ids=["detach", "slice", "view", "numpy", "storage", "dlpack", "saved"],
)
def test_memory_somebody_can_see_is_not_lent_again(keep) -> None:
    tensor = large(7.0)
    address, kept = tensor.data_ptr(), keep(tensor)
    del tensor
    gc.collect()
    assert memory.cached_bytes() == 0
    assert large(1.0).data_ptr() != address
    del kept
    gc.collect()
    assert memory.cached_bytes() == 8 << 20


def test_contents_stay_apart() -> None:
    """Tensors made and dropped at random: each holds what was written to it."""
    random.seed(1)
    alive: list[tuple[float, torch.Tensor]] = []
    for number in range(300):
        rows = random.choice((256, 300, 512, 1024))
        alive.append((float(number), memory.empty((rows, 1024), torch.float32).fill_(number)))
        if len(alive) > 6:
            value, tensor = alive.pop(random.randrange(len(alive)))
            assert (tensor == value).all()
    assert all((tensor == value).all() for value, tensor in alive)
    assert 0 < memory.cached_bytes() <= memory.limit()


def test_contents_stay_apart_in_threads() -> None:
    wrong: list[float] = []

    def work(start: int) -> None:
        for number in range(start, start + 60):
            pair = [memory.empty((300, 1024), torch.float32).fill_(number + k) for k in range(2)]
            if not all((tensor == number + k).all() for k, tensor in enumerate(pair)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_tensor_freed_while_the_cache_is_locked_comes_back() -> None:
    """As when the garbage collector runs inside of it."""
    tensor = large()
    with memory._cache.lock:
        del tensor
    assert memory.cached_bytes() == 4 << 20


def test_the_limit() -> None:
    memory.set_limit(9 << 20)
    tensors = [large() for _ in range(3)]
    last = tensors[-1].data_ptr()
    while tensors:
        tensors.pop(0)
    assert memory.cached_bytes() == 8 << 20
    memory.set_limit(4 << 20)  # the oldest goes first
    assert memory.cached_bytes() == 4 << 20 and large().data_ptr() == last
    memory.empty_cache()
    assert memory.cached_bytes() == 0 and memory.limit() == 4 << 20
    with pytest.raises(ValueError, match="count must be at least 0, in bytes; got -1"):
        memory.set_limit(-1)


def test_blocks_much_too_large_are_not_lent() -> None:
    tensor = memory.empty((4096, 1024), torch.float32)
    del tensor
    small = large()
    assert memory.cached_bytes() == 16 << 20 and small.untyped_storage().nbytes() == 4 << 20


def test_copies_are_independent() -> None:
    tensor = large(3.0)
    for other in (copy.deepcopy(tensor), pickle.loads(pickle.dumps(tensor)), tensor.clone()):
        assert torch.equal(other, tensor) and other.data_ptr() != tensor.data_ptr()


def test_gradients_of_a_step_before_stay_what_they_were(compiled_backend: Backend) -> None:
    """Accumulated, kept and cleared gradients over several steps, with and without the cache."""

    def steps() -> list[torch.Tensor]:
        torch.manual_seed(0)
        x = torch.randn(512, 1024)
        mean, logvar = (torch.randn(512, 1024).requires_grad_() for _ in range(2))
        kl, kept = torch.zeros(512), []
        for number in range(4):
            F.negative_elbo(x + number, mean, logvar, kl, backend="cpu").backward()
            kept.append(mean.grad.clone() if number % 2 else mean.grad)
            if number != 2:  # else the next is added
                mean.grad = logvar.grad = None
            z, _ = F.sample_kl(mean, logvar, seed=number, backend="cpu")
            kept.append(z.detach())
        return kept

    with_cache = steps()
    memory.set_limit(0)
    assert all(torch.equal(*pair) for pair in zip(with_cache, steps(), strict=True))


def test_the_environment_variable() -> None:
    def run(value: str) -> subprocess.CompletedProcess[str]:
        code = (
            f"import os; os.environ['VAE_FAST_CPU_CACHE'] = {value!r}\n"
            "from vae_fast import memory; print(memory.limit())"
        )
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert run("3").stdout == f"{3 << 20}\n"
    assert run("0").stdout == "0\n"
    assert "VAE_FAST_CPU_CACHE must be a whole number of MiB; got 'much'" in run("much").stderr
