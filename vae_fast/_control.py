"""What is done to a KL divergence beside summing it, as the backends take it."""

from __future__ import annotations

import math
from typing import NamedTuple


class KLControl(NamedTuple):
    """Free bits and the balance of ``functional.sample_kl``, in numbers."""

    floor: float  # nats; an element below counts as this, and has no gradient; -inf: none
    posterior_weight: float  # of the KL's gradients to mean and logvar
    prior_weight: float  # and to those of the prior


NO_CONTROL = KLControl(-math.inf, 1.0, 1.0)
