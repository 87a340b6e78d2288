"""The ops of this package."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

import vae_fast.functional as F
from bench.device import Setting
from bench.ops import SEED
from bench.peers import Function
from vae_fast import FusedVAE


def functions(setting: Setting) -> Mapping[str, Function]:
    backend = setting.backend

    def sample_kl(mean: Tensor, logvar: Tensor, eps: Tensor | None = None) -> tuple[Tensor, ...]:
        return F.sample_kl(mean, logvar, eps=eps, backend=backend)

    def packed_sample_kl(parameters: Tensor) -> tuple[Tensor, ...]:
        mean, logvar = F.split_parameters(parameters)
        return F.sample_kl(mean, logvar, backend=backend)

    def gaussian_kl(mean: Tensor, logvar: Tensor) -> tuple[Tensor]:
        return (F.gaussian_kl(mean, logvar, backend=backend),)

    def gaussian_log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor]:
        return (F.gaussian_log_likelihood(x, mean, logvar, backend=backend),)

    def negative_elbo(x: Tensor, mean: Tensor, logvar: Tensor, kl: Tensor) -> tuple[Tensor]:
        return (F.negative_elbo(x, mean, logvar, kl, backend=backend),)

    def elbo(
        posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor, logvar: Tensor
    ) -> tuple[Tensor, Tensor]:
        z, kl = F.sample_kl(posterior_mean, posterior_logvar, backend=backend)
        return z, F.negative_elbo(x, mean, logvar, kl, backend=backend)

    def unit_negative_elbo(
        posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor
    ) -> tuple[Tensor]:
        kl = F.gaussian_kl(posterior_mean, posterior_logvar, backend=backend)
        return (F.negative_elbo(x, mean, None, kl, backend=backend),)

    def free_bits_sample_kl(mean: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
        return F.sample_kl(mean, logvar, free_bits=0.0, backend=backend)

    def iwae(mean: Tensor, logvar: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
        z, log_ratio = F.sample_log_weights(
            mean, logvar, num_samples=len(log_likelihood), backend=backend
        )
        bound, _ = F.importance_weighted_elbo(log_likelihood + log_ratio, backend=backend)
        return z, bound

    def score_function(signal: Tensor, z: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor]:
        # z is that of the seed, and is made again instead of read.
        return (
            F.score_function(
                signal, mean, logvar, num_samples=len(signal), seed=SEED, backend=backend
            ),
        )

    def noise(like: Tensor) -> tuple[Tensor]:
        return (F.noise(like.shape, seed=1, dtype=like.dtype, device=like.device, backend=backend),)

    ops = (
        sample_kl, packed_sample_kl, gaussian_kl, gaussian_log_likelihood, negative_elbo, elbo,
        unit_negative_elbo, free_bits_sample_kl, iwae, score_function, noise,
    )  # fmt: skip
    return {op.__name__: op for op in ops}


class _Step(nn.Module):
    def __init__(self, fused: FusedVAE) -> None:
        super().__init__()
        self.model = copy.deepcopy(fused)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model(x)
        return out.loss, out.z


def step(fused: FusedVAE, mode: str | None = None) -> nn.Module:
    """As it is, or compiled in that mode."""
    module = _Step(fused)
    if mode is not None:
        module.compile(mode=mode)
    return module
