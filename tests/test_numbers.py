"""Numbers of any kind where a number is taken: kept as Python's own, and bools refused."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F
from vae_fast import FusedVAE, GaussianPrior, _checks
from vae_fast._backends import reference
from vae_fast.objectives import ELBO, IWAE, Constant, Cosine, Cyclical, FreeBits, Linear

WHOLE = (np.int8, np.uint8, np.int32, np.int64, np.uint64)
REAL = (np.float16, np.float32, np.float64, np.longdouble, Fraction)
# What has a value and is no number here: of a tensor it might be on a GPU.
NEITHER = (True, np.True_, torch.tensor(3), np.array([3, 4]), "3", None, 3j)


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_become_ints(kind: type) -> None:
    for value in (_checks.integer("n", kind(3), 1, 3), _checks.real("n", kind(3))):
        assert type(value) is int and value == 3
    assert type(_checks.integer("n", np.array(3))) is int
    assert _checks.integer("seed", np.uint64(2**64 - 1)) == 2**64 - 1


@pytest.mark.parametrize("kind", REAL)
def test_real_numbers_become_floats(kind: type) -> None:
    value = _checks.number("n", kind(0.5), 0, 1)
    assert type(value) is float and value == 0.5
    with pytest.raises(TypeError, match="n must be an int; got"):
        _checks.integer("n", kind(0.5))


@pytest.mark.parametrize("value", NEITHER, ids=repr)
def test_what_is_no_number(value: object) -> None:
    given = f"got {type(value).__name__}"
    with pytest.raises(TypeError, match=f"n must be an int; {given}"):
        _checks.integer("n", value, 0)
    with pytest.raises(TypeError, match=f"n must be a number; {given}"):
        _checks.number("n", value, 0)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, np.float32("nan"), 10**400, np.longdouble("inf")]
)
def test_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="n must be finite"):
        _checks.number("n", value, -math.inf)


def plain(value: object) -> bool:
    """Whether there is nothing of NumPy in it, down to its parts."""
    if isinstance(value, dict):
        return all(plain(part) for part in value.values())
    if isinstance(value, tuple):
        return all(plain(part) for part in value)
    if hasattr(value, "__dataclass_fields__"):
        return all(plain(part) for part in vars(value).values())
    return type(value) in (int, float, str, type(None))


OBJECTIVES = {
    "elbo": lambda i, r: ELBO(i(2), beta=r(0.5), capacity=r(1.5), balance=r(0.25)),
    "schedules": lambda i, r: ELBO(
        beta=Linear(r(0), r(1), i(4)), capacity=Cosine(i(0), i(3), i(4))
    ),
    "cyclical": lambda i, r: ELBO(beta=Cyclical(r(0), r(1), i(4), i(2), r(0.5))),
    "constant": lambda i, r: IWAE(i(3), beta=Constant(r(0.5))),
    "iwae": lambda i, r: IWAE(i(3), "dreg", beta=i(1)),
    "groups": lambda i, r: ELBO(
        free_bits=FreeBits(r(0.5), "group", {"a": np.array([0, 2]), "b": (i(1), i(3))})
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_keep_python_numbers(name: str) -> None:
    """And compute the same with them."""
    found, want = OBJECTIVES[name](np.int64, np.float32), OBJECTIVES[name](int, float)
    assert plain(found) and found == want and repr(found) == repr(want)
    losses = []
    for objective in (found, want):
        torch.manual_seed(0)
        prior = GaussianPrior(4, learned=True)
        model = FusedVAE(6, 4, (8,), objective=objective, prior=prior)
        model.set_step(np.int8(3) if objective is found else 3)
        assert type(model.beta) is float
        losses.append(model(torch.ones(5, 6), seed=3).loss)
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    "schedule", [Constant(2), Linear(0, 3, 200), Cosine(0, 3, 200), Cyclical(0, 3, 200)], ids=str
)
def test_steps_of_a_schedule(schedule) -> None:
    value = schedule(np.int8(100))
    assert type(value) is float and value == schedule(100)


def test_a_model() -> None:
    """Sizes, counts and bounds of NumPy, of which nothing is left in the model."""
    made = []
    for i, r, hidden in ((np.int64, np.float32, np.array([16, 8])), (int, float, (16, 8))):
        torch.manual_seed(0)
        model = FusedVAE(
            np.prod((3, 4)) if i is np.int64 else 12, i(3), hidden, num_samples=i(2),
            beta=r(0.5), decoder_logvar_min=r(-2),
            prior=GaussianPrior(i(3), r(0.5), i(0), learned=False),
        )  # fmt: skip
        model.set_step(i(5))
        made.append(model)
    found, want = made
    assert plain((found.input_shape, found.latent_shape, found.decoder_logvar_min, found.beta))
    assert plain(found.num_samples) and repr(found) == repr(want)
    x = torch.ones(5, 12)
    assert torch.equal(
        found(x, seed=np.uint64(2**63 + 5), row_offset=np.int64(4)).loss,
        want(x, seed=2**63 + 5, row_offset=4).loss,
    )
    assert torch.equal(found.sample(np.int64(3), seed=np.int8(7)), want.sample(3, seed=7))
    assert torch.equal(
        found.log_likelihood(x, np.int64(7), chunk=np.int8(3), seed=np.int64(1)),
        want.log_likelihood(x, 7, chunk=3, seed=1),
    )
    found.beta, found.num_samples = np.float32(0.25), np.int64(1)
    assert plain((found.beta, found.num_samples)) and (found.beta, found.num_samples) == (0.25, 1)


@pytest.mark.parametrize("shape", [(np.int64(2), 3), np.array([2, 3]), torch.Size((2, 3)), [2, 3]])
def test_shapes(shape: object) -> None:
    model = FusedVAE(shape, shape, ())
    assert model.input_shape == model.latent_shape == (2, 3) and plain(model.input_shape)
    assert GaussianPrior(shape, learned=True).mean.shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latent_shape": 2.0}, TypeError, r"latent_shape must be a positive int .*2\.0"),
        ({"latent_shape": 0}, ValueError, "latent_shape .*0"),
        ({"mean": True}, TypeError, "mean must be a number; got bool"),
        ({"mean": np.True_}, TypeError, "mean must be a number; got bool"),
        ({"mean": math.nan}, ValueError, "mean must be finite; got nan"),
        ({"logvar": -math.inf}, ValueError, "logvar must be finite; got -inf"),
        ({"logvar": None}, TypeError, "logvar must be a number; got NoneType"),
    ],
)
def test_what_a_prior_refuses(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        GaussianPrior(**({"latent_shape": 4, "learned": True} | options))


def every_op(i, r, seed, backend: str | None) -> list[Tensor]:
    """Results of all ops, with the numbers made by ``i`` and ``r``."""
    x, mean, logvar = torch.linspace(-2, 2, 90).reshape(3, 5, 6)
    bounds = {"logvar_min": r(-1.5), "logvar_max": r(1.5), "event_dims": i(1), "backend": backend}
    noise = {"num_samples": i(2), "seed": seed, "row_offset": i(3)}
    control = {"free_bits": r(0.5), "balance": r(0.25)}
    z, kl, dims = F.sample_kl(mean, logvar, **noise, **bounds, **control, return_dims=True)
    _, ratio = F.sample_log_weights(mean, logvar, **noise, **bounds, sample_offset=i(4))
    signal = F.score_function(ratio, mean, logvar, **noise, **bounds)
    ll = F.gaussian_log_likelihood(x, mean, logvar, **bounds)
    loss = F.negative_elbo(x, mean, logvar, kl, beta=r(0.5), **bounds)
    eps = F.noise((i(5), i(6)), **noise, event_dims=i(1), dtype=torch.float32, backend=backend)
    halves = F.split_parameters(mean, i(-1))
    plain_kl = F.gaussian_kl(mean, logvar, **bounds, **control)
    return [z, kl, dims, ratio, signal, ll, loss, eps, *halves, plain_kl]


def test_every_op(backend: Backend) -> None:
    if backend.device != "cpu":
        pytest.skip("its numbers are those of the CPU")
    found = every_op(np.int64, np.float32, np.uint64(2**64 - 3), backend.name)
    want = every_op(int, float, 2**64 - 3, backend.name)
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))


def test_what_reaches_a_kernel_is_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for name in ("sample_kl_forward", "noise", "negative_elbo_forward", "gaussian_kl_forward"):
        real = getattr(reference, name)
        monkeypatch.setattr(
            reference, name, lambda *given, real=real: seen.append(given) or real(*given)
        )
    every_op(np.int64, np.float64, np.uint64(3), "reference")
    assert len(seen) >= 4
    other = (Tensor, torch.dtype, torch.device, bool)
    no_gradients = (False, False, False)
    for given in seen:
        values = [v for v in given if not isinstance(v, other) and v != no_gradients]
        assert all(plain(value) for value in values), given


@pytest.mark.parametrize("name", ["seed", "row_offset", "num_samples", "event_dims", "free_bits"])
def test_bools_are_no_numbers(name: str, backend: Backend) -> None:
    mean = torch.zeros(5, 6, device=backend.device)
    for value in (True, np.True_, torch.ones((), dtype=torch.bool)):
        error = ValueError if name == "seed" and isinstance(value, Tensor) else TypeError
        with pytest.raises(error, match=f"{name} must be "):
            F.sample_kl(mean, mean, **{name: value}, backend=backend.name)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_whole(dynamic: bool, compiled_backend: Backend) -> None:
    """The checks are traced, with numbers that stay open, and with NumPy's."""
    torch._dynamo.reset()
    mean, logvar = torch.linspace(-2, 2, 60).reshape(2, 5, 6)

    def step(seed, row_offset, beta, bits) -> Tensor:
        z, kl = F.sample_kl(
            mean, logvar, seed=seed, row_offset=row_offset, free_bits=bits,
            backend=compiled_backend.name,
        )  # fmt: skip
        return F.negative_elbo(z, mean, logvar, kl, beta=beta, backend=compiled_backend.name)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for given in ((3, 4, 0.5, 0.25), (5, 6, 0.25, 0.5), (2**63 - 1, 0, 2, 1)):
        torch.testing.assert_close(compiled(*given), step(*given))
