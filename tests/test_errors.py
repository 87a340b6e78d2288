"""Wrong arguments of the ops: the exception, what was expected and what was given."""

from __future__ import annotations

import pytest
import torch
from cases import ARGUMENTS, Case, tensors
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F

OPS = tuple(ARGUMENTS)
ELSEWHERE = torch.zeros(5, 3, device="meta")
TENSORS = [(op, name) for op in OPS for name in ARGUMENTS[op]]


def arguments(op: str, **options) -> dict[str, Tensor | None]:
    prior = {"prior_mean": "full", "prior_logvar": "full"} if "prior_mean" in ARGUMENTS[op] else {}
    return tensors(Case(op, (5, 3), **(prior | options)))


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
        getattr(F, op)(**(arguments(op) | {name: value}), backend=backend.name)


@pytest.mark.parametrize("op", OPS)
def test_mean_is_not_optional(op: str, backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"mean must be a torch\.Tensor; got NoneType"):
        getattr(F, op)(**(arguments(op) | {"mean": None}), backend=backend.name)


@pytest.mark.parametrize("op", ["sample_kl", "gaussian_kl"])
def test_logvar_is_not_optional_for_an_encoder(op: str, backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"logvar must be a torch\.Tensor; got NoneType"):
        getattr(F, op)(**(arguments(op) | {"logvar": None}), backend=backend.name)


@pytest.mark.parametrize(("op", "name"), [p for p in TENSORS if p[1] not in ("mean", "kl", "x")])
@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (2, 5, 3), (5,), (3, 5)], ids=str)
def test_shapes_that_do_not_broadcast(op: str, name: str, shape: tuple, backend: Backend) -> None:
    message = rf"{name} must .*\(5, 3\).*got \({shape[0]},"
    with pytest.raises(ValueError, match=message):
        getattr(F, op)(**(arguments(op) | {name: torch.zeros(shape)}), backend=backend.name)


@pytest.mark.parametrize("op", ["gaussian_log_likelihood", "negative_elbo"])
@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (5, 1), (2, 5, 3)], ids=str)
def test_shapes_of_x(op: str, shape: tuple[int, ...], backend: Backend) -> None:
    given = arguments(op) | {"x": torch.zeros(shape)}
    with pytest.raises(ValueError, match=rf"x must .*\(5, 3\).*got \({shape[0]},"):
        getattr(F, op)(**given, backend=backend.name)


@pytest.mark.parametrize("shape", [(), (4,), (5, 1), (5, 3), (1,)], ids=str)
def test_shapes_of_kl(shape: tuple[int, ...], backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"kl must .*\(5,\).*got \("):
        F.negative_elbo(**(arguments("negative_elbo") | {"kl": torch.zeros(shape)}),
                        backend=backend.name)  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_a_mean_without_dimensions(op: str, backend: Backend) -> None:
    scalars = {name: torch.zeros(()) for name in ARGUMENTS[op]}
    with pytest.raises(ValueError, match=r"(mean|x) must have at least one dimension"):
        getattr(F, op)(**scalars, backend=backend.name)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("event_dims", "error"),
    [(-1, ValueError), (3, ValueError), (1.0, TypeError), (True, TypeError)],
)
def test_event_dims(op: str, event_dims: object, error: type, backend: Backend) -> None:
    given = event_dims if error is ValueError else type(event_dims).__name__
    with pytest.raises(error, match=rf"event_dims must .*got {given}"):
        getattr(F, op)(**arguments(op), event_dims=event_dims, backend=backend.name)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("bounds", [(1.0, -1.0), (float("nan"), 1.0)], ids=str)
def test_bounds(op: str, bounds: tuple[float, float], backend: Backend) -> None:
    with pytest.raises(ValueError, match=rf"logvar_min must .*logvar_max; got {bounds[0]}"):
        getattr(F, op)(**arguments(op), logvar_min=bounds[0], logvar_max=bounds[1],
                       backend=backend.name)  # fmt: skip


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_devices(op: str, name: str, backend: Backend) -> None:
    given = arguments(op) | {name: ELSEWHERE[:, 0] if name == "kl" else ELSEWHERE}
    with pytest.raises(ValueError, match=r"must be on (cpu|meta).*got (cpu|meta)"):
        getattr(F, op)(**given, backend=backend.name)


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
    for call in (
        lambda **k: F.sample_kl(**arguments("sample_kl"), **k),
        lambda **k: F.noise((5, 3), seed=0, dtype=torch.float32, device="cpu", **k),
    ):
        with pytest.raises(error, match=f"num_samples must be {expected}.*got {given}"):
            call(num_samples=num_samples, backend=backend.name)


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
    with pytest.raises(error, match=f"seed must .*{given}"):
        F.sample_kl(**arguments("sample_kl"), seed=seed, backend=backend.name)
    with pytest.raises(error, match=f"seed must .*{given}"):
        F.noise((5, 3), seed=seed, dtype=torch.float32, device="cpu", backend=backend.name)


def test_row_offset(backend: Backend) -> None:
    for row_offset, error, given in ((-1, ValueError, "-1"), (0.5, TypeError, "float")):
        with pytest.raises(error, match=f"row_offset must .*{given}"):
            F.sample_kl(**arguments("sample_kl"), row_offset=row_offset, backend=backend.name)


@pytest.mark.parametrize("pair", [("eps", "seed"), ("seed", "generator"), ("eps", "generator")])
def test_more_than_one_source_of_noise(pair: tuple[str, str], backend: Backend) -> None:
    sources = {"eps": torch.zeros(5, 3), "seed": 0, "generator": torch.Generator()}
    with pytest.raises(ValueError, match=f"(?s){pair[0]}.*{pair[1]}"):
        F.sample_kl(**arguments("sample_kl"), **{n: sources[n] for n in pair}, backend=backend.name)


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
    with pytest.raises(error, match=message):
        F.sample_kl(**arguments("sample_kl"), eps=eps, backend=backend.name)


def test_eps_of_several_samples(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"eps must .*\(2, 5, 3\).*got \(5, 3\)"):
        F.sample_kl(**arguments("sample_kl"), num_samples=2, eps=torch.zeros(5, 3),
                    backend=backend.name)  # fmt: skip


def test_generator(backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator; got int"):
        F.sample_kl(**arguments("sample_kl"), generator=3, backend=backend.name)


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
