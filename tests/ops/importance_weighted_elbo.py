from __future__ import annotations

from typing import Any

import magnitudes
import oracle
from cases import Case
from magnitudes import Terms
from torch import Tensor

from ops.common import Arguments, Named


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    return {}


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return oracle.importance_weighted_elbo(**arguments)


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    return magnitudes.importance_weighted_elbo(**inputs, grad=gradients["bound"])
