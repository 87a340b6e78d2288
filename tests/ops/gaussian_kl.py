from __future__ import annotations

from typing import Any

import magnitudes
import oracle
import torch
from cases import Case
from magnitudes import Terms
from tolerances import TERM
from torch import Tensor

from ops.common import Arguments, Named, arrived, bound_options, of_event


def control_options(case: Case) -> dict[str, Any]:
    return {"free_bits": case.free_bits, "balance": case.balance}


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    return bound_options(case) | control_options(case)


def elements(case: Case, arguments: Arguments) -> Tensor:
    return oracle.kl_elements(
        **arguments, bounds=case.bounds, free_bits=case.free_bits, balance=case.balance
    )


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    return (oracle.sum_event(elements(case, arguments), case.resolved_event_dims),)


def is_near_the_floor(case: Case, inputs: Arguments) -> bool:
    """Whether the error model lets an element's KL fall on the other side of the free bits."""
    if case.free_bits is None:
        return False
    element = magnitudes.kl_elements(**inputs, bounds=case.bounds)
    error = 2 * TERM * torch.finfo(torch.float32).eps * element.terms.by_autograd
    return bool(((element.kl - case.free_bits).abs() <= error).any())


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    assert not is_near_the_floor(case, inputs), "another floor: rounding decides about an element"
    grad = of_event(case, arrived(gradients, "kl", case.batch_shape)).expand(case.shape)
    return magnitudes.gaussian_kl(
        **inputs, bounds=case.bounds, event_dims=case.resolved_event_dims, grad=grad,
        free_bits=case.free_bits, balance=case.balance,
    )  # fmt: skip
