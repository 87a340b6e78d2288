from __future__ import annotations

import math
from typing import Any

import magnitudes
import oracle
from cases import Case
from magnitudes import Terms
from torch import Tensor

from ops.common import Arguments, Named, bound_options


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    return bound_options(case) | {"beta": case.beta, "reduction": case.reduction}


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return (
        oracle.negative_elbo(
            **arguments, beta=case.beta, reduction=case.reduction,
            event_dims=case.resolved_event_dims, bounds=case.bounds,
        ),
    )  # fmt: skip


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    count = math.prod(case.batch_shape) if case.reduction == "mean" else 1
    share = 1 / max(1, count)  # of a row's loss in the loss
    rows = (gradients["loss"] * share).expand(case.batch_shape)
    made = magnitudes.negative_elbo(
        **inputs, beta=case.beta, bounds=case.bounds, samples=case.num_samples or 1,
        event_dims=case.resolved_event_dims, grad=rows,
    )  # fmt: skip
    return made | {"loss": Terms(share * made["loss"].magnitude)}
