"""pythae's ``VAE``, whose decoder has the variance 1 and whose log-variance is not clamped.

Its loss leaves out the ln 2π of the density, which is put back here, one operation on a number, so
that it can be compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn

from bench.device import Setting
from bench.peers import Function
from bench.peers.eager import LOG_2PI
from vae_fast import FusedVAE


def functions(setting: Setting) -> Mapping[str, Function]:
    model = VAE(VAEConfig(input_dim=(1,), latent_dim=1, reconstruction_loss="mse"))

    def unit_negative_elbo(
        posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor
    ) -> tuple[Tensor]:
        loss, _, _ = model.loss_function(mean, x, posterior_mean, posterior_logvar, None)
        return (loss + 0.5 * x.shape[1] * LOG_2PI,)

    return {"unit_negative_elbo": unit_negative_elbo}


class _Encoder(BaseEncoder):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        mean, logvar = self.network(x)
        return ModelOutput(embedding=mean, log_covariance=logvar)


class _Decoder(BaseDecoder):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))


class _Step(nn.Module):
    def __init__(self, fused: FusedVAE) -> None:
        super().__init__()
        (latents,) = fused.latent_shape
        config = VAEConfig(
            input_dim=fused.input_shape, latent_dim=latents, reconstruction_loss="mse"
        )
        encoder, decoder = (copy.deepcopy(network) for network in (fused.encoder, fused.decoder))
        self.model = VAE(config, _Encoder(encoder), _Decoder(decoder))
        self.left_out = 0.5 * math.prod(fused.input_shape) * LOG_2PI

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model({"data": x})
        return output.loss + self.left_out, output.z


def step(fused: FusedVAE) -> nn.Module:
    return _Step(fused)
