"""The encoder's ops: a sample, and the KL divergence from the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _checks
from vae_fast.autograd.gaussian_kl import gaussian_kl as _gaussian_kl
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
    free_bits: float | None = None,
    balance: float | None = None,
    return_dims: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
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
        free_bits: λ in nats, for each sample and dimension: an element's KL below it counts as λ
            and has no gradient; None: none.
        balance: α in [0, 1]: the KL's gradients to the prior are multiplied by α, those to
            ``mean`` and ``logvar`` by 1 - α; its value stays. None: neither is.
        return_dims: return the KL summed over the batch too.
        backend: "cuda", "triton", "cpu", "reference", or None for the best that can run these.

    Returns:
        z, ``[*batch, *event]`` or ``[L, *batch, *event]``, in ``mean``'s dtype; kl in nats,
        ``[*batch]``, float32 (float64 where an input is); and with ``return_dims`` the sum of the
        elements' KL over the batch, ``[*event]``, of kl's dtype.

    Raises:
        TypeError: an argument is not a floating-point tensor, or not an int.
        ValueError: shapes, devices, event_dims, num_samples, bounds, free_bits, balance or seed do
            not fit, or more than one of eps, seed and generator is given.
        BackendUnavailableError: the asked-for backend cannot run these tensors.

    Source: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 2.4 and appendix B;
    free bits after Kingma et al. 2016, "Inverse autoregressive flow"; the balance after Hafner et
    al. 2021, "Mastering Atari with discrete world models".
    """
    shape, device, event_dims, logvar, prior_mean, prior_logvar = _checks.gaussian(
        mean, logvar, prior_mean, prior_logvar, event_dims
    )
    if num_samples is not None:
        num_samples = _checks.integer("num_samples", num_samples, 1, 2**32)
    row_offset = _checks.row_offset(row_offset, shape, event_dims)
    if eps is not None or seed is not None or generator is not None:
        seed = _checks.noise_source(eps, seed, generator, shape, num_samples, device)
    bounds = _checks.bounds(logvar_min, logvar_max)
    control = _checks.kl_control(free_bits, balance)
    name = _backends.choose(backend, device)
    made = _sample_kl.draw_and_call(
        name,
        (mean, logvar, prior_mean, prior_logvar, eps),
        seed,
        (num_samples, event_dims, row_offset, bounds, control, return_dims),
        generator,
    )
    return tuple(made) if return_dims else (made[0], made[1])


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None = None,
    prior_logvar: Tensor | None = None,
    *,
    event_dims: int | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    free_bits: float | None = None,
    balance: float | None = None,
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
    control = _checks.kl_control(free_bits, balance)
    name = _backends.choose(backend, device)
    return _gaussian_kl.call(
        name, (mean, logvar, prior_mean, prior_logvar), (event_dims, bounds, control)
    )
