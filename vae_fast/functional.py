"""The ops: argument checks, the choice of a backend, and the call.

Shapes are written ``[*batch, *event]``: ``event_dims`` rightmost dimensions make a row, and one
value a row comes out of every sum. Likelihoods and KL are in nats. The formulas, the noise and
the gradients are stated in ``docs/contract.md``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _checks
from vae_fast._backends import reference
from vae_fast.autograd.gaussian_kl import gaussian_kl as _gaussian_kl
from vae_fast.autograd.gaussian_log_likelihood import (
    gaussian_log_likelihood as _gaussian_log_likelihood,
)
from vae_fast.autograd.negative_elbo import negative_elbo as _negative_elbo
from vae_fast.autograd.noise import draw_seed
from vae_fast.autograd.noise import noise as _noise
from vae_fast.autograd.sample_kl import sample_kl as _sample_kl

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0


def sample_kl(
    mean: Tensor,
    logvar: Tensor,
    *,
    prior_mean: Tensor | None = None,
    prior_logvar: Tensor | None = None,
    num_samples: int | None = None,
    event_dims: int | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    generator: torch.Generator | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Reparameterised sample of a diagonal Gaussian and its KL divergence from the prior.

    .. math:: z = m + e^{v/2} ε, \quad
        kl_n = Σ_d ½((m - m_p)^2 e^{-v_p} + e^{v - v_p} - 1 - (v - v_p))

    The noise is a pure function of the seed, the sample and the element (``noise``); the backward
    pass makes it again, so neither it nor the standard deviation is kept.

    Args:
        mean: m, ``[*batch, *event]``; float64, float32, float16 or bfloat16, any strides.
        logvar: v, log-variance, broadcastable to ``mean``.
        prior_mean: m_p, broadcastable to ``mean``; 0 where None.
        prior_logvar: v_p, broadcastable to ``mean``; 0 where None.
        num_samples: L samples a row, put in front of z's shape; None: one, with no such axis.
        event_dims: how many rightmost dimensions a row's sum runs over; default all but the first.
        eps: noise to use instead, of z's shape.
        seed: int in [0, 2**64), or a 0-dim int64 tensor whose bits are taken.
        row_offset: index of the first row in the whole batch, where this is a part of one.
        generator: where the seed is drawn from if none is given; default the device's own.
        logvar_min: lower clamp of v and v_p; their gradient is 0 outside.
        logvar_max: upper clamp of v and v_p.
        backend: "cuda", "triton", "cpu", "reference", or None for the best that can run these.

    Returns:
        z, ``[*batch, *event]`` or ``[L, *batch, *event]``, in ``mean``'s dtype; and kl in nats,
        ``[*batch]``, float32 (float64 where an input is).

    Raises:
        TypeError: an argument is not a floating-point tensor, or not an int.
        ValueError: shapes, devices, event_dims, num_samples, bounds or seed do not fit, or more
            than one of eps, seed and generator is given.
        BackendUnavailableError: the asked-for backend cannot run these tensors.

    Source: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 2.4 and appendix B.
    """
    shape, device, event_dims, logvar, prior_mean, prior_logvar = _checks.gaussian(
        mean, logvar, prior_mean, prior_logvar, event_dims
    )
    if num_samples is not None:
        _checks.integer("num_samples", num_samples, 1, 2**32)
    _checks.integer("row_offset", row_offset, 0)
    if eps is not None or seed is not None or generator is not None:
        _checks.noise_source(eps, seed, generator, shape, num_samples, device)
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, device)
    if eps is None and seed is None:
        seed = draw_seed(device, generator)
    if name == "reference":
        return reference.sample_kl(
            mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples, event_dims, row_offset,
            bounds,
        )  # fmt: skip
    return _sample_kl(
        mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples, event_dims, row_offset,
        bounds, name,
    )  # fmt: skip


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None = None,
    prior_logvar: Tensor | None = None,
    *,
    event_dims: int | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    backend: str | None = None,
) -> Tensor:
    r"""KL divergence of a diagonal Gaussian from another, summed over each row's event.

    .. math:: kl_n = Σ_d ½((m - m_p)^2 e^{-v_p} + e^{v - v_p} - 1 - (v - v_p))

    Arguments and errors are those of ``sample_kl``; the prior is N(0, I) where it is not given.

    Returns:
        kl in nats, ``[*batch]``, float32 (float64 where an input is).

    Source: Kingma & Welling 2014, appendix B.
    """
    _, device, event_dims, logvar, prior_mean, prior_logvar = _checks.gaussian(
        mean, logvar, prior_mean, prior_logvar, event_dims
    )
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, device)
    if name == "reference":
        return reference.gaussian_kl(mean, logvar, prior_mean, prior_logvar, event_dims, bounds)
    return _gaussian_kl(mean, logvar, prior_mean, prior_logvar, event_dims, bounds, name)


def _likelihood_arguments(
    x: Tensor, mean: Tensor, logvar: Tensor | None, event_dims: int | None
) -> tuple[Tensor | None, int]:
    """Checks what the decoder-side ops share; the log-variance and the event dims to use."""
    _checks.tensor("mean", mean)
    _checks.tensor("x", x, mean.device)
    if x.shape != mean.shape and x.shape != mean.shape[1:]:
        raise ValueError(
            "x must have the shape of mean, with or without mean's leading sample axis, "
            f"{tuple(mean.shape)}; got {tuple(x.shape)}"
        )
    event_dims = _checks.event_dims("x", event_dims, x.shape)
    if logvar is not None:
        logvar = _checks.broadcastable("logvar", logvar, mean.shape, event_dims, mean.device)
    return logvar, event_dims


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
    logvar, event_dims = _likelihood_arguments(x, mean, logvar, event_dims)
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, mean.device)
    if name == "reference":
        return reference.gaussian_log_likelihood(x, mean, logvar, event_dims, bounds)
    return _gaussian_log_likelihood(x, mean, logvar, event_dims, bounds, name)


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
    logvar, event_dims = _likelihood_arguments(x, mean, logvar, event_dims)
    batch_shape = x.shape[: x.dim() - event_dims]
    _checks.tensor("kl", kl, mean.device)
    if kl.shape != batch_shape:
        raise ValueError(
            f"kl must have the batch shape {tuple(batch_shape)}; got {tuple(kl.shape)}"
        )
    if reduction not in _checks.REDUCTIONS:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    _checks.beta(beta)
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, mean.device)
    arguments = (x, mean, logvar, kl, beta, reduction, event_dims, bounds)
    if name == "reference":
        loss, log_likelihood = reference.negative_elbo(*arguments)
        return loss, log_likelihood.detach()
    return _negative_elbo(*arguments, name)


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


def noise(
    shape: tuple[int, ...] | torch.Size,
    *,
    seed: int | Tensor,
    row_offset: int = 0,
    num_samples: int | None = None,
    event_dims: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    backend: str | None = None,
) -> Tensor:
    """The standard-normal noise that ``sample_kl`` draws for a ``mean`` of this shape.

    A pure function of the seed, the sample and the element: Philox4x32-10 and Box-Muller, the
    same on every backend and device within 4e-6, however a batch is split. It is made in float32,
    in float64 for float64, and rounded for half precision.

    Args:
        shape: ``[*batch, *event]``.
        seed, row_offset, num_samples, event_dims, backend: as in ``sample_kl``.
        dtype: float64, float32, float16 or bfloat16; default torch's.
        device: default torch's.

    Returns:
        ε, of ``shape``, behind L where ``num_samples`` is given.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box & Muller 1958.
    """
    shape = torch.Size(shape)
    if any(size < 0 for size in shape):
        raise ValueError(f"shape must have sizes of at least 0; got {tuple(shape)}")
    event_dims = _checks.event_dims("shape", event_dims, shape)
    _checks.seed(seed)
    _checks.integer("row_offset", row_offset, 0)
    if num_samples is not None:
        _checks.integer("num_samples", num_samples, 1, 2**32)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    _checks.dtype("dtype", dtype)
    # torch.get_default_device would end a compiled graph.
    device = torch.empty(0).device if device is None else torch.device(device)
    name = _backends.choose(backend, device)
    arguments = (tuple(shape), event_dims, num_samples, seed, row_offset, dtype, device)
    return reference.noise(*arguments) if name == "reference" else _noise(*arguments, name)
