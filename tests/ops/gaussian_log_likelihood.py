from __future__ import annotations

from typing import Any

import magnitudes
import oracle
from cases import Case
from magnitudes import Terms
from torch import Tensor

from ops.common import Arguments, Named, bound_options, of_event


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    return bound_options(case)


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return (
        oracle.gaussian_log_likelihood(
            **arguments, event_dims=case.resolved_event_dims, bounds=case.bounds
        ),
    )


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    grad = of_event(case, gradients["log_likelihood"]).expand(case.mean_shape)
    return magnitudes.gaussian_log_likelihood(
        **inputs, bounds=case.bounds, event_dims=case.resolved_event_dims, grad=grad
    )
