"""Wrong arguments of the ops: the exception, what was expected and what was given."""

from __future__ import annotations

import functools

import pytest
import torch
from cases import ARGUMENTS, DECODER_OPS, Case, priors, tensors
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F

OPS = tuple(ARGUMENTS)
ELSEWHERE = torch.zeros(5, 3, device="meta")
TENSORS = [(op, name) for op in OPS for name in ARGUMENTS[op]]
WITH_ROWS = tuple(op for op in OPS if "mean" in ARGUMENTS[op])
WITH_BOUNDS = tuple(op for op in OPS if "logvar" in ARGUMENTS[op])
SAMPLING = ("sample_kl", "sample_log_weights", "score_function")
PER_ROW = ("kl", "signal")
REQUIRED = {"score_function": {"seed": 0}}  # options that have no default


def arguments(op: str) -> dict[str, Tensor | None]:
    return tensors(Case(op, (5, 3), **priors(op)))


def call(op: str, backend: Backend, **given: object) -> object:
    """The op with good arguments, but for those given."""
    options = {} if {"eps", "seed", "generator"} & set(given) else REQUIRED.get(op, {})
    return getattr(F, op)(**(arguments(op) | options | given), backend=backend.name)


@pytest.fixture(autouse=True)
def no_kernel_starts(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every error comes before any kernel: none may be allocated for."""
    if "backend" not in request.fixturenames:
        return

    def allocated(*_: object, **__: object) -> Tensor:
        raise AssertionError("memory was allocated before the arguments were checked")

    monkeypatch.setattr(torch, "empty", allocated)
    monkeypatch.setattr(torch, "empty_like", allocated)


@pytest.mark.parametrize(("op", "name"), TENSORS)
@pytest.mark.parametrize(
    ("value", "given"),
    [
        (torch.zeros(5, 3, dtype=torch.int64), "int64"),
        (torch.zeros(5, 3, dtype=torch.bool), "bool"),
        (torch.zeros(5, 3, dtype=torch.complex64), "complex64"),
        (torch.zeros(5, 3).to_sparse(), "sparse"),
        ([[0.0] * 3] * 5, "list"),
        (1.0, "float"),
    ],
    ids=str,
)
def test_not_a_floating_tensor(
    op: str, name: str, value: object, given: str, backend: Backend
) -> None:
    with pytest.raises(TypeError, match=rf"(?s){name} must .*{given}"):
        call(op, backend, **{name: value})


@pytest.mark.parametrize("op", WITH_ROWS)
def test_mean_is_not_optional(op: str, backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"mean must be a torch\.Tensor; got NoneType"):
        call(op, backend, mean=None)


@pytest.mark.parametrize("op", [op for op in WITH_BOUNDS if op not in DECODER_OPS])
def test_logvar_is_not_optional_for_an_encoder(op: str, backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"logvar must be a torch\.Tensor; got NoneType"):
        call(op, backend, logvar=None)


@pytest.mark.parametrize(
    ("op", "name"), [p for p in TENSORS if p[1] in ("logvar", "prior_mean", "prior_logvar")]
)
@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (2, 5, 3), (5,), (3, 5)], ids=str)
def test_shapes_that_do_not_broadcast(op: str, name: str, shape: tuple, backend: Backend) -> None:
    message = rf"{name} must .*\(5, 3\).*got \({shape[0]},"
    with pytest.raises(ValueError, match=message):
        call(op, backend, **{name: torch.zeros(shape)})


@pytest.mark.parametrize("op", DECODER_OPS)
@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (5, 1), (2, 5, 3)], ids=str)
def test_shapes_of_x(op: str, shape: tuple[int, ...], backend: Backend) -> None:
    with pytest.raises(ValueError, match=rf"x must .*\(5, 3\).*got \({shape[0]},"):
        call(op, backend, x=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(), (4,), (5, 1), (5, 3), (1,)], ids=str)
def test_shapes_of_kl(shape: tuple[int, ...], backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"kl must .*\(5,\).*got \("):
        call("negative_elbo", backend, kl=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(), (4,), (5, 1), (5, 3), (1,), (2, 5)], ids=str)
def test_shapes_of_signal(shape: tuple[int, ...], backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"signal must .*\(5,\); got \("):
        call("score_function", backend, signal=torch.zeros(shape))
    with pytest.raises(ValueError, match=r"signal must .*\(3, 5\); got \("):
        call("score_function", backend, signal=torch.zeros(shape), num_samples=3)


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        (torch.zeros(4), ValueError, r"\(5,\).*got \(4,\)"),
        (torch.zeros(2, 5), ValueError, r"\(5,\).*got \(2, 5\)"),
        (torch.zeros(5, dtype=torch.int64), TypeError, "int64"),
        (0.5, TypeError, "float"),
        (ELSEWHERE[:, 0], ValueError, "on cpu.*meta"),
    ],
    ids=["length", "dims", "int64", "float", "device"],
)
def test_baseline(baseline: object, error: type, message: str, backend: Backend) -> None:
    with pytest.raises(error, match=f"baseline must .*{message}"):
        call("score_function", backend, baseline=baseline)


def test_a_score_function_without_the_noise_of_its_sample(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"one of eps and seed must be given.*got neither"):
        F.score_function(**arguments("score_function"), backend=backend.name)


@pytest.mark.parametrize("shape", [(), (0,), (0, 5)], ids=str)
def test_shapes_of_log_weights(shape: tuple[int, ...], backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"log_weights must .*K of at least 1; got \("):
        call("importance_weighted_elbo", backend, log_weights=torch.zeros(shape))


@pytest.mark.parametrize("op", WITH_ROWS)
def test_a_mean_without_dimensions(op: str, backend: Backend) -> None:
    scalars = {name: torch.zeros(()) for name in ARGUMENTS[op]}
    with pytest.raises(ValueError, match=r"(mean|x) must have at least one dimension"):
        call(op, backend, **scalars)


@pytest.mark.parametrize("op", WITH_ROWS)
@pytest.mark.parametrize(
    ("event_dims", "error"),
    [(-1, ValueError), (3, ValueError), (1.0, TypeError), (True, TypeError)],
)
def test_event_dims(op: str, event_dims: object, error: type, backend: Backend) -> None:
    given = event_dims if error is ValueError else type(event_dims).__name__
    with pytest.raises(error, match=rf"event_dims must .*got {given}"):
        call(op, backend, event_dims=event_dims)


@pytest.mark.parametrize("op", WITH_BOUNDS)
@pytest.mark.parametrize("bounds", [(1.0, -1.0), (float("nan"), 1.0)], ids=str)
def test_bounds(op: str, bounds: tuple[float, float], backend: Backend) -> None:
    with pytest.raises(ValueError, match=rf"logvar_min must .*logvar_max; got {bounds[0]}"):
        call(op, backend, logvar_min=bounds[0], logvar_max=bounds[1])


@pytest.mark.parametrize(("op", "name"), [p for p in TENSORS if p[0] in WITH_ROWS])
def test_devices(op: str, name: str, backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"must be on (cpu|meta).*got (cpu|meta)"):
        call(op, backend, **{name: ELSEWHERE[:, 0] if name in PER_ROW else ELSEWHERE})


@pytest.mark.parametrize("op", ["sample_kl", "gaussian_kl"])
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("free_bits", -0.1, ValueError),
        ("free_bits", float("nan"), ValueError),
        ("free_bits", float("inf"), ValueError),
        ("free_bits", "1", TypeError),
        ("free_bits", True, TypeError),
        ("balance", -0.1, ValueError),
        ("balance", 1.1, ValueError),
        ("balance", float("nan"), ValueError),
        ("balance", torch.ones(()), TypeError),
    ],
)
def test_free_bits_and_balance(
    op: str, name: str, value: object, error: type, backend: Backend
) -> None:
    given = value if error is ValueError else type(value).__name__
    with pytest.raises(error, match=rf"{name} must .*got {given}"):
        call(op, backend, **{name: value})


@pytest.mark.parametrize("estimator", ["STL", "", None, "score"])
def test_estimator(estimator: object, backend: Backend) -> None:
    message = rf"estimator must be one of 'reparameterization', 'stl', 'dreg'; got {estimator!r}"
    with pytest.raises(ValueError, match=message):
        call("sample_log_weights", backend, estimator=estimator)


def test_sample_offset(backend: Backend) -> None:
    for sample_offset, error, given in (
        (-1, ValueError, "-1"),
        (2**32 - 2, ValueError, str(2**32 - 2)),
        (0.5, TypeError, "float"),
        (True, TypeError, "bool"),
    ):
        with pytest.raises(error, match=f"sample_offset must .*{given}"):
            call("sample_log_weights", backend, sample_offset=sample_offset, num_samples=3)
    with pytest.raises(ValueError, match="sample_offset must be 0 where eps is given; got 1"):
        call("sample_log_weights", backend, sample_offset=1, eps=torch.zeros(5, 3))


@pytest.mark.parametrize("reduction", ["average", "", None, "MEAN", 1])
def test_reduction(reduction: object, backend: Backend) -> None:
    with pytest.raises(ValueError, match=rf"reduction must .*'mean'.*'sum'.*'none'.*{reduction!r}"):
        F.negative_elbo(**arguments("negative_elbo"), reduction=reduction, backend=backend.name)


@pytest.mark.parametrize(
    "beta",
    [torch.ones(2), torch.ones((), requires_grad=True), torch.ones(1)],
    ids=["2", "grad", "1"],
)
def test_beta(beta: Tensor, backend: Backend) -> None:
    with pytest.raises(ValueError, match="beta must"):
        F.negative_elbo(**arguments("negative_elbo"), beta=beta, backend=backend.name)


@pytest.mark.parametrize(
    ("num_samples", "error"),
    [(0, ValueError), (-2, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_num_samples(num_samples: object, error: type, backend: Backend) -> None:
    given = num_samples if error is ValueError else type(num_samples).__name__
    expected = "at least 1" if error is ValueError else "an int"
    for attempt in (
        *(functools.partial(call, op, backend) for op in SAMPLING),
        lambda **k: F.noise((5, 3), seed=0, dtype=torch.float32, device="cpu",
                            backend=backend.name, **k),
    ):  # fmt: skip
        with pytest.raises(error, match=f"num_samples must be {expected}.*got {given}"):
            attempt(num_samples=num_samples)


@pytest.mark.parametrize(
    ("seed", "error", "given"),
    [
        (-1, ValueError, "-1"),
        (2**64, ValueError, str(2**64)),
        (1.0, TypeError, "float"),
        ("7", TypeError, "str"),
        (True, TypeError, "bool"),
        (torch.zeros(2, dtype=torch.int64), ValueError, r"\(2,\)"),
        (torch.zeros((), dtype=torch.int32), ValueError, "int32"),
        (torch.zeros(()), ValueError, "float32"),
    ],
    ids=str,
)
def test_seed(seed: object, error: type, given: str, backend: Backend) -> None:
    for op in SAMPLING:
        with pytest.raises(error, match=f"seed must .*{given}"):
            call(op, backend, seed=seed)
    with pytest.raises(error, match=f"seed must .*{given}"):
        F.noise((5, 3), seed=seed, dtype=torch.float32, device="cpu", backend=backend.name)


@pytest.mark.parametrize("op", SAMPLING)
def test_row_offset(op: str, backend: Backend) -> None:
    for row_offset, error, given in ((-1, ValueError, "-1"), (0.5, TypeError, "float")):
        with pytest.raises(error, match=f"row_offset must .*{given}"):
            call(op, backend, row_offset=row_offset)
    with pytest.raises(ValueError, match=r"row_offset must leave .* below 2\*\*64.*; got 9223372"):
        call(op, backend, row_offset=2**63)


PAIRS = (("eps", "seed"), ("seed", "generator"), ("eps", "generator"))


@pytest.mark.parametrize(
    ("op", "pair"),
    [(op, pair) for op in ("sample_kl", "sample_log_weights") for pair in PAIRS]
    + [("score_function", PAIRS[0])],
)
def test_more_than_one_source_of_noise(op: str, pair: tuple[str, str], backend: Backend) -> None:
    sources = {"eps": torch.zeros(5, 3), "seed": 0, "generator": torch.Generator()}
    with pytest.raises(ValueError, match=f"(?s){pair[0]}.*{pair[1]}"):
        call(op, backend, **{name: sources[name] for name in pair})


@pytest.mark.parametrize(
    ("eps", "error", "message"),
    [
        (torch.zeros(5, 4), ValueError, r"eps must .*\(5, 3\).*got \(5, 4\)"),
        (torch.zeros(1, 5, 3), ValueError, r"eps must .*\(5, 3\).*got \(1, 5, 3\)"),
        (torch.zeros(3), ValueError, r"eps must .*\(5, 3\).*got \(3,\)"),
        (ELSEWHERE, ValueError, "eps must be on cpu.*meta"),
        (torch.zeros(5, 3, requires_grad=True), ValueError, "eps must not require"),
        (torch.zeros(5, 3, dtype=torch.int32), TypeError, "eps must .*int32"),
        (0.0, TypeError, "eps must .*float"),
    ],
    ids=lambda value: "" if isinstance(value, Tensor) else None,
)
def test_eps(eps: object, error: type, message: str, backend: Backend) -> None:
    for op in SAMPLING:
        with pytest.raises(error, match=message):
            call(op, backend, eps=eps)


def test_eps_of_several_samples(backend: Backend) -> None:
    for op in SAMPLING:
        with pytest.raises(ValueError, match=r"eps must .*\(2, 5, 3\).*got \(5, 3\)"):
            call(op, backend, num_samples=2, eps=torch.zeros(5, 3))


def test_generator(backend: Backend) -> None:
    for op in ("sample_kl", "sample_log_weights"):
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator; got int"):
            call(op, backend, generator=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shape": (-1, 3)}, ValueError, r"shape must .*\(-1, 3\)"),
        ({"shape": ()}, ValueError, "at least one dimension"),
        ({"event_dims": 3}, ValueError, "event_dims must .*got 3"),
        ({"dtype": torch.int64}, TypeError, "dtype must .*int64"),
        ({"dtype": torch.complex64}, TypeError, "dtype must .*complex64"),
    ],
    ids=str,
)
def test_noise(options: dict, error: type, message: str, backend: Backend) -> None:
    defaults = {"shape": (5, 3), "seed": 0, "dtype": torch.float32, "device": "cpu"}
    with pytest.raises(error, match=message):
        F.noise(**(defaults | options), backend=backend.name)
