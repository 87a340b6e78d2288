"""``gaussian_log_likelihood`` and ``squared_error`` to autograd."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast.autograd.op import Op, of_rows


class GaussianLogLikelihood(Op):
    name = "gaussian_log_likelihood"
    inputs = "Tensor x, Tensor mean, Tensor? logvar"
    options = "int event_dims, float[] bounds"
    upstream = "Tensor grad_ll"
    learned = ("x", "mean", "logvar")

    def shapes(self, call: Any) -> Tensor:
        return of_rows(call, call.mean, call.x, call.logvar)


class SquaredError(Op):
    name = "squared_error"
    inputs = "Tensor x, Tensor mean"
    options = "int event_dims"
    upstream = "Tensor gradient"
    learned = ("x", "mean")

    def shapes(self, call: Any) -> Tensor:
        return of_rows(call, call.mean, call.x)


gaussian_log_likelihood = GaussianLogLikelihood()
squared_error = SquaredError()
