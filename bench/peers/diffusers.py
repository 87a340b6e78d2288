"""``DiagonalGaussianDistribution`` of diffusers, as its autoencoders use it."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from bench.device import Setting
from bench.peers import Function


def packed_sample_kl(parameters: Tensor) -> tuple[Tensor, Tensor]:
    posterior = DiagonalGaussianDistribution(parameters)
    return posterior.sample(), posterior.kl()


def functions(setting: Setting) -> Mapping[str, Function]:
    return {"packed_sample_kl": packed_sample_kl}
