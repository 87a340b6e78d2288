"""What is particular to the Triton backend: tiles, launches, copies, and its random words."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import oracle
import pytest
import torch
from cases import Case, tensors
from check import call, check, differentiate, upstream
from conftest import GPUS, INTERPRETED, Backend, require

import vae_fast
import vae_fast.functional as F

TRITON = Backend("triton", GPUS[0] if GPUS else "cpu")
PRIORS = {"prior_mean": "full", "prior_logvar": "event"}
CONTROL = {"free_bits": 0.3, "balance": 0.8}
DIMS = {**CONTROL, "return_dims": True}
WEIGHTED = {**PRIORS, "num_samples": 3}


@pytest.fixture(autouse=True)
def triton_is_there() -> Iterator[None]:
    """And every call is divided and launched anew, however it was before."""
    require(TRITON)
    with kernels("replay").disabled():
        yield


def kernels(name: str):
    vae_fast.backends()  # loads the backend
    return importlib.import_module(f"vae_fast.kernels.{name}")


def divide(monkeypatch: pytest.MonkeyPatch, tile: int, programs: int) -> None:
    """Tiles of so many elements, so many programs that sum over rows, small finishing tiles."""
    launch = kernels("launch")
    monkeypatch.setattr(launch, "TILE", tile)
    monkeypatch.setattr(launch, "SMALL_TILE", min(tile, SHIPPED_SMALL))
    monkeypatch.setattr(launch, "SUMMING_PROGRAMS", programs)
    weights = kernels("importance_weighted_elbo")
    small = tile < SHIPPED
    monkeypatch.setattr(weights, "WEIGHT_ROWS", 4 if small else launch.WEIGHT_ROWS)
    monkeypatch.setattr(weights, "WEIGHT_TILE", 32 if small else launch.WEIGHT_TILE)
    if small:
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
    *(Case("sample_kl", shape, dtype=dtype, **DIMS, **PRIORS)
      for shape in ((2, 131), (37, 5), (1, 196), (21, 132))
      for dtype in (torch.float32, torch.float64)),
    *(Case("gaussian_kl", (5, 131), dtype=dtype, logvar="event", **CONTROL, **PRIORS)
      for dtype in (torch.float32, torch.float64)),
    *(Case("sample_log_weights", shape, dtype=dtype, estimator=estimator, row_offset=1,
           sample_offset=2**32 - 3, **WEIGHTED)
      for shape, estimator in (((2, 131), "stl"), ((37, 5), "dreg"), ((3, 132), "dreg"),
                               ((1, 196), "reparameterization"))
      for dtype in (torch.float32, torch.bfloat16, torch.float64)),
    *(Case("sample_log_weights", (5, 131), logvar=kind, num_samples=2, estimator="stl")
      for kind in ("event", "scalar", "row")),
    *(Case("score_function", (5, cols), logvar=kind, num_samples=2, baseline="rows")
      for cols in (131, 132) for kind in ("full", "event", "scalar", "row")),
    *(Case("squared_error", (3, 131), num_samples=samples) for samples in (None, 3)),
    *(Case("importance_weighted_elbo", shape, dtype=dtype, num_samples=samples, level=level)
      for shape, samples, level in (((37,), 5, 0.0), ((3, 11), 40, 1e4), ((70,), 1, -1e4))
      for dtype in (torch.float32, torch.float64)),
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
    check(Case("sample_kl", (21, 70), logvar=kind, return_dims=True), *TRITON)


SHIPPED_CASES = [
    Case(op, shape, dtype=dtype, **prior)
    for op, prior in (("sample_kl", PRIORS), ("gaussian_kl", {}), ("negative_elbo", {}),
                      ("sample_kl", {"return_dims": True}), ("sample_log_weights", WEIGHTED))
    for shape in ((130, 20), (3, 784), (2, 4099))
    for dtype in (torch.float32, torch.bfloat16)
] + [
    Case("importance_weighted_elbo", (batch,), num_samples=samples)
    for batch, samples in ((70, 40), (3, 700), (1000, 5))
]  # fmt: skip


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
    for module in (kernels("launch"), kernels("scale"), kernels("importance_weighted_elbo")):
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
    Case("sample_kl", (300, 33), **DIMS, **PRIORS),
    Case("sample_log_weights", (3, 5000), estimator="dreg", **WEIGHTED),
    Case("score_function", (300, 33), logvar="event"),
    Case("importance_weighted_elbo", (300,), num_samples=40),
    Case("squared_error", (3, 5000)),
]
# The kernels of a forward and a backward pass, where not those of the op's name.
KERNELS = {
    "negative_elbo": ("negative_elbo_fwd_kernel", "scale_kernel"),
    "score_function": (None, "score_function_bwd_kernel"),
    "importance_weighted_elbo": ("importance_weighted_elbo_fwd_kernel", None),
    "squared_error": ("gaussian_log_likelihood_fwd_kernel", "gaussian_log_likelihood_bwd_kernel"),
}


@pytest.mark.parametrize("case", EVERY, ids=lambda case: f"{case.op}-{case}")
def test_a_pass_is_one_launch_and_at_most_a_small_one(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = launches(monkeypatch)
    forward, backward = KERNELS.get(case.op, (f"{case.op}_fwd_kernel", f"{case.op}_bwd_kernel"))
    arguments = tensors(case, TRITON.device)
    outputs = call(case, arguments, "triton")
    assert found[:1] == ([forward] if forward else []) and found[1:] in ([], ["finish_kernel"])
    found.clear()
    differentiate(outputs, arguments, upstream(case, outputs))
    assert found[:1] == ([backward] if backward else []) and found[1:] in ([], ["finish_kernel"])


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
        bits = torch.tensor(kernels("arguments").signed(seed), device=TRITON.device)
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


def test_float64_noise_is_exact_at_every_angle() -> None:
    """To a few roundings, which the oracle makes too."""
    options = {"dtype": torch.float64, "device": TRITON.device, "backend": "triton"}
    got = F.noise((400, 1000), seed=11, **options).cpu()
    assert (got - oracle.noise((400, 1000), 11, 1)).abs().max().item() <= 16 * 2.0**-53 * 6.76


INF, NAN = float("inf"), float("nan")


def test_log_weights_that_are_not_finite_stay_in_their_rows() -> None:
    w = torch.tensor([[-INF, 1.0, INF, NAN, NAN, INF, -INF, 0.0],
                      [-INF, -INF, 1.0, 2.0, INF, INF, NAN, 0.0]])  # fmt: skip
    got = F.importance_weighted_elbo(w.to(TRITON.device), backend="triton")
    bound = torch.tensor([-INF, 1.0 - math.log(2.0), INF, NAN, NAN, INF, NAN, 0.0])
    weights = torch.tensor([[0.0, 1.0, NAN, NAN, NAN, NAN, NAN, 0.5],
                            [0.0, 0.0, NAN, NAN, NAN, NAN, NAN, 0.5]])  # fmt: skip
    torch.testing.assert_close(got[0].cpu(), bound, equal_nan=True)
    torch.testing.assert_close(got[1].cpu(), weights, equal_nan=True)


def test_numbers_of_float64_reach_the_kernels_whole() -> None:
    """A third and its float32 differ by 1e-8, and so would the sums of a floor of either."""
    mean = torch.zeros(3, 5, dtype=torch.float64, device=TRITON.device)
    kl = F.gaussian_kl(mean, mean, free_bits=1 / 3, backend="triton")
    torch.testing.assert_close(kl.cpu(), torch.full((3,), 5 / 3, dtype=torch.float64))


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
