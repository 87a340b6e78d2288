"""Memory of large results: used again, and never by two tensors at a time."""

from __future__ import annotations

import copy
import gc
import json
import os
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


def test_one_block_above_the_limit_leaves_the_others() -> None:
    memory.set_limit(9 << 20)
    tensors = [large() for _ in range(2)]
    huge = memory.empty((3, *LARGE), torch.float32)
    del tensors
    assert memory.cached_bytes() == 8 << 20
    del huge
    assert memory.cached_bytes() == 8 << 20
    # Nor does one that was taken in before the limit fell.
    memory.set_limit(64 << 20)
    huge = memory.empty((3, *LARGE), torch.float32)
    del huge
    assert memory.cached_bytes() == 20 << 20
    memory.set_limit(9 << 20)
    assert memory.cached_bytes() == 8 << 20


FORKS = """
import os, signal, sys, threading, time
import torch
from vae_fast import memory

def hammer():
    while True:
        memory.empty((1 << 20,), torch.uint8)

def child():
    assert memory.cached_bytes() == 0
    tensor = memory.empty((1 << 20,), torch.uint8)
    address = tensor.data_ptr()
    del tensor, lent[:]
    assert memory.cached_bytes() == 3 << 20  # what was lent before the fork comes back, too
    assert memory.empty((1 << 20,), torch.uint8).data_ptr() == address
    memory.empty_cache()
    assert memory.cached_bytes() == 0

lent = [memory.empty((2 << 20,), torch.uint8)]
for _ in range(4):
    threading.Thread(target=hammer, daemon=True).start()
sys.setswitchinterval(1e-5)  # so that threads are stopped where they have the lock
for number in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + 20
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"child {number} hangs")
        time.sleep(0.001)
    assert found[1] == 0, (number, found)
    time.sleep(0.001)
os._exit(0)  # not through Python's own end, which the threads would meet at work
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_other_threads_are_inside() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, "100"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


FORK_INSIDE = """
import os, sys
from vae_fast import memory

cache = memory._cache

class Forking(memory._Block):
    # Stands for a signal handler that forks between two steps of the cache.
    @property
    def bytes(self):
        global pid
        if pid is None:
            pid = os.fork()
        return whole

whole = memory._Block(2 << 20).bytes
for call in (
    lambda: cache.take(1 << 20),
    lambda: cache.give_back(memory._Block(1 << 20)),
    cache.size,
    lambda: cache.set_limit(1 << 20),
):
    cache.set_limit(2 << 20)
    cache.reset()
    cache.blocks.append(Forking.__new__(Forking))
    pid = None
    try:
        call()
        assert pid is not None and not cache.lock.locked()
        cache.take(1 << 20)
        cache.size()
    except BaseException:
        if pid == 0:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        raise
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_by_the_thread_that_is_inside() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK_INSIDE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


LIMITS = """
import importlib, json, os, sys, warnings
from vae_fast import memory

found = []
for value in json.loads(sys.argv[1]):
    if value is None:
        os.environ.pop("VAE_FAST_CPU_CACHE", None)
    else:
        os.environ["VAE_FAST_CPU_CACHE"] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.reload(memory)
    found.append([memory.limit(), [f"{w.category.__name__}: {w.message}" for w in caught]])
print(json.dumps(found))
"""


def limits_of(values: list[str | None]) -> list[tuple[int, list[str]]]:
    """For each value of the environment variable, the limit and what is said of the value."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITS, json.dumps(values)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


def test_the_environment_variable() -> None:
    mebibytes = {None: 512, "0": 0, "3": 3, "0064": 64, "9" * 9: 10**9 - 1}
    expected = [(count << 20, []) for count in mebibytes.values()]
    assert limits_of(list(mebibytes)) == expected


def test_nonsense_in_the_environment_variable_is_said() -> None:
    values = ["", "much", "-1", "1.5", " ", "1e3", "1_000", "0x10", "٣", "²", "9" * 10, "9" * 5000]
    for value, found in zip(values, limits_of(list(values)), strict=True):
        shown = repr(value if len(value) <= 40 else value[:40] + "...")
        text = (
            "RuntimeWarning: VAE_FAST_CPU_CACHE must be a whole number of MiB from 0 to 999999999; "
            f"got {shown}: the default of 512 is used"
        )
        assert found == (512 << 20, [text])


def test_nonsense_in_the_environment_variable_lets_the_package_be_imported() -> None:
    environment = {**os.environ, "VAE_FAST_CPU_CACHE": "much"}
    code = "from vae_fast import memory; print(memory.limit())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, f"{512 << 20}\n"), done.stderr
    assert done.stderr.count("RuntimeWarning: VAE_FAST_CPU_CACHE must be a whole number") == 1
