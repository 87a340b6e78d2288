"""What is particular to the Triton backend: tiles, launches, copies, and its random words."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import oracle
import pytest
import torch
from cases import Case, tensors
from check import call, check, differentiate, upstream
from conftest import GPUS, INTERPRETED, Backend, require
from torch import Tensor

import vae_fast
import vae_fast.functional as F

TRITON = Backend("triton", GPUS[0] if GPUS else "cpu")
PRIORS = {"prior_mean": "full", "prior_logvar": "event"}


@pytest.fixture(autouse=True)
def triton_is_there() -> None:
    require(TRITON)


def kernels(name: str):
    vae_fast.backends()  # loads the backend
    return importlib.import_module(f"vae_fast.kernels.{name}")


def divide(monkeypatch: pytest.MonkeyPatch, tile: int, programs: int) -> None:
    """Tiles of so many elements, so many programs that sum over rows, small finishing tiles."""
    launch = kernels("launch")
    monkeypatch.setattr(launch, "TILE", tile)
    monkeypatch.setattr(launch, "SMALL_TILE", min(tile, SHIPPED_SMALL))
    monkeypatch.setattr(launch, "SUMMING_PROGRAMS", programs)
    if tile < SHIPPED:
        monkeypatch.setattr(launch, "FINISH_ONE", (4, 1))
        monkeypatch.setattr(launch, "FINISH_FEW", (2, 64))
        monkeypatch.setattr(launch, "FINISH_MANY", (4, 64))


SHIPPED, SHIPPED_SMALL = 2048, 512
LEARNED = ("mean", "logvar", "kl")
# Several tiles each way, the last ones not whole; each form; noise that begins anywhere.
TILED = [
    *(Case(op, shape, dtype=dtype, reduction="sum", **prior)
      for op, prior in (("sample_kl", PRIORS), ("gaussian_kl", PRIORS),
                        ("gaussian_log_likelihood", {}), ("negative_elbo", {}))
      for shape in ((2, 131), (37, 5), (1, 196))
      for dtype in (torch.float32, torch.bfloat16)),
    *(Case("sample_kl", (2, cols), dtype=dtype, num_samples=2, row_offset=offset)
      for cols, offset in ((131, 0), (131, 1), (132, 1), (132, 0), (7, 3))
      for dtype in (torch.float32, torch.float16, torch.float64)),
    *(Case(op, (5, 131), logvar=kind) for kind in ("event", "scalar", "row")
      for op in ("sample_kl", "gaussian_kl", "gaussian_log_likelihood")),
    *(Case("negative_elbo", (3, 131), logvar=kind, num_samples=samples, reduction=reduction,
           differentiate=LEARNED)
      for kind, samples, reduction in (("full", None, "mean"), ("event", 3, "mean"),
                                       ("scalar", 3, "sum"), ("rows", 3, "none"),
                                       (None, 3, "none"), ("row", None, "none"))),
]  # fmt: skip


@pytest.mark.parametrize("case", TILED, ids=lambda case: f"{case.op}-{case}")
def test_any_division_into_tiles(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, 64, 3)
    check(case, *TRITON)


@pytest.mark.parametrize("programs", [1, 1024])
@pytest.mark.parametrize("kind", ["event", "scalar"])
def test_few_and_many_programs_that_sum(
    kind: str, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(monkeypatch, 64, programs)
    for op in ("gaussian_kl", "negative_elbo"):
        learned = LEARNED if op == "negative_elbo" else None
        check(Case(op, (21, 70), logvar=kind, differentiate=learned), *TRITON)


SHIPPED_CASES = [
    Case(op, shape, dtype=dtype, **prior)
    for op, prior in (("sample_kl", PRIORS), ("gaussian_kl", {}), ("negative_elbo", {}))
    for shape in ((130, 20), (3, 784), (2, 4099))
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize("case", SHIPPED_CASES, ids=lambda case: f"{case.op}-{case}")
def test_tiles_as_shipped(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, SHIPPED, 1024)
    check(case, *TRITON)


@pytest.mark.parametrize("layout", ["offset", "transposed", "sliced", "expanded"])
def test_unaligned_rows_of_many_tiles(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, 64, 3)
    for op in ("sample_kl", "negative_elbo"):
        for cols in (131, 132):
            check(Case(op, (2, cols), layout=layout), *TRITON)


def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels launched from now on."""
    found: list[str] = []
    for module in (kernels("launch"), kernels("scale")):
        original = module.launch

        def counted(kernel, *arguments, original=original) -> None:
            found.append(kernel.__name__)
            original(kernel, *arguments)

        monkeypatch.setattr(module, "launch", counted)
    return found


EVERY = [
    Case("sample_kl", (300, 33), num_samples=2, **PRIORS),
    Case("sample_kl", (3, 5000), logvar="event"),
    Case("gaussian_kl", (300, 33), prior_mean="scalar", prior_logvar="event", logvar="row"),
    Case("gaussian_log_likelihood", (300, 33), num_samples=3, logvar="scalar"),
    Case("negative_elbo", (3, 5000), differentiate=("mean", "logvar", "kl")),
    Case("negative_elbo", (300, 33), logvar="event", differentiate=("mean", "logvar", "kl")),
]


@pytest.mark.parametrize("case", EVERY, ids=lambda case: f"{case.op}-{case}")
def test_a_pass_is_one_launch_and_at_most_a_small_one(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = launches(monkeypatch)
    arguments = tensors(case, TRITON.device)
    outputs = call(case, arguments, "triton")
    assert found[0] == f"{case.op}_fwd_kernel" and found[1:] in ([], ["finish_kernel"])
    found.clear()
    differentiate(outputs, arguments, upstream(case, outputs))
    backward = "scale" if case.op == "negative_elbo" else f"{case.op}_bwd"
    assert found[0] == f"{backward}_kernel" and found[1:] in ([], ["finish_kernel"])


def test_halves_of_an_encoders_output_are_read_in_place() -> None:
    launch = kernels("launch")
    both = torch.randn(8, 2 * 5 * 3, device=TRITON.device)
    shape = torch.Size((8, 15))
    for half, place in zip(both.chunk(2, dim=1), (0, 15), strict=True):
        read = launch.operand(half, shape, 1, 1)
        assert (read.form, read.stride) == (launch.FULL, 30)
        assert read.tensor.data_ptr() == both.data_ptr() + 4 * place


def test_forms_of_operands() -> None:
    launch = kernels("launch")
    shape = torch.Size((2, 6, 5, 3))
    make = torch.randn
    for tensor, event_dims, samples, form in (
        (make(shape), 2, 1, launch.FULL),
        (make(5, 3), 2, 1, launch.COLUMN),
        (make(2, 6, 1, 1), 2, 1, launch.ROW),
        (make(()), 2, 1, launch.SCALAR),
        (make(()).expand(shape), 2, 1, launch.SCALAR),
        (make(6, 5, 3), 2, 2, launch.WRAPPED),
        (make(6, 5, 3).expand(shape), 2, 2, launch.WRAPPED),
        (make(6, 5, 3).expand(shape), 2, 1, launch.FULL),  # as a copy
        (make(2, 6, 3, 5).transpose(2, 3), 2, 1, launch.FULL),
    ):
        assert launch.operand(tensor, shape, event_dims, samples).form == form
    assert launch.operand(None, shape, 2, 1).form == launch.ABSENT


def test_a_seed_by_value_and_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise; and a tensor's bits are read by the kernel, not on the host."""
    noise = kernels("noise")
    monkeypatch.setattr(noise, "to_int", None)  # what would read them
    for seed in (0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1):
        bits = torch.tensor(noise.signed(seed), device=TRITON.device)
        options = {"dtype": torch.float32, "device": TRITON.device, "backend": "triton"}
        by_value, by_memory = (F.noise((3, 7), seed=s, **options) for s in (seed, bits))
        assert torch.equal(by_value, by_memory)


@pytest.mark.skipif(not INTERPRETED, reason="runs a kernel of its own on NumPy's memory")
def test_the_random_words_are_philox() -> None:
    """Bit for bit, at counters and keys of every size; so the uniforms are those of the oracle."""
    import philox_words

    rng = np.random.default_rng(3)
    blocks = np.concatenate(
        [
            np.arange(5),
            2**32 - 2 + np.arange(4),
            2**62 - 3 + np.arange(3),
            rng.integers(0, 2**62, 4),
        ]
    ).astype(np.uint64)
    for seed in (0, 1, 2**32, 0x9E3779B97F4A7C15, 2**64 - 1):
        for sample in (0, 1, 2**31, 2**32 - 1):
            got = philox_words.words(blocks, sample, seed)
            zero = np.zeros_like(blocks)
            counter = [blocks & oracle.WORD, blocks >> oracle.HALF, zero + np.uint64(sample), zero]
            want = np.stack(oracle.philox4x32_10(counter, seed))
            assert np.array_equal(got, want)


def test_the_noise_is_within_its_bound_where_the_radius_is_small_and_large() -> None:
    """A million elements have uniforms next to 1, where ln u is next to 0, and next to 0."""
    shape = (1 << 10, 1 << 10)
    got = F.noise(shape, seed=11, dtype=torch.float32, device=TRITON.device, backend="triton")
    want = oracle.noise(shape, 11, 1)
    assert want.abs().min() < 1e-5 and want.abs().max() > 4.5
    assert (got.cpu().double() - want).abs().max().item() <= 4e-6


FAKE_ARGUMENTS = ("mean", "logvar", "x", "x_mean", "x_logvar", "grad_z", "grad_kl")


def fake_forward(mean: Tensor, logvar: Tensor, x: Tensor, x_mean: Tensor, x_logvar: Tensor,
                 *_upstream: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    z, kl = F.sample_kl(mean, logvar, num_samples=2)
    return (
        z,
        kl,
        F.gaussian_kl(mean, logvar),
        F.gaussian_log_likelihood(x, x_mean, x_logvar),
        F.negative_elbo(x, x_mean, x_logvar, kl),
        F.noise((3, 4), seed=1, device=mean.device),
    )


def fake_backward(mean: Tensor, logvar: Tensor, x: Tensor, x_mean: Tensor, x_logvar: Tensor,
                  grad_z: Tensor, grad_kl: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    ops = torch.ops.vae_fast
    given, options = (mean, logvar, None, None), (1, -30.0, 20.0, "triton")
    seed = ops.draw_seed(mean.device)
    needs = [True, True, False, False]
    noise = (None, seed, 2, 1, 0, -30.0, 20.0, "triton")
    return (
        *ops.sample_kl_backward(grad_z, grad_kl, *given, *noise, needs)[:2],
        *ops.gaussian_kl_backward(grad_kl, *given, *options, needs)[:2],
        *ops.gaussian_log_likelihood_backward(grad_kl, x, x_mean, x_logvar, *options, [True] * 3),
        *ops.negative_elbo_backward(grad_kl, x, x_mean, x_logvar, "none", *options, [True] * 3),
    )


def of(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[tuple[int, ...], torch.dtype]:
    return shape, dtype


HALF, SINGLE = torch.bfloat16, torch.float32
LATENT, DATA, ROWS = of((3, 4), HALF), of((3, 9), HALF), of((3,), SINGLE)
FAKE = {
    fake_forward: [of((2, 3, 4), HALF), ROWS, ROWS, ROWS, of((), SINGLE), of((3, 4), SINGLE)],
    fake_backward: [LATENT] * 4 + [of((3, 9), SINGLE), DATA, DATA] * 2,
}


@pytest.mark.parametrize("function", FAKE, ids=lambda function: function.__name__)
@pytest.mark.parametrize("compiler", [None, "eager", "aot_eager"])
def test_ops_on_fake_cuda_tensors_trace_as_whole_graphs(compiler: str | None, function) -> None:
    """A torch built without CUDA has no autograd for its device, so each pass is traced alone."""
    torch._dynamo.reset()
    traced = function
    if compiler is not None:
        traced = torch.compile(function, fullgraph=True, backend=compiler)
    shapes = {"x": of((3, 9), SINGLE), "x_mean": DATA, "x_logvar": DATA,
              "grad_z": of((2, 3, 4), HALF), "grad_kl": ROWS}  # fmt: skip
    with torch._subclasses.FakeTensorMode(), torch.no_grad():
        arguments = [
            torch.empty(shape, dtype=dtype, device="cuda:0")
            for shape, dtype in (shapes.get(name, LATENT) for name in FAKE_ARGUMENTS)
        ]
        made = traced(*arguments)
    assert [of(tuple(t.shape), t.dtype) for t in made] == FAKE[function]
    assert all(t.device == torch.device("cuda:0") for t in made)


def test_without_a_gpu_and_without_the_interpreter() -> None:
    code = (
        "import torch, vae_fast, vae_fast.functional\n"
        "status = vae_fast.backends()['triton']\n"
        "print(status.available, status.devices, status.reason, status.remedy, sep='|')\n"
        "z = torch.zeros(2, 3)\n"
        "try: vae_fast.functional.gaussian_kl(z, z, backend='triton')\n"
        "except vae_fast.BackendUnavailableError as error: print(error)"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=variables | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    status, error = done.stdout.strip().splitlines()
    available, devices, reason, remedy = status.split("|")
    if "xpu" in GPUS:
        pytest.skip("there is a GPU that cannot be hidden")
    assert (available, devices) == ("False", "('cuda', 'xpu')")
    assert reason in error and remedy in error
    assert "no GPU" in reason and "TRITON_INTERPRET=1" in remedy


@pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")
def test_the_interpreter_runs_cpu_tensors_only_by_name() -> None:
    mean, logvar = torch.randn(31, 77), torch.randn(31, 77)
    default = F.gaussian_kl(mean, logvar)
    named = F.gaussian_kl(mean, logvar, backend="triton")
    torch.testing.assert_close(named, default, rtol=1e-5, atol=1e-5)
    assert vae_fast.backends()["triton"].devices == ("cuda", "xpu", "cpu")
    if vae_fast.backends()["cpu"].available and not os.environ.get("VAE_FAST_BACKEND"):
        assert torch.equal(default, F.gaussian_kl(mean, logvar, backend="cpu"))


@pytest.mark.skipif(not INTERPRETED, reason="of the interpreter")
def test_the_interpreters_bfloat16_is_rounded_as_torch_rounds() -> None:
    import interpreter

    bits = torch.randint(-(2**31), 2**31, (1 << 16,), dtype=torch.int64).to(torch.int32)
    ties = (torch.arange(-(2**15), 2**15, dtype=torch.int32) << 16) + 0x8000
    values = torch.cat([bits, ties]).view(torch.float32)
    got = torch.from_numpy(interpreter.round_to_bfloat16(values.numpy()).view(np.int16))
    want = values.to(torch.bfloat16)
    assert torch.equal(got.view(torch.bfloat16).nan_to_num(7.0), want.nan_to_num(7.0))
