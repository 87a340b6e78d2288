"""The decoder's ops: the likelihood of the data, and the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _checks
from vae_fast.autograd.gaussian_log_likelihood import (
    gaussian_log_likelihood as _gaussian_log_likelihood,
)
from vae_fast.autograd.gaussian_log_likelihood import squared_error as _squared_error
from vae_fast.autograd.negative_elbo import negative_elbo as _negative_elbo
from vae_fast.functional.kl import LOGVAR_MAX, LOGVAR_MIN


def _arguments(
    x: Tensor, mean: Tensor, logvar: Tensor | None, event_dims: int | None, kl: Tensor | None = None
) -> tuple[Tensor | None, torch.Size, torch.Size, torch.device, int]:
    """Checks what the decoder's ops share. Returns the log-variance to use, the shapes of x and
    mean, their device, and the event dims to use."""
    full, device = _checks.tensor("mean", mean), mean.device
    shape = _checks.tensor("x", x, device)
    if shape != full and shape != full[1:]:
        raise ValueError(
            "x must have the shape of mean, with or without mean's leading sample axis, "
            f"{tuple(full)}; got {tuple(shape)}"
        )
    event_dims = _checks.event_dims("x", event_dims, shape)
    if logvar is not None and _checks.tensor("logvar", logvar, device) != full:
        logvar = _checks.broadcastable("logvar", logvar, full, event_dims, device, (x, mean, kl))
    return logvar, shape, full, device, event_dims


def gaussian_log_likelihood(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None = None,
    *,
    event_dims: int | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    backend: str | None = None,
) -> Tensor:
    r"""Log-density of x under a diagonal Gaussian, summed over each row's event.

    .. math:: ll_n = -Σ_d ½(\ln 2π + v + (x - m)^2 e^{-v})

    Args:
        x: ``[*batch, *event]``; or without ``mean``'s leading sample axis, over which it is
            broadcast.
        mean: m, ``[*batch, *event]``.
        logvar: v, broadcastable to ``mean`` (an event shape or a scalar is a shared variance,
            whose gradient is the sum); None: unit variance.
        event_dims: how many rightmost dimensions a row's sum runs over; default all but the first
            of x.
        logvar_min: lower clamp of v; its gradient is 0 outside.
        logvar_max: upper clamp of v.
        backend: as in ``sample_kl``.

    Returns:
        ll in nats, ``[*batch]`` of ``mean``, float32 (float64 where an input is).

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``.
    """
    logvar, _, _, device, event_dims = _arguments(x, mean, logvar, event_dims)
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, device)
    return _gaussian_log_likelihood.call(name, (x, mean, logvar), (event_dims, bounds))


def squared_error(
    x: Tensor, mean: Tensor, *, event_dims: int | None = None, backend: str | None = None
) -> Tensor:
    r"""Squared distance of x from a decoder's mean, summed over each row's event.

    .. math:: s_n = Σ_d (x - m)^2

    The variance that a shared one is best set to is the mean of it over all elements,
    σ² = Σ_n s_n / (N D), at which the log-likelihood of the batch is -N D/2 (ln 2πσ² + 1).

    Args:
        x, mean, event_dims, backend: as in ``gaussian_log_likelihood``.

    Returns:
        s, ``[*batch]`` of ``mean``, float32 (float64 where an input is).

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``.

    Source: Rybkin, Daniilidis & Levine 2021, "Simple and effective VAE training with calibrated
    decoders".
    """
    _, _, _, device, event_dims = _arguments(x, mean, None, event_dims)
    name = _backends.choose(backend, device)
    return _squared_error.call(name, (x, mean), (event_dims,))


def negative_elbo_terms(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    *,
    beta: float | Tensor = 1.0,
    reduction: str = "mean",
    event_dims: int | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """``negative_elbo`` and, of the same pass, the log-likelihood of each row.

    Returns:
        The loss, and ll in nats, ``[*batch]``, averaged over a sample axis and detached.
    """
    logvar, shape, full, device, event_dims = _arguments(x, mean, logvar, event_dims, kl)
    if len(full) > len(shape) and full[0] == 0:
        raise ValueError(
            "mean must have at least one sample, over which the log-likelihood is averaged; got "
            f"shape {tuple(full)}"
        )
    batch_shape, kl_shape = shape[: len(shape) - event_dims], _checks.tensor("kl", kl, device)
    if kl_shape != batch_shape:
        raise ValueError(
            f"kl must have the batch shape {tuple(batch_shape)}; got {tuple(kl_shape)}"
        )
    if reduction not in _checks.REDUCTIONS:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    beta = _checks.beta(beta)
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, device)
    return _negative_elbo.call_with(
        name, (x, mean, logvar, kl), beta, (reduction, event_dims, bounds)
    )


def negative_elbo(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    *,
    beta: float | Tensor = 1.0,
    reduction: str = "mean",
    event_dims: int | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    backend: str | None = None,
) -> Tensor:
    r"""The loss of a Gaussian VAE: β·KL minus the log-likelihood, reduced over rows.

    .. math:: loss = R_n(β·kl_n - ll_n)

    For "mean" and "sum" the gradients of ``mean`` and ``logvar`` are made in the forward pass, in
    the one trip over memory that computes the loss. Two passes are taken for float16, whose
    unscaled gradients would underflow, where x needs a gradient, and under torch.compile.

    Args:
        x: ``[*batch, *event]``.
        mean: m of p(x|z), of x's shape, or with a leading sample axis, over which the
            log-likelihood is averaged.
        logvar: v of p(x|z), as in ``gaussian_log_likelihood``; None: unit variance.
        kl: ``[*batch]``, as ``sample_kl`` gives it.
        beta: β, a number or a 0-dim tensor (which never recompiles a compiled caller).
        reduction: R, over rows: "mean", "sum" or "none".
        event_dims: as in ``gaussian_log_likelihood``.
        logvar_min: lower clamp of v; its gradient is 0 outside.
        logvar_max: upper clamp of v.
        backend: as in ``sample_kl``.

    Returns:
        The loss in nats, 0-dim, or ``[*batch]`` for "none"; float32 (float64 where an input is).

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``.

    Source: Kingma & Welling 2014, equation 7; β after Higgins et al. 2017, "beta-VAE".
    """
    return negative_elbo_terms(
        x, mean, logvar, kl, beta=beta, reduction=reduction, event_dims=event_dims,
        logvar_min=logvar_min, logvar_max=logvar_max, backend=backend,
    )[0]  # fmt: skip
