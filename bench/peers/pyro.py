"""pyro: a model and a guide, and the loss of ``TraceMeanField_ELBO``.

Differentiated as torch's own loss would be, so that every peer has the same optimiser, and without
pyro's validation, which is on by default and takes time of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

from bench.device import Setting
from bench.peers import Function
from bench.peers.eager import LOGVAR_MAX, LOGVAR_MIN
from vae_fast import FusedVAE


def functions(setting: Setting) -> Mapping[str, Function]:
    return {}


def _std(logvar: Tensor, logvar_min: float) -> Tensor:
    return torch.exp(0.5 * logvar.clamp(logvar_min, LOGVAR_MAX))


class _Step(nn.Module):
    def __init__(self, fused: FusedVAE) -> None:
        super().__init__()
        self.encoder, self.decoder = copy.deepcopy(fused.encoder), copy.deepcopy(fused.decoder)
        (self.latents,) = fused.latent_shape
        self.logvar_min = fused.decoder_logvar_min
        self.elbo = TraceMeanField_ELBO()
        self.z: Tensor

    def model(self, x: Tensor) -> None:
        zero, one = x.new_zeros(self.latents), x.new_ones(self.latents)
        # Pyro sums over the plate; the loss here is the mean.
        with pyro.plate("rows", x.shape[0]), poutine.scale(scale=1 / x.shape[0]):
            z = pyro.sample("z", dist.Normal(zero, one).to_event(1))
            mean, logvar = self.decoder(z)
            pyro.sample("x", dist.Normal(mean, _std(logvar, self.logvar_min)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", x.shape[0]), poutine.scale(scale=1 / x.shape[0]):
            mean, logvar = self.encoder(x)
            self.z = pyro.sample("z", dist.Normal(mean, _std(logvar, LOGVAR_MIN)).to_event(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with pyro.validation_enabled(False):
            loss = self.elbo.differentiable_loss(self.model, self.guide, x)
        return loss, self.z.detach()


def step(fused: FusedVAE) -> nn.Module:
    return _Step(fused)
