"""The value and the gradient of each op at one element: every formula once.

m mean, v log-variance (clamped), p_ of the prior. Sums over elements, and the upstream gradients
of them, are the kernels' business.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vae_fast.kernels.math import exp, exp_half, expm1, limit, number


@triton.jit
def clamp(v, LOW: tl.constexpr, HIGH: tl.constexpr):
    """The log-variance within its bounds; a NaN stays one."""
    return limit(v, LOW, HIGH)


@triton.jit
def gate(v, clamped, gradient):
    """The clamp's gradient: 1 at and inside the bounds, where it changed nothing, 0 outside."""
    return tl.where(v == clamped, gradient, 0.0)


@triton.jit
def unless_zero(g, factor):
    """What a gradient from above, g, is multiplied by. Where g is 0 nothing arrives, so nothing
    goes on, whatever the factor is: it may be infinite, or NaN."""
    return tl.where(g == 0.0, 0.0, factor)


@triton.jit
def kl_parts(m, v, p_m, p_v, HAS_PRIOR_LOGVAR: tl.constexpr):
    """What value and gradients of the KL are made from: m - p_m, (m - p_m) e^-p_v, and of
    d = v - p_v expm1(d) and expm1(d) - d. Where no p_v is had, it is 0."""
    difference = m - p_m
    if HAS_PRIOR_LOGVAR:
        ratio, ratio_minus = expm1(v - p_v)
        return difference, difference * exp(-p_v), ratio, ratio_minus
    else:
        ratio, ratio_minus = expm1(v)
        return difference, difference, ratio, ratio_minus


@triton.jit
def deviation_of(v, HAS_PRIOR_LOGVAR: tl.constexpr):
    """e^(v/2), with the bits that ``deviation_and_kl_parts`` has."""
    if HAS_PRIOR_LOGVAR:
        return exp(0.5 * v)
    else:
        deviation, _, _ = exp_half(v)
        return deviation


@triton.jit
def deviation_and_kl_parts(m, v, p_m, p_v, HAS_PRIOR_LOGVAR: tl.constexpr):
    """e^(v/2), and ``kl_parts``."""
    if HAS_PRIOR_LOGVAR:
        difference, scaled, ratio, ratio_minus = kl_parts(m, v, p_m, p_v, True)
        return exp(0.5 * v), difference, scaled, ratio, ratio_minus
    else:
        deviation, ratio, ratio_minus = exp_half(v)
        difference = m - p_m
        return deviation, difference, difference, ratio, ratio_minus


@triton.jit
def kl_value(difference, scaled, ratio_minus):
    """((m - p_m)^2 e^-p_v + expm1(v - p_v) - (v - p_v)) / 2."""
    return 0.5 * tl.fma(difference, scaled, ratio_minus)


@triton.jit
def at_least(kl, floor, COMPUTE: tl.constexpr):
    """No less than the floor, if there is one; a NaN stays one."""
    if floor is None:
        return kl
    else:
        least = number(floor, COMPUTE)
        return tl.where(kl < least, least, kl)


@triton.jit
def kl_upstream(g, kl, control, COMPUTE: tl.constexpr):
    """What arrives for an element's KL, g, as it goes on to the posterior and to the prior: not at
    all below the floor, and weighted. ``control``: the floor and the two weights, or None each."""
    if control[0] is None:
        return g, g
    else:
        kept = tl.where(kl < number(control[0], COMPUTE), 0.0, g)
        return kept * number(control[1], COMPUTE), kept * number(control[2], COMPUTE)


@triton.jit
def kl_grad_mean(g, scaled):
    """Times g, the upstream gradient, as are the next two. That of the prior's mean is less this,
    with the g that goes there."""
    return g * unless_zero(g, scaled)


@triton.jit
def kl_grad_logvar(g, ratio):
    return 0.5 * g * unless_zero(g, ratio)


@triton.jit
def kl_grad_prior_logvar(g, difference, scaled, ratio):
    return -0.5 * g * unless_zero(g, tl.fma(difference, scaled, ratio))


@triton.jit
def add_slope(h, eps, slope):
    """The sum over samples of h eps, h being what arrives at z = m + e^(v/2) eps, and one more."""
    return tl.fma(h, unless_zero(h, eps), slope)


@triton.jit
def slope_grad_logvar(slope, deviation):
    """What v gets of that sum; deviation is e^(v/2)."""
    return 0.5 * unless_zero(slope, deviation) * slope


@triton.jit
def log_density(x, m, v):
    """(x - m) e^-v, (x - m)^2 e^-v and log N(x; m, e^v) = -(ln 2pi + v + (x - m)^2 e^-v) / 2."""
    difference = x - m
    scaled = difference * exp(-v)
    square = difference * scaled
    return scaled, square, -0.5 * (1.8378770664093454836 + v + square)


@triton.jit
def unit_log_density(x, m):
    """``log_density`` for v = 0."""
    difference = x - m
    square = difference * difference
    return difference, square, -0.5 * (1.8378770664093454836 + square)


@triton.jit
def log_density_grad_mean(g, scaled):
    """Times g, the upstream gradient, as is the next; that of x is less this."""
    return g * unless_zero(g, scaled)


@triton.jit
def log_density_grad_logvar(g, square):
    return 0.5 * g * (unless_zero(g, square) - 1.0)


@triton.jit
def prior_distance(z, p_m, precision):
    """(z - p_m) e^-p_v and (z - p_m)^2 e^-p_v, where precision is e^-p_v."""
    difference = z - p_m
    scaled = difference * precision
    return scaled, difference * scaled


@triton.jit
def log_ratio(eps, v, p_v, square):
    """log p(z) - log q(z|x) = (eps^2 + v - (z - p_m)^2 e^-p_v - p_v) / 2."""
    return 0.5 * (tl.fma(eps, eps, v - p_v) - square)


@triton.jit
def path_gradient(h, g, eps, scaled, inverse, PATH_ONLY: tl.constexpr):
    """h plus what z gets of g, the upstream gradient of the log-ratio: with PATH_ONLY also through
    log q at z, where inverse is e^(-v/2)."""
    if PATH_ONLY:
        return tl.fma(g, unless_zero(g, tl.fma(eps, inverse, -scaled)), h)
    else:
        return tl.fma(-g, unless_zero(g, scaled), h)


@triton.jit
def add_log_prior_grads(g, scaled, square, grad_pm, grad_pv):
    """The gradients of log p(z) for p_m and p_v times g, and what there is of them already."""
    return (
        tl.fma(g, unless_zero(g, scaled), grad_pm),
        tl.fma(g, 0.5 * (unless_zero(g, square) - 1.0), grad_pv),
    )


@triton.jit
def add_score(c, given_eps, linear, excess):
    """The gradients of log q(z|x), z being held, times c, and what there is of them already: that
    for m still without its factor e^(-v/2), and that for v."""
    eps = unless_zero(c, given_eps)
    return tl.fma(c, eps, linear), tl.fma(c, 0.5 * tl.fma(eps, eps, -1.0), excess)


@triton.jit
def score_grad_mean(linear, v):
    return linear * unless_zero(linear, exp(-0.5 * v))
