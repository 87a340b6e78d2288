"""No time for a wrong result: a peer's outputs and gradients against float64, before the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import vae_fast.functional as F
from bench import peers
from bench.device import Setting
from bench.ops import Inputs, Op, run_backward
from bench.peers import Function

# Of the largest value in a tensor. Float32 sums of 16,384 terms are within a tenth of it; plain
# bfloat16, which rounds each step to 8 bits, within a half.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
# Standard errors of the mean and variance of noise: exceeded by chance once in 10^9.
DEVIATIONS = 6.1
# What rounding z, or the noise itself, to 24 and to 8 bits adds to the moments of noise.
MOMENT_ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 1e-3}


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean), validate_args=False)
    posterior = Normal(mean, torch.exp(0.5 * logvar), validate_args=False)
    return kl_divergence(posterior, prior).flatten(1).sum(1)


def sample(mean: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
    """z as a function of mean and logvar, with the noise that it was made of."""
    deviation = torch.exp(0.5 * logvar)
    return mean + deviation * ((z - mean) / deviation).detach()


def _log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor | None = None) -> Tensor:
    deviation = torch.ones_like(mean) if logvar is None else torch.exp(0.5 * logvar)
    return Normal(mean, deviation, validate_args=False).log_prob(x).sum(1)


def _sample_kl(given: Sequence[Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = given
    return sample(mean, logvar, z), _kl(mean, logvar)


def _log_density(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    return Normal(mean, torch.exp(0.5 * logvar), validate_args=False).log_prob(z).sum(-1)


def _iwae(given: Sequence[Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar, log_likelihood = given
    z = sample(mean, logvar, z)
    prior = torch.zeros_like(mean), torch.zeros_like(mean)
    log_ratio = _log_density(z, *prior) - _log_density(z, mean, logvar)
    bound = torch.logsumexp(log_likelihood + log_ratio, 0) - math.log(len(log_likelihood))
    return z, bound


def _score_function(given: Sequence[Tensor]) -> tuple[Tensor]:
    signal, z, mean, logvar = given
    log_density = _log_density(z, mean, logvar)
    return (signal + signal * (log_density - log_density.detach()),)


# The outputs in float64, from the arguments in float64 and what the peer returned.
Oracle = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]
ORACLES: dict[str, Oracle] = {
    "sample_kl": lambda given, got: _sample_kl(given, got[0]),
    "packed_sample_kl": lambda given, got: _sample_kl(given[0].chunk(2, dim=1), got[0]),
    "gaussian_kl": lambda given, _: (_kl(*given),),
    "gaussian_log_likelihood": lambda given, _: (_log_likelihood(*given),),
    "negative_elbo": lambda given, _: ((given[3] - _log_likelihood(*given[:3])).mean(),),
    "elbo": lambda given, got: (
        sample(given[0], given[1], got[0]),
        (_kl(*given[:2]) - _log_likelihood(*given[2:])).mean(),
    ),
    "unit_negative_elbo": lambda given, _: (
        (_kl(*given[:2]) - _log_likelihood(*given[2:])).mean(),
    ),
    "free_bits_sample_kl": lambda given, got: _sample_kl(given, got[0]),
    "iwae": lambda given, got: _iwae(given, got[0]),
    "score_function": lambda given, _: _score_function(given),
}


def close(what: str, got: Tensor, want: Tensor, tolerance: float) -> None:
    """Raises AssertionError unless ``got`` is finite and within the tolerance of ``want``."""
    if got.shape != want.shape:
        raise AssertionError(f"{what} has shape {tuple(got.shape)}, not {tuple(want.shape)}")
    error = (got.double() - want).abs().max().item()
    allowed = tolerance * max(want.abs().max().item(), 1e-30)
    if not error <= allowed:
        raise AssertionError(f"{what} is off by {error:.3g}, and {allowed:.3g} is allowed")


def standard_normal(what: str, noise: Tensor, rounding: float) -> None:
    """Raises AssertionError unless the noise has mean 0 and variance 1 but for chance."""
    errors = math.sqrt(1 / noise.numel()), math.sqrt(2 / noise.numel())
    moments = noise.mean().item(), noise.square().mean().item() - 1
    allowed = [DEVIATIONS * error + rounding for error in errors]
    if any(not abs(m) <= most for m, most in zip(moments, allowed, strict=True)):
        raise AssertionError(f"{what} is no standard-normal noise: moments off by {moments}")


def _check_noise(inputs: Inputs, function: Function, what: str, peer: str) -> None:
    (noise,) = function(*inputs.arguments)
    standard_normal(f"what {what} returns", noise.double(), MOMENT_ROUNDING[noise.dtype])
    if peer == peers.OURS:
        want = F.noise(noise.shape, seed=1, dtype=torch.float64, backend="reference")
        half_a_unit = 0.0 if noise.dtype == torch.float32 else torch.finfo(noise.dtype).eps
        close(f"what {what} returns", noise.cpu(), want, 4e-6 + half_a_unit)


def _check_given_noise(inputs: Inputs, function: Function, what: str, tolerance: float) -> None:
    mean, logvar = (t.detach() for t in inputs.arguments)
    eps = torch.randn_like(mean)
    z, _ = function(mean, logvar, eps)
    want = mean.double() + torch.exp(0.5 * logvar.double()) * eps.double()
    close(f"z of {what} for given noise", z, want, tolerance)


def _expected(op: Op, inputs: Inputs, got: list[Tensor]) -> tuple[list[Tensor], list[Any]]:
    """Outputs in float64 for what the peer returned, and the gradient of each argument."""
    given = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs.arguments]
    outputs = ORACLES[op.name](given, got)
    upstream = [None if g is None else g.double() for g in inputs.upstream]
    torch.autograd.backward(outputs, upstream)
    return [output.detach() for output in outputs], [t.grad for t in given]


def _check_one(
    what: str,
    inputs: Inputs,
    outputs: Sequence[Tensor],
    expected: tuple[list[Tensor], list[Any]],
    tolerance: float,
) -> None:
    want, gradients = expected
    for number, (output, exact) in enumerate(zip(outputs, want, strict=True)):
        close(f"output {number} of {what}", output.detach(), exact, tolerance)
    for number, (tensor, exact) in enumerate(zip(inputs.arguments, gradients, strict=True)):
        if exact is not None:
            assert tensor.grad is not None, f"argument {number} of {what} got no gradient"
            close(f"gradient of argument {number} of {what}", tensor.grad, exact, tolerance)


def wrong(checks: Mapping[str, Callable[[], None]]) -> dict[str, str]:
    """Of each peer whose check raises AssertionError, what it says. Ours has to pass."""
    found = {}
    for peer, check in checks.items():
        try:
            check()
        except AssertionError as error:
            if peer == peers.OURS:
                raise
            found[peer] = str(error)
            print(f"left out: {error}", flush=True)
    return found


def checks(
    op: Op,
    inputs_of: Callable[[str], Inputs],
    functions: Mapping[str, Function],
    setting: Setting,
    label: str,
) -> dict[str, Callable[[], None]]:
    """By the name of a peer, what raises AssertionError where one of its outputs or gradients is
    not the float64 one.

    Noise is recovered from z, is to be standard normal, and is then the oracle's noise as well.
    """
    expected: tuple[list[Tensor], list[Any]] | None = None
    tolerance = TOLERANCE[setting.dtype]

    def check(peer: str) -> None:
        nonlocal expected
        function, inputs = functions[peer], inputs_of(peer)
        what = f"{op.name} {label} by {peer}"
        if op.name == "noise":
            return _check_noise(inputs, function, what, peer)
        if op.name == "sample_kl" and peer in (peers.OURS, peers.EAGER, peers.COMPILED):
            _check_given_noise(inputs, function, what, tolerance)
        inputs.clear()
        outputs = function(*inputs.arguments)
        run_backward(inputs, outputs)
        got = [t.detach().double() for t in outputs]
        if op.posterior:
            mean, logvar = op.posterior(*(t.detach().double() for t in inputs.arguments))
            noise = (got[0] - mean) / torch.exp(0.5 * logvar)
            standard_normal(f"noise of {what}", noise, MOMENT_ROUNDING[setting.dtype])
        if expected is None or op.posterior:
            expected = _expected(op, inputs, got)
        _check_one(what, inputs, outputs, expected, tolerance)
        inputs.clear()

    return {peer: partial(check, peer) for peer in functions}
