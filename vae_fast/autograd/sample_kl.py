"""``sample_kl`` to autograd: the noise is made again from the seed, so only the inputs are kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.autograd.op import GAUSSIAN_INPUTS, NOISE, NoisyOp, of_rows


class SampleKL(NoisyOp):
    name = "sample_kl"
    inputs = f"{GAUSSIAN_INPUTS}, Tensor? eps"
    options = f"{NOISE}, float[] bounds, float[] control, bool return_dims"
    returns = "Tensor[]"
    upstream = "Tensor? grad_z, Tensor? grad_kl, Tensor? grad_dims"
    forward_only = 1

    def shapes(self, call: Any) -> list[Tensor]:
        mean = call.mean
        z = mean.new_empty(
            mean.shape if call.num_samples is None else (call.num_samples, *mean.shape)
        )
        kl = of_rows(call, mean, call.logvar, call.prior_mean, call.prior_logvar)
        event = mean.shape[mean.dim() - call.event_dims :]
        return [z, kl, kl.new_empty(event)] if call.return_dims else [z, kl]


sample_kl = SampleKL()
