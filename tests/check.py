"""Runs a case on a backend and on the oracle, and compares values and gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from cases import OUTPUTS_LIKE, Case, tensors, upstream
from magnitudes import Terms
from ops import OPS
from ops.common import Arguments, Named
from tolerances import arithmetic, bound
from torch import Tensor

import vae_fast.functional as F


class Result(NamedTuple):
    outputs: Named
    gradients: Named  # of the differentiated arguments


def call(
    case: Case,
    arguments: Arguments,
    backend: str | None,
    eps: Tensor | None = None,  # the case's own where it has one
) -> Named:
    """The op's outputs by name, through its public function."""
    device = next(t.device.type for t in arguments.values() if t is not None)
    options = OPS[case.op].options(case, device, eps)
    returned = getattr(F, case.op)(**arguments, **options, backend=backend)
    returned = returned if isinstance(returned, tuple) else (returned,)
    return dict(zip(case.outputs, returned, strict=True))


def differentiate(outputs: Named, arguments: Arguments, gradients: Named) -> Named:
    """Gradients of the arguments that require one; zeros where the outputs do not depend on it."""
    wanted = {k: v for k, v in arguments.items() if v is not None and v.requires_grad}
    if not wanted:
        return {}
    # Not every output depends on every argument: z has nothing to do with the prior.
    reached = [name for name in gradients if outputs[name].requires_grad]
    if not reached:
        return {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    made = torch.autograd.grad(
        [outputs[name] for name in reached],
        list(wanted.values()),
        [gradients[name] for name in reached],
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(wanted, made, strict=True))


def run(case: Case, backend: str | None, device: str = "cpu") -> tuple[Result, Named]:
    """Outputs and gradients of a backend, and the upstream gradients that were used."""
    arguments = tensors(case, device)
    outputs = call(case, arguments, backend)
    gradients = upstream(case, outputs)
    return Result(outputs, differentiate(outputs, arguments, gradients)), gradients


def answer(case: Case, arguments: Arguments) -> Named:
    """The op's outputs in float64 for float64 arguments."""
    return dict(zip(case.outputs, OPS[case.op].answer(case, arguments), strict=True))


def oracle_run(case: Case, gradients: Named) -> tuple[Result, Arguments]:
    """Outputs and gradients in float64, and the float64 arguments they are of."""
    arguments = {
        name: None if t is None else t.detach().double().requires_grad_(t.requires_grad)
        for name, t in tensors(case).items()
    }
    outputs = answer(case, arguments)
    gradients = {name: g.cpu().double() for name, g in gradients.items()}
    return Result(outputs, differentiate(outputs, arguments, gradients)), arguments


def terms(case: Case, arguments: Arguments, gradients: Named) -> dict[str, Terms]:
    """What each output and gradient is summed from."""
    inputs = {name: None if t is None else t.detach() for name, t in arguments.items()}
    given = {name: g.cpu().double() for name, g in gradients.items()}
    return OPS[case.op].terms(case, inputs, given)


def assert_close(name: str, got: Tensor, want: Tensor, allowed: Tensor) -> None:
    """Each element within what is allowed; NaN and infinity exactly where the answer has them."""
    limit = torch.finfo(got.dtype).max
    got = got.detach().cpu().double()
    assert got.shape == want.shape, f"{name}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
    error = (got - want).abs()
    wrong = ~(error <= allowed)  # true for NaN
    wrong &= ~((got == want) | (got.isnan() & want.isnan()))
    # What its dtype cannot hold, once rounded, is infinite.
    wrong &= ~(got.isinf() & (got.sign() == want.sign()) & (want.abs() + allowed > limit))
    if not wrong.any():
        return
    worst = torch.where(wrong, (error / allowed).nan_to_num(math.inf), -1.0).argmax()
    place = tuple(int(i) for i in torch.unravel_index(worst, want.shape))
    raise AssertionError(
        f"{name}: {int(wrong.sum())} of {wrong.numel()} elements are off; the worst, at {place}, "
        f"is {got[place].item()!r} where {want[place].item()!r} within "
        f"{allowed[place].item():.3g} is right"
    )


def check(case: Case, backend: str | None, device: str = "cpu") -> Result:
    """Runs the case and holds every output and gradient to the oracle within the error model."""
    result, gradients = run(case, backend, device)
    want, arguments = oracle_run(case, gradients)
    parts = terms(case, arguments, gradients)
    dtypes = {case.argument_dtype(name) for name, t in arguments.items() if t is not None}
    compute = torch.float64 if dtypes == {torch.float64} else torch.float32
    plain = backend == "reference"
    for name, tensor in result.outputs.items():
        like = OUTPUTS_LIKE.get(name)
        expected = case.argument_dtype(like) if like else arithmetic(case.dtype)
        assert tensor.dtype is expected, f"{name} is {tensor.dtype}, not {expected}"
        goal = want.outputs[name].detach()
        allowed = bound(case.op, goal, parts[name], tensor.dtype, compute, by_autograd=plain)
        assert_close(name, tensor, goal, allowed)
    for name, tensor in result.gradients.items():
        dtype, goal = case.argument_dtype(name), want.gradients[name]
        assert tensor.dtype is dtype, f"grad {name} is {tensor.dtype}, not {dtype}"
        allowed = bound(case.op, goal, parts[name], dtype, compute, by_autograd=plain)
        assert_close(f"grad {name}", tensor, goal, allowed)
    return result
