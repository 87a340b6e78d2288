from __future__ import annotations

from typing import Any

import magnitudes
import oracle
from cases import Case
from magnitudes import Terms
from torch import Tensor

from ops.common import Arguments, Named, of_event, row_options


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    return row_options(case)


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return (oracle.squared_error(**arguments, event_dims=case.resolved_event_dims),)


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    grad = of_event(case, gradients["squared_error"]).expand(case.mean_shape)
    return magnitudes.squared_error(**inputs, event_dims=case.resolved_event_dims, grad=grad)
