"""Every random choice of a run as a pure function of the run's seed and of where it stands.

Nothing is drawn from a generator that moves along, so a resumed run, or one spread over several
processes, makes the choices of an uninterrupted run in one process.
"""

from __future__ import annotations

import numpy as np

MASK = 2**64 - 1

# What a seed is for: two uses never share one.
STEP, HELD_OUT, SPLIT, SHUFFLE, SAMPLES, INITIAL, IMPORTANCE = range(7)


def _mix(value: int) -> int:
    """One step of SplitMix64 from the state ``value``: a bijection of 64 bits.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
    """
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def derive(seed: int, use: int, index: int = 0) -> int:
    """The seed, in [0, 2**64), of the ``index``-th time that ``use`` needs one."""
    return _mix(_mix(_mix(seed & MASK) ^ use) ^ (index & MASK))


def permutation(count: int, seed: int) -> np.ndarray:
    """A permutation of ``range(count)``, int64 ``[count]``, given by ``seed`` alone."""
    return np.random.Generator(np.random.PCG64(seed)).permutation(count)
