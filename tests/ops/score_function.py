from __future__ import annotations

from typing import Any

import magnitudes
import oracle
from cases import Case, given_baseline
from magnitudes import Terms
from torch import Tensor

from ops.common import Arguments, Named, noise, noise_options


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    return noise_options(case, device, eps) | {"baseline": given_baseline(case, device)}


def baseline(case: Case) -> Tensor | None:
    given = given_baseline(case)
    return None if given is None else given.double()


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return (
        oracle.score_function(
            **arguments, baseline=baseline(case), eps=noise(case),
            event_dims=case.resolved_event_dims, bounds=case.bounds,
        ),
    )  # fmt: skip


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    return magnitudes.score_function(
        **inputs, baseline=baseline(case), eps=noise(case), bounds=case.bounds,
        event_dims=case.resolved_event_dims, grad=gradients["value"], drawn=case.noise == "seed",
    )  # fmt: skip
