"""What the numbers and names of an objective must be."""

from __future__ import annotations

import math


def whole(name: str, value: object, low: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be an int of at least {low}; got {value!r}")


def number(name: str, value: object, low: float = 0.0, high: float = math.inf) -> None:
    """A finite number from ``low`` to ``high``."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        upper = f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be finite and at least {low:g}{upper}; got {value!r}")
