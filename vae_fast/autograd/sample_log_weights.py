"""``sample_log_weights`` to autograd: the noise is made again, so only the inputs are kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae_fast._backends import reference
from vae_fast._backends.reference import gradient_shares
from vae_fast._storage import require_memory
from vae_fast.autograd import gradients, require_strided
from vae_fast.autograd.op import GAUSSIAN_INPUTS, NOISE, Inputs, NoisyOp, Options, of_rows


class SampleLogWeights(NoisyOp):
    name = "sample_log_weights"
    inputs = f"{GAUSSIAN_INPUTS}, Tensor? eps"
    options = f"{NOISE}, SymInt sample_offset, float[] bounds, str estimator"
    returns = "(Tensor, Tensor)"
    backward_arguments = (
        "Tensor? grad_z, Tensor? grad_log_ratio, Tensor? path_weight, "
        f"{inputs}, {NOISE}, SymInt sample_offset, float[] bounds, bool path_only"
    )

    def shapes(self, call: Any) -> tuple[Tensor, Tensor]:
        lead = () if call.num_samples is None else (call.num_samples,)
        rows = of_rows(call, call.mean, call.logvar, call.prior_mean, call.prior_logvar)
        return call.mean.new_empty((*lead, *call.mean.shape)), rows.new_empty((*lead, *rows.shape))

    def run(self, ctx: Any, backend: Any, inputs: Inputs, options: Options) -> Any:
        ctx.save_for_backward(*inputs)
        return self.forward(backend, *inputs, *options)

    def forward(self, backend: Any, *arguments: Any) -> Any:
        return backend.sample_log_weights_forward(*arguments[:-1])

    def composed(self, inputs: Inputs, options: Options) -> Any:
        return reference.sample_log_weights(*inputs, *options)

    def gradients(
        self, ctx: Any, backend: Any, options: Options, upstream: tuple[Tensor | None, ...]
    ) -> tuple[Any, ...]:
        grad_z, grad_log_ratio = upstream
        *kept, estimator = options
        # To a backend "dreg" is "stl" with a weight for each sample's path.
        path_weight = None
        if estimator == "dreg" and kept[1] is not None and grad_log_ratio is not None:
            require_strided(grad_log_ratio)
            require_memory(grad_log_ratio)
            path_weight = gradient_shares(grad_log_ratio)
        made = gradients(
            backend, self._backward, (grad_z, grad_log_ratio, path_weight), ctx.saved_tensors,
            (*kept, estimator != "reparameterization"), ctx.needs_input_grad[self._needs],
            kept[2],
        )  # fmt: skip
        return *made, None


sample_log_weights = SampleLogWeights()
