"""``gaussian_kl`` to autograd."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.autograd.op import GAUSSIAN_INPUTS, Op, of_rows


class GaussianKL(Op):
    name = "gaussian_kl"
    inputs = GAUSSIAN_INPUTS
    options = "int event_dims, float[] bounds, float[] control"
    upstream = "Tensor grad_kl"

    def shapes(self, call: Any) -> Tensor:
        return of_rows(call, call.mean, call.logvar, call.prior_mean, call.prior_logvar)


gaussian_kl = GaussianKL()
