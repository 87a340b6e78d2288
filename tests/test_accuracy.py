"""Against plain PyTorch in the same dtype: never more than twice its error.

In float64 the answer itself is off by as much as plain PyTorch is: there, parity is the check.
"""

from __future__ import annotations

import math

import plain
import pytest
import torch
from cases import ARGUMENTS, HALVES, Case, priors, tensors
from check import Named, differentiate, oracle_run, run, terms
from conftest import Backend
from ops.common import noise
from tolerances import NOISE, PLAIN_FACTOR, unit
from torch import Tensor

import vae_fast.functional as F

SHAPES = ((64, 784), (128, 32), (5000, 3), (3, 100_003))


def errors(got: Named, want: Named) -> dict[str, Tensor]:
    return {name: (got[name].detach().double() - want[name].detach()).abs() for name in want}


def plain_errors(case: Case, gradients: Named, want: Named) -> dict[str, Tensor]:
    """Errors of plain PyTorch with the same inputs, all in one dtype: values and gradients."""
    arguments = {
        name: None if t is None else t.detach().to(case.dtype).requires_grad_(t.requires_grad)
        for name, t in tensors(case).items()
    }
    outputs = plain.run(case, dict(arguments), noise(case).to(case.dtype))
    given = {name: gradients[name].to(outputs[name].dtype) for name in gradients}
    made = differentiate(outputs, arguments, given)
    off = errors(outputs | {f"grad {k}": v for k, v in made.items()}, want)
    return {name: error.nan_to_num(math.inf) for name, error in off.items()}  # of an overflow


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("op", ARGUMENTS)
def test_error_is_at_most_twice_that_of_plain_pytorch(
    op: str, dtype: torch.dtype, shape: tuple[int, ...], backend: Backend
) -> None:
    case = Case(op, shape, dtype=dtype, **priors(op))
    result, gradients = run(case, backend.name, backend.device)
    gradients = {name: gradient.cpu() for name, gradient in gradients.items()}
    answer, arguments = oracle_run(case, gradients)
    parts = terms(case, arguments, gradients)
    want = answer.outputs | {f"grad {k}": v for k, v in answer.gradients.items()}
    got = result.outputs | {f"grad {k}": v for k, v in result.gradients.items()}
    got = {name: tensor.cpu() for name, tensor in got.items()}
    reference = plain_errors(case, gradients, want)
    for name, error in errors(got, want).items():
        # Two roundings of the largest value: where plain PyTorch happened to be exact.
        largest = want[name].detach().abs().max().item()
        floor = 2 * unit(got[name].dtype) * largest
        if parts[name.removeprefix("grad ")].noise_slope is not None:
            floor += NOISE[torch.float32] * largest  # plain PyTorch was given the noise
        limit = PLAIN_FACTOR * reference[name].max().item() + floor
        assert error.max().item() <= limit, f"{name}: error {error.max().item()}, limit {limit}"
        mean_limit = PLAIN_FACTOR * reference[name].mean().item() + floor
        assert error.mean().item() <= mean_limit, f"{name}: mean error {error.mean().item()}"


def shared_variance_gradient(
    x: Tensor, mean: Tensor, shape: tuple[int, ...], backend: str | None
) -> Tensor:
    """Of the log-likelihood, in float64; by plain PyTorch where no backend is named."""
    logvar = torch.zeros(shape, dtype=x.dtype, device=x.device).requires_grad_()
    if backend is None:
        log_likelihood = plain.gaussian_log_likelihood(x, mean, logvar, 1)
    else:
        log_likelihood = F.gaussian_log_likelihood(x, mean, logvar, backend=backend)
    return torch.autograd.grad(log_likelihood.sum(), logvar)[0].double()


@pytest.mark.parametrize("shape", [(3,), ()], ids=str)
@pytest.mark.parametrize("rows", [5_000, 3_000_001])
def test_sums_over_very_many_rows(rows: int, shape: tuple[int, ...], backend: Backend) -> None:
    """Terms of one sign: a sum that adds row to row loses digits as the square root of the rows."""
    x, mean = (torch.randn(rows, 3, device=backend.device) + shift for shift in (4, 0))
    want = shared_variance_gradient(x.double(), mean.double(), shape, None)
    got, reference = (
        (shared_variance_gradient(x, mean, shape, name) - want).abs().max().item()
        for name in (backend.name, None)
    )
    floor = 2 * unit(torch.float32) * want.abs().max().item()
    assert got <= PLAIN_FACTOR * reference + floor, (got, reference, floor)
