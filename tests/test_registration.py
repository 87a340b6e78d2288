"""The registered ops, torch.ops.vae_fast.*, by torch's own checks of what an op must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import check
import pytest
import torch
from cases import PRIORS, Case, tensors, upstream
from conftest import Backend
from torch.utils._python_dispatch import TorchDispatchMode

import vae_fast.functional as F

NAMESPACE = "vae_fast::"
# Its output is random: torch's check of tracing would compare two draws.
RANDOM = ("vae_fast::draw_seed",)
# Whose backward pass is plain PyTorch: a product with what has been kept.
NO_BACKWARD = ("importance_weighted_elbo",)
CALLS = [
    Case("sample_kl", (3, 4)),
    Case("sample_kl", (3, 4), num_samples=2, noise="eps", dtype=torch.bfloat16),
    Case("sample_kl", (2, 3, 4), event_dims=1, num_samples=1, row_offset=5, **PRIORS),
    Case("sample_kl", (3, 4), upstream=("kl",), logvar="event", differentiate=("logvar",)),
    Case("sample_kl", (3, 4), upstream=("z",), layout="transposed"),
    Case("gaussian_kl", (3, 4)),
    Case("gaussian_kl", (3, 4), dtype=torch.float64, **PRIORS),
    Case("gaussian_kl", (3, 4), dtype=torch.float16, prior_mean="event", differentiate=("mean",)),
    Case("gaussian_log_likelihood", (3, 4)),
    Case("gaussian_log_likelihood", (3, 4), num_samples=2, logvar="scalar"),
    Case("gaussian_log_likelihood", (3, 4), logvar=None, dtype=torch.float64),
    Case("gaussian_log_likelihood", (3, 4), differentiate=("x",), layout="sliced"),
    Case("negative_elbo", (3, 4)),
    Case("negative_elbo", (3, 4), num_samples=2, reduction="none", logvar="event"),
    Case("negative_elbo", (3, 4), dtype=torch.bfloat16, reduction="sum", beta=0.5,
         differentiate=("mean", "logvar", "kl")),
    Case("negative_elbo", (3, 4), dtype=torch.float16, logvar=None),
    Case("sample_kl", (3, 4), return_dims=True, free_bits=0.3, balance=0.8, **PRIORS),
    Case("sample_kl", (2, 3, 4), event_dims=2, return_dims=True, upstream=("kl_dims",)),
    Case("gaussian_kl", (3, 4), free_bits=0.3, balance=0.8, **PRIORS),
    Case("squared_error", (3, 4), dtype=torch.bfloat16, num_samples=2),
    Case("squared_error", (3, 4), differentiate=("mean",)),
    Case("sample_log_weights", (3, 4), sample_offset=2, **PRIORS),
    Case("sample_log_weights", (3, 4), num_samples=2, estimator="stl", noise="eps", logvar="event"),
    Case("sample_log_weights", (3, 4), num_samples=2, estimator="dreg", dtype=torch.bfloat16),
    Case("sample_log_weights", (3, 4), num_samples=2, estimator="dreg", upstream=("z",)),
    Case("importance_weighted_elbo", (4,), num_samples=3),
    Case("importance_weighted_elbo", (4, 2), num_samples=3, dtype=torch.float16),
    Case("score_function", (3, 4), baseline="scalar"),
    Case("score_function", (3, 4), num_samples=2, noise="eps", dtype=torch.bfloat16,
         differentiate=("signal", "logvar")),
]  # fmt: skip


class Call(NamedTuple):
    op: Any
    args: tuple
    kwargs: dict


class Recorder(TorchDispatchMode):
    """Keeps the calls of the package's ops, as they are without autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().startswith(NAMESPACE):
            self.calls.append(Call(func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def recorded(case: Case, backend: Backend) -> list[Call]:
    """The ops that a call and its backward pass are."""
    arguments = tensors(case, backend.device)
    with Recorder() as recorder:
        outputs = check.call(case, arguments, backend.name)
        check.differentiate(outputs, arguments, upstream(case, outputs))
    return recorder.calls


def leaves(call: Call, differentiated: bool) -> tuple[Any, ...]:
    """The arguments of a call, its tensors as new leaves."""
    return tuple(
        a.detach().clone().requires_grad_(differentiated and a.is_floating_point())
        if isinstance(a, torch.Tensor) else a
        for a in call.args
    )  # fmt: skip


@pytest.mark.parametrize("case", CALLS, ids=lambda case: f"{case.op}-{case}")
def test_opcheck(case: Case, compiled_backend: Backend) -> None:
    """Its backward pass too, whose derivative is the reference's."""
    for call in recorded(case, compiled_backend):
        for differentiated in (False, True):
            torch.library.opcheck(call.op, leaves(call, differentiated))


@pytest.mark.parametrize("case", CALLS, ids=lambda case: f"{case.op}-{case}")
def test_each_pass_is_one_op(case: Case, compiled_backend: Backend) -> None:
    """That is what a tracer sees."""
    names = [call.op.name().removeprefix(NAMESPACE) for call in recorded(case, compiled_backend)]
    backward = [] if case.op in NO_BACKWARD else [f"{case.op}_backward"]
    assert names == [case.op, *backward]


@pytest.mark.parametrize("num_samples", [None, 2])
def test_opcheck_of_noise(num_samples: int | None, compiled_backend: Backend) -> None:
    with Recorder() as recorder:
        F.noise((3, 4), seed=2**64 - 1, num_samples=num_samples, dtype=torch.bfloat16, device="cpu",
                backend=compiled_backend.name)  # fmt: skip
    ((func, args, kwargs),) = recorder.calls
    assert func.name() == f"{NAMESPACE}noise"
    torch.library.opcheck(func, args, kwargs)


def test_opcheck_of_drawn_seeds(compiled_backend: Backend) -> None:
    tensor = torch.zeros(3, 4)
    with Recorder() as recorder:
        F.sample_kl(tensor, tensor, backend=compiled_backend.name)
    (draw,) = (call for call in recorder.calls if call.op.name() in RANDOM)
    torch.library.opcheck(*draw, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_of_running_means() -> None:
    sums, value = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor(3.0)
    op = torch.ops.vae_fast.exchange_running_mean.default
    torch.library.opcheck(op, (sums, value, 0.0))


def test_every_registered_op_is_checked(compiled_backend: Backend) -> None:
    """An op that somebody adds without a case above fails here."""
    names = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith(NAMESPACE)}
    calls = (recorded(case, compiled_backend) for case in CALLS)
    seen = {call.op.name() for each in calls for call in each}
    seen |= {f"{name}_compiled" for name in seen}
    assert names == seen | {f"{NAMESPACE}noise", f"{NAMESPACE}exchange_running_mean", *RANDOM}


@pytest.mark.parametrize("case", CALLS, ids=lambda case: f"{case.op}-{case}")
def test_the_dispatcher_gives_what_eager_mode_gives(case: Case, compiled_backend: Backend) -> None:
    """Eager calls go around the dispatcher: both ways must lead to the same numbers."""
    eager, _ = check.run(case, compiled_backend.name)
    with Recorder():
        dispatched, _ = check.run(case, compiled_backend.name)
    for name, want in eager.outputs.items():
        assert torch.equal(dispatched.outputs[name], want), name
    for name, want in eager.gradients.items():
        eps = torch.finfo(
            want.dtype
        ).eps  # the loss's gradients are rounded once more in eager mode
        torch.testing.assert_close(dispatched.gradients[name], want, rtol=2 * eps, atol=eps / 8)


def test_fake_tensors(compiled_backend: Backend) -> None:
    """Shapes, dtypes and devices without data, of every output and gradient."""
    for case in CALLS:
        eager, _ = check.run(case, compiled_backend.name)
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            arguments = {
                name: None if t is None else mode.from_tensor(t)
                for name, t in tensors(case).items()
            }
            outputs = check.call(case, arguments, compiled_backend.name)
            for name, want in eager.outputs.items():
                assert outputs[name].shape == want.shape and outputs[name].dtype is want.dtype


def test_a_seed_is_drawn_for_fake_tensors(compiled_backend: Backend) -> None:
    """The draw is an op there: in place on a real tensor, it would be refused."""
    state = torch.get_rng_state()
    with torch._subclasses.FakeTensorMode():
        mean = torch.empty(3, 4)
        z, kl = F.sample_kl(mean, mean, backend=compiled_backend.name)
    assert (z.shape, kl.shape) == ((3, 4), (3,))
    assert torch.equal(torch.get_rng_state(), state)
