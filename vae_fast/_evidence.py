"""log p(x) of a model, by importance sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_fast import functional
from vae_fast._checks import integer
from vae_fast.autograd.noise import draw_seed
from vae_fast.objectives.objective import Model

# Of the decoder's mean, at once: 16 MiB in float32, and a few times that in a network around it.
ELEMENTS = 2**22


@torch.no_grad()
def log_likelihood(
    model: Model,
    x: Tensor,  # [N, *input_shape]
    num_samples: int,
    chunk: int | None,
    seed: int | Tensor | None,
    row_offset: int,
) -> Tensor:  # [N], float64
    """``FusedVAE.log_likelihood``."""
    num_samples = integer("num_samples", num_samples, 1)
    if chunk is not None:
        chunk = integer("chunk", chunk, 1)
    mean, logvar = model.encode(x)
    if chunk is None:
        chunk = max(1, ELEMENTS // max(1, x.numel()))
    if seed is None:
        seed = draw_seed(mean, None)
    total: Tensor | None = None  # ln of the sum of the weights so far
    for start in range(0, num_samples, chunk):
        count = min(chunk, num_samples - start)
        z, log_ratio = functional.sample_log_weights(
            mean, logvar, **model.prior_arguments(), num_samples=count, seed=seed,
            row_offset=row_offset, sample_offset=start, backend=model.backend,
        )  # fmt: skip
        x_mean, x_logvar = model.decode(z)
        log_p = functional.gaussian_log_likelihood(
            x, x_mean, x_logvar, logvar_min=model.decoder_logvar_min, backend=model.backend
        )
        bound, _ = functional.importance_weighted_elbo(
            log_p.double() + log_ratio, backend=model.backend
        )
        part = bound + math.log(count)
        total = part if total is None else torch.logaddexp(total, part)
    assert total is not None
    return total - math.log(num_samples)
