from __future__ import annotations

from typing import Any

import magnitudes
import oracle
import torch
from cases import Case
from magnitudes import Terms
from torch import Tensor

from ops.common import Arguments, Named, arrived, noise, noise_options, of_event


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    own = {"sample_offset": case.sample_offset, "estimator": case.estimator}
    return noise_options(case, device, eps) | own


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return oracle.sample_log_weights(
        **arguments, eps=noise(case), event_dims=case.resolved_event_dims, bounds=case.bounds,
        estimator=case.estimator,
    )  # fmt: skip


def shares(case: Case, gradients: Named) -> tuple[Tensor | float, Tensor | float]:
    """Each sample's share in the gradient of the log-ratios, and how ill-conditioned it is."""
    if case.estimator != "dreg" or case.num_samples is None or "log_ratio" not in gradients:
        return 1.0, 1.0
    gradient = gradients["log_ratio"]
    total = gradient.sum(0).abs()
    condition = torch.where(total == 0, 1.0, gradient.abs().sum(0) / total)
    return of_event(case, oracle.shares(gradient)), 1 + of_event(case, condition)


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    eps = noise(case)
    rows = arrived(gradients, "log_ratio", case.with_samples(case.batch_shape))
    share, condition = shares(case, gradients)
    return magnitudes.sample_log_weights(
        **inputs, eps=eps, bounds=case.bounds, event_dims=case.resolved_event_dims,
        grad_z=arrived(gradients, "z", eps.shape), grad=of_event(case, rows).expand(eps.shape),
        share=share, condition=condition, path_only=case.estimator != "reparameterization",
        drawn=case.noise == "seed",
    )  # fmt: skip
