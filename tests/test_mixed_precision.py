"""Under autocast and loss scaling, as mixed-precision training makes them."""

from __future__ import annotations

import check
import oracle
import pytest
import torch
from cases import ARGUMENTS, HALVES, Case, tensors, upstream
from conftest import Backend
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vae_fast import FusedVAE

ROWS, WIDTH = 256, 512
ELEMENTS = ROWS * WIDTH
# As autocast makes them: half-precision network outputs, float32 data and float32 KL.
MIXED = {
    "sample_kl": {},
    "gaussian_kl": {},
    "gaussian_log_likelihood": {"other_dtypes": (("x", torch.float32),)},
    "negative_elbo": {"other_dtypes": (("x", torch.float32),)},
    "squared_error": {"other_dtypes": (("x", torch.float32),)},
    "sample_log_weights": {},
    "score_function": {},
}
SHARED = {"other_dtypes": (("x", torch.float32), ("logvar", torch.float32)), "logvar": "scalar"}


def allocated(function) -> tuple[int, object]:
    """Bytes of all tensor memory that a call takes from the allocator, freed again or not."""
    options = {"profile_memory": True, "acc_events": True}  # the latter or torch 2.11 warns
    with profile(activities=[ProfilerActivity.CPU], **options) as profiler:
        result = function()
    events = profiler.profiler.kineto_results.events()
    return sum(max(0, e.nbytes()) for e in events if e.name() == "[memory]"), result


def test_the_allocation_counter_counts() -> None:
    x = torch.ones(ELEMENTS, dtype=torch.bfloat16)
    taken, _ = allocated(lambda: (x.float() * 2).to(torch.bfloat16))
    assert taken >= ELEMENTS * (4 + 4 + 2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    ("op", "options"),
    [
        *MIXED.items(),
        ("gaussian_log_likelihood", SHARED),
        ("negative_elbo", SHARED),
        ("sample_kl", {"free_bits": 0.3, "balance": 0.8, "return_dims": True}),
        ("sample_log_weights", {"num_samples": 2, "estimator": "dreg"}),
    ],
)
def test_no_copy_of_a_large_tensor(
    op: str, options: dict, dtype: torch.dtype, compiled_backend: Backend
) -> None:
    """Forward and backward take the outputs' and the gradients' memory and no more: not even one
    half-precision copy of an input."""
    learned = tuple(name for name in ARGUMENTS[op] if name != "x")
    case = Case(op, (ROWS, WIDTH), dtype=dtype, differentiate=learned, **options)
    arguments = tensors(case)
    small = 64 * ROWS + 65536

    forward, outputs = allocated(lambda: check.call(case, arguments, compiled_backend.name))
    gradients = upstream(case, outputs)
    backward, made = allocated(lambda: check.differentiate(outputs, arguments, gradients))
    results = [*outputs.values(), *made.values()]
    needed = sum(t.numel() * t.element_size() for t in results)
    assert forward + backward <= needed + small, (forward, backward, needed)


def autocast_step(model: FusedVAE, x: Tensor) -> tuple:
    with torch.autocast(x.device.type, torch.bfloat16):
        out = model(x, seed=3)
    out.loss.backward()
    return out


@pytest.mark.parametrize("variance", ["learned", "shared", "fixed"])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_autocast(num_samples: int, variance: str, backend: Backend) -> None:
    torch.manual_seed(0)
    model = FusedVAE(24, 4, (16,), decoder_variance=variance, num_samples=num_samples,
                     backend=backend.name).to(backend.device)  # fmt: skip
    x = torch.randn(9, 24, device=backend.device)
    out = autocast_step(model, x)
    assert out.posterior_mean.dtype is out.z.dtype is out.mean.dtype is torch.bfloat16
    assert out.loss.dtype is out.kl.dtype is out.log_likelihood.dtype is torch.float32
    assert all(
        p.grad.dtype is torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )
    # From what the networks gave, everything is computed as precisely as in float32.
    given = {n: None if t is None else t.detach().cpu().double() for n, t in out._asdict().items()}
    bounds = (-30.0, 20.0)
    kl = oracle.gaussian_kl(
        given["posterior_mean"], given["posterior_logvar"], None, None, 1, bounds
    )
    torch.testing.assert_close(given["kl"], kl, rtol=1e-5, atol=1e-5)
    log_likelihood = oracle.gaussian_log_likelihood(
        x.cpu().double(), given["mean"], given["logvar"], 1, (-6.0, 20.0)
    )
    log_likelihood = log_likelihood if num_samples == 1 else log_likelihood.mean(0)
    torch.testing.assert_close(given["log_likelihood"], log_likelihood, rtol=1e-5, atol=1e-4)
    loss = (kl - log_likelihood).mean()
    torch.testing.assert_close(given["loss"], loss, rtol=1e-5, atol=1e-4)


def test_autocast_changes_no_op(backend: Backend) -> None:
    """The ops take dtypes as they are: inside autocast the same call gives the same bits."""
    for op in MIXED:
        case = Case(op, (9, 33), dtype=torch.bfloat16, **MIXED[op])
        outside, _ = check.run(case, backend.name, backend.device)
        with torch.autocast(backend.device, torch.bfloat16):
            inside, _ = check.run(case, backend.name, backend.device)
        for a, b in ((outside.outputs, inside.outputs), (outside.gradients, inside.gradients)):
            for name, want in a.items():
                assert b[name].dtype is want.dtype and torch.equal(b[name], want), (op, name)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_gradient_scaler_steps_and_backs_off(dtype: torch.dtype, backend: Backend) -> None:
    torch.manual_seed(0)
    model = FusedVAE(24, 4, (16,), backend=backend.name).to(backend.device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler(backend.device, init_scale=2.0**16)
    x = torch.randn(9, 24, device=backend.device)

    def train(x: Tensor) -> bool:
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        with torch.autocast(backend.device, dtype):
            loss = model(x, seed=1).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return not all(map(torch.equal, before, model.parameters()))

    while not train(x):  # float16 overflows until the scale fits
        assert scaler.get_scale() > 1
    scale = scaler.get_scale()
    broken = x.clone()
    broken[0, 0] = float("inf")
    assert not train(broken)
    assert scaler.get_scale() == scale / 2
    assert train(x)


@pytest.mark.parametrize("op", MIXED)
def test_float16_gradients_of_tiny_losses_are_scaled_before_they_are_stored(
    op: str, backend: Backend
) -> None:
    """A loss of weight 1e-6 under a scale of 2^16: without the scale these gradients are 0."""
    case = Case(op, (64, 33), dtype=torch.float16, scale=2.0**16 * 1e-6)
    result = check.check(case, backend.name, backend.device)
    assert all(g.abs().max() > 0 for g in result.gradients.values())
