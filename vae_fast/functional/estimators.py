"""What the gradient estimators and the tighter bounds are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _checks
from vae_fast._backends.reference import compute_dtype
from vae_fast._storage import require_memory
from vae_fast.autograd import is_differentiated
from vae_fast.autograd.importance_weighted_elbo import (
    importance_weighted_elbo as _importance_weighted_elbo,
)
from vae_fast.autograd.sample_log_weights import sample_log_weights as _sample_log_weights
from vae_fast.autograd.score_function import score_function as _score_function
from vae_fast.functional.kl import LOGVAR_MAX, LOGVAR_MIN


def sample_log_weights(
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
    sample_offset: int = 0,
    generator: torch.Generator | None = None,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    estimator: str = "reparameterization",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Samples of a diagonal Gaussian, and how much likelier each is under the prior.

    .. math:: z = m + e^{v/2} ε, \quad
        r_{ln} = \ln p(z) - \ln q(z|x)
               = Σ_d ½(ε^2 + v - (z - m_p)^2 e^{-v_p} - v_p)

    With log p(x|z) added, r is the log-weight of importance sampling. Minus its mean over the
    samples estimates the KL divergence.

    Args:
        mean, logvar, prior_mean, prior_logvar, num_samples, event_dims, eps, seed, row_offset,
            generator, logvar_min, logvar_max, backend: as in ``sample_kl``.
        sample_offset: index of the first sample, where these are a part of more: the samples of
            several calls with one seed are those of a single call.
        estimator: what gradients ``mean`` and ``logvar`` get. "reparameterization": the whole
            derivative. "stl" (sticking the landing): that through z alone, in which the
            parameters in ln q(z|x) are held; what is left out has mean 0. "dreg" (doubly
            reparameterised): as "stl", and what arrives along the path of a sample, through z and
            r together, is multiplied by the sample's share in the gradient of r,
            g_r[l, n] / Σ_l g_r[l, n]: the normalised weight, where r goes into
            ``importance_weighted_elbo``. The prior's gradients are the same for all.

    Returns:
        z, ``[*batch, *event]`` or ``[L, *batch, *event]``, in ``mean``'s dtype; and r in nats,
        ``[*batch]`` or ``[L, *batch]``, float32 (float64 where an input is).

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``; ValueError for another
            estimator, or a sample_offset with eps.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders"; Roeder, Wu &
    Duvenaud 2017, "Sticking the landing"; Tucker et al. 2019, "Doubly reparameterized gradient
    estimators for Monte Carlo objectives".
    """
    shape, device, event_dims, logvar, prior_mean, prior_logvar = _checks.gaussian(
        mean, logvar, prior_mean, prior_logvar, event_dims
    )
    if num_samples is not None:
        num_samples = _checks.integer("num_samples", num_samples, 1, 2**32)
    row_offset = _checks.row_offset(row_offset, shape, event_dims)
    sample_offset = _checks.integer("sample_offset", sample_offset, 0, 2**32 - (num_samples or 1))
    if eps is not None or seed is not None or generator is not None:
        seed = _checks.noise_source(eps, seed, generator, shape, num_samples, device)
        if eps is not None and sample_offset != 0:
            raise ValueError(f"sample_offset must be 0 where eps is given; got {sample_offset}")
    _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, device)
    return _sample_log_weights.draw_and_call(
        name,
        (mean, logvar, prior_mean, prior_logvar, eps),
        seed,
        (num_samples, event_dims, row_offset, sample_offset, bounds, estimator),
        generator,
    )


def importance_weighted_elbo(
    log_weights: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    r"""The importance-weighted bound on log p(x), and the weights of its samples.

    .. math:: bound_n = \ln \frac{1}{K} Σ_k e^{w_{kn}}, \quad
        \tilde w_{kn} = e^{w_{kn}} / Σ_j e^{w_{jn}}

    The gradient for w is the upstream one times the weight. With log-weights
    w = log p(x|z) + log p(z) - log q(z|x) it is the ELBO for K = 1, rises with K in expectation,
    and goes to log p(x).

    Args:
        log_weights: w in nats, ``[K, *batch]`` with K >= 1; of any size, for only differences are
            exponentiated. Where all K are -inf the bound is -inf and every weight 0.
        backend: as in ``sample_kl``.

    Returns:
        The bound in nats, ``[*batch]``, and the normalised weights, ``[K, *batch]``, without
        gradient; float32 (float64 where log_weights is).

    Raises:
        TypeError: log_weights is not a floating-point tensor.
        ValueError: it has no dimension, or K is 0.
        BackendUnavailableError: as ``sample_kl``.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders", equation 8.
    """
    given = _checks.tensor("log_weights", log_weights)
    if len(given) == 0 or given[0] == 0:
        raise ValueError(
            f"log_weights must have shape [K, *batch] with K of at least 1; got {tuple(given)}"
        )
    name = _backends.choose(backend, log_weights.device)
    return _importance_weighted_elbo.call(name, (log_weights,))


def score_function(
    signal: Tensor,
    mean: Tensor,
    logvar: Tensor,
    *,
    baseline: Tensor | None = None,
    num_samples: int | None = None,
    event_dims: int | None = None,
    eps: Tensor | None = None,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    logvar_min: float = LOGVAR_MIN,
    logvar_max: float = LOGVAR_MAX,
    backend: str | None = None,
) -> Tensor:
    r"""``signal``, with the score-function gradient of its expectation over q(z|x).

    .. math:: ∇ E_q[f(z)] = E_q[(f(z) - b) ∇ \ln q(z|x)], \quad
        ∂_m \ln q = ε e^{-v/2}, \quad ∂_v \ln q = ½(ε^2 - 1)

    The value is ``signal`` itself. What arrives for it goes on to the signal unchanged (for a
    decoder, its ordinary gradient) and, times signal - baseline as constants, to ``mean`` and
    ``logvar``. The z that the signal was computed from must be the sample that ``sample_kl`` draws
    with the same seed, num_samples and row_offset (or the same eps), and detached: the gradient
    does not go through it.

    Args:
        signal: f(z), ``[*batch]``, or ``[L, *batch]`` where num_samples is given.
        mean, logvar: of q(z|x), as in ``sample_kl``. The gradient does not depend on ``mean``.
        baseline: b, broadcastable to signal, a constant that may not depend on the row's own
            sample; None: 0.
        num_samples, event_dims, eps, seed, row_offset, logvar_min, logvar_max, backend: as in
            ``sample_kl``; one of eps and seed must be given.

    Returns:
        A tensor of signal's shape, dtype and values.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``; ValueError where signal
            or baseline has another shape, or neither eps nor seed is given.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning"; Mnih & Gregor 2014, "Neural variational inference and learning".
    """
    shape, device, event_dims, logvar, _, _ = _checks.gaussian(mean, logvar, None, None, event_dims)
    if num_samples is not None:
        num_samples = _checks.integer("num_samples", num_samples, 1, 2**32)
    row_offset = _checks.row_offset(row_offset, shape, event_dims)
    if eps is None and seed is None:
        raise ValueError("one of eps and seed must be given, that of the sample; got neither")
    seed = _checks.noise_source(eps, seed, None, shape, num_samples, device)
    given = tuple(_checks.tensor("signal", signal, device))
    batch = tuple(shape[: len(shape) - event_dims])
    rows = batch if num_samples is None else (num_samples, *batch)
    if given != rows:
        raise ValueError(f"signal must have the shape {rows}; got {given}")
    require_memory(signal)
    weight = signal.detach().to(compute_dtype(signal, mean, logvar))
    if baseline is not None:
        _checks.tensor("baseline", baseline, device)
        _checks.broadcasts("baseline", baseline, signal.shape)
        require_memory(baseline)
        weight = weight - baseline.detach()
    bounds = _checks.bounds(logvar_min, logvar_max)
    name = _backends.choose(backend, device)
    if not is_differentiated(signal, mean, logvar):
        return signal.detach()  # a Function's view of a leaf would require a gradient
    return _score_function.draw_and_call(
        name,
        (signal, weight, mean, logvar, eps),
        seed,
        (num_samples, event_dims, row_offset, bounds),
    )
