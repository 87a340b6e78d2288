"""No time for a wrong result: a peer's outputs and gradients against float64, before the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import vae_fast.functional as F
from bench import peers
from bench.ops import Function, Inputs, Op, run_backward

# Of the largest value in a tensor. Float32 sums of 16,384 terms are within a tenth of it.
TOLERANCE = 2e-5
# Standard errors of the mean and variance of noise: exceeded by chance once in 10^9.
DEVIATIONS = 6.1


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
    posterior = Normal(mean, torch.exp(0.5 * logvar), validate_args=False)
    return kl_divergence(posterior, prior).sum(1)


def _sample(mean: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
    """z as a function of mean and logvar, with the noise that it was made of."""
    deviation = torch.exp(0.5 * logvar)
    return mean + deviation * ((z - mean) / deviation).detach()


def _log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    return Normal(mean, torch.exp(0.5 * logvar), validate_args=False).log_prob(x).sum(1)


# The outputs in float64, from the arguments in float64 and what the peer returned.
Oracle = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]
ORACLES: dict[str, Oracle] = {
    "sample_kl": lambda given, got: (_sample(given[0], given[1], got[0]), _kl(*given)),
    "gaussian_kl": lambda given, _: (_kl(*given),),
    "gaussian_log_likelihood": lambda given, _: (_log_likelihood(*given),),
    "negative_elbo": lambda given, _: ((given[3] - _log_likelihood(*given[:3])).mean(),),
    "elbo": lambda given, got: (
        _sample(given[0], given[1], got[0]),
        (_kl(*given[:2]) - _log_likelihood(*given[2:])).mean(),
    ),
}


def close(what: str, got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raises AssertionError unless ``got`` is finite and within the tolerance of ``want``."""
    if got.shape != want.shape:
        raise AssertionError(f"{what} has shape {tuple(got.shape)}, not {tuple(want.shape)}")
    error = (got.double() - want).abs().max().item()
    allowed = tolerance * max(want.abs().max().item(), 1e-30)
    if not error <= allowed:
        raise AssertionError(f"{what} is off by {error:.3g}, and {allowed:.3g} is allowed")


def standard_normal(what: str, noise: Tensor) -> None:
    """Raises AssertionError unless the noise has mean 0 and variance 1 but for chance."""
    errors = math.sqrt(1 / noise.numel()), math.sqrt(2 / noise.numel())
    moments = noise.mean().item(), noise.square().mean().item() - 1
    if any(not abs(m) <= DEVIATIONS * e for m, e in zip(moments, errors, strict=True)):
        raise AssertionError(f"{what} is no standard-normal noise: moments off by {moments}")


def _check_noise(inputs: Inputs, function: Function, peer: str, ours: bool) -> None:
    (noise,) = function(*inputs.arguments)
    standard_normal(f"what {peer} returns", noise.double())
    if ours:
        want = F.noise(noise.shape, seed=1, dtype=torch.float64, backend="reference")
        close(f"what {peer} returns", noise, want, 4e-6)


def _check_given_noise(op: Op, inputs: Inputs, peer: str, ours: bool) -> None:
    mean, logvar = (t.detach() for t in inputs.arguments)
    eps = torch.randn_like(mean)
    z, _ = (op.ours if ours else peers.sample_kl)(mean, logvar, eps)
    want = mean.double() + torch.exp(0.5 * logvar.double()) * eps.double()
    close(f"z of {peer} for given noise", z, want)


def _expected(op: Op, inputs: Inputs, got: list[Tensor]) -> tuple[list[Tensor], list[Any]]:
    """Outputs in float64 for what the peer returned, and the gradient of each argument."""
    given = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs.arguments]
    outputs = ORACLES[op.name](given, got)
    upstream = [None if g is None else g.double() for g in inputs.upstream]
    torch.autograd.backward(outputs, upstream)
    return [output.detach() for output in outputs], [t.grad for t in given]


def _check_one(
    what: str, inputs: Inputs, outputs: Sequence[Tensor], want: list[Tensor], gradients: list[Any]
) -> None:
    for number, (output, exact) in enumerate(zip(outputs, want, strict=True)):
        close(f"output {number} of {what}", output.detach(), exact)
    for number, (tensor, exact) in enumerate(zip(inputs.arguments, gradients, strict=True)):
        if exact is not None:
            assert tensor.grad is not None, f"argument {number} of {what} got no gradient"
            close(f"gradient of argument {number} of {what}", tensor.grad, exact)


def check(op: Op, inputs: Inputs, functions: Mapping[str, Function], label: str) -> None:
    """Raises AssertionError where an output or a gradient of a peer is not the float64 one.

    Noise is recovered from z, is to be standard normal, and is then the oracle's noise as well.
    """
    expected = None
    for peer, function in functions.items():
        what, ours = f"{op.name} {label} by {peer}", function is op.ours
        if op.name == "noise":
            _check_noise(inputs, function, what, ours)
            continue
        if op.name == "sample_kl":
            _check_given_noise(op, inputs, what, ours)
        inputs.clear()
        outputs = function(*inputs.arguments)
        run_backward(inputs, outputs)
        got = [t.detach().double() for t in outputs]
        if op.samples:
            mean, logvar = (t.detach().double() for t in inputs.arguments[:2])
            standard_normal(f"noise of {what}", (got[0] - mean) / torch.exp(0.5 * logvar))
        if expected is None or op.samples:
            expected = _expected(op, inputs, got)
        _check_one(what, inputs, outputs, *expected)
        inputs.clear()
