"""What several ops share: their options, their noise, and gradients of the shape of elements."""

from __future__ import annotations

from typing import Any

import oracle
import torch
from cases import Case, given_noise
from torch import Tensor

Named = dict[str, Tensor]
Arguments = dict[str, Tensor | None]


def row_options(case: Case) -> dict[str, Any]:
    return {"event_dims": case.event_dims}


def bound_options(case: Case) -> dict[str, Any]:
    return row_options(case) | {"logvar_min": case.bounds[0], "logvar_max": case.bounds[1]}


def noise_options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    options = bound_options(case) | {"num_samples": case.num_samples}
    if case.noise == "eps":
        return options | {"eps": given_noise(case, device) if eps is None else eps}
    return options | {"seed": case.seed, "row_offset": case.row_offset}


def noise(case: Case) -> Tensor:
    """The noise of a case in float64."""
    if case.noise == "eps":
        return given_noise(case).double()
    return oracle.noise(
        case.shape, case.seed, case.resolved_event_dims, case.row_offset, case.num_samples,
        case.sample_offset,
    )  # fmt: skip


def of_event(case: Case, rows: Tensor) -> Tensor:
    """One value a row, to be broadcast over the row's event."""
    return rows.reshape(rows.shape + (1,) * case.resolved_event_dims)


def arrived(gradients: Named, name: str, shape: tuple[int, ...]) -> Tensor:
    """The gradient of an output; zeros where none arrived."""
    return gradients.get(name, torch.zeros(shape, dtype=torch.float64))
