from __future__ import annotations

from typing import Any

import magnitudes
import oracle
from cases import Case
from magnitudes import Terms
from torch import Tensor

from ops import gaussian_kl
from ops.common import Arguments, Named, arrived, noise, noise_options, of_event


def options(case: Case, device: str, eps: Tensor | None) -> dict[str, Any]:
    control = gaussian_kl.control_options(case) | {"return_dims": case.return_dims}
    return noise_options(case, device, eps) | control


def answer(case: Case, arguments: Arguments) -> tuple[Tensor, ...]:
    z = oracle.sample(arguments["mean"], arguments["logvar"], noise(case), case.bounds)
    elements = gaussian_kl.elements(case, arguments)
    kl = oracle.sum_event(elements, case.resolved_event_dims)
    batch_dims = tuple(range(len(case.batch_shape)))
    dims = elements.sum(batch_dims) if batch_dims else elements
    return (z, kl, dims) if case.return_dims else (z, kl)


def terms(case: Case, inputs: Arguments, gradients: Named) -> dict[str, Terms]:
    near = gaussian_kl.is_near_the_floor(case, inputs)
    assert not near, "another floor: rounding decides about an element"
    eps = noise(case)
    rows = of_event(case, arrived(gradients, "kl", case.batch_shape)).abs()
    dims = arrived(gradients, "kl_dims", case.shape[len(case.batch_shape) :]).abs()
    return magnitudes.sample_kl(
        **inputs, eps=eps, bounds=case.bounds, event_dims=case.resolved_event_dims,
        grad_z=arrived(gradients, "z", eps.shape), grad=(rows + dims).expand(case.shape),
        free_bits=case.free_bits, balance=case.balance, drawn=case.noise == "seed",
    )  # fmt: skip
