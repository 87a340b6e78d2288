"""Writes noise_vectors.json: known answers for the noise every backend must make.

One element at a time, in Python integers and the standard library alone, so that it shares
neither code nor arithmetic with the package or with ``oracle.py``. From this folder::

    python make_noise_vectors.py            # writes noise_vectors.json
    python make_noise_vectors.py --check    # compares with it instead
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

VECTORS = Path(__file__).with_name("noise_vectors.json")
WORD = 1 << 32

# Published answers of Philox4x32-10 (Random123, kat_vectors): counter, key, output.
PUBLISHED = (
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
)
SEEDS = (0, 1, 42, 0x0123456789ABCDEF, 2**64 - 1)
SAMPLES = (0, 3)
# Both halves of a block, block edges, and indices that need the counter's second word.
ELEMENTS = (*range(8), 63, 1000, 4095, 2**32 - 1, 2**32, 2**33 + 5, 2**34 + 1)


def philox4x32_10(counter: list[int], key: list[int]) -> list[int]:
    """Ten Philox rounds on four counter words and two key words (Salmon et al., SC 2011)."""
    a, b, c, d = counter
    k, j = key
    for _ in range(10):
        high_a, low_a = divmod(0xD2511F53 * a, WORD)
        high_c, low_c = divmod(0xCD9E8D57 * c, WORD)
        a, b, c, d = high_c ^ b ^ k, low_c, high_a ^ d ^ j, low_a
        k, j = (k + 0x9E3779B9) % WORD, (j + 0xBB67AE85) % WORD
    return [a, b, c, d]


def round_to_float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def uniform(word: int) -> float:
    """A 32-bit word as a float32 in (0, 1]; each float32 operation is rounded once."""
    return round_to_float32(round_to_float32(word) * 2.0**-32 + 2.0**-33)


def noise(seed: int, sample: int, element: int) -> float:
    """The standard-normal value of one element: Box-Muller in double precision."""
    block, place = divmod(element, 4)
    words = philox4x32_10([block % WORD, block // WORD, sample, 0], [seed % WORD, seed // WORD])
    first = 2 * (place // 2)
    radius = math.sqrt(-2.0 * math.log(uniform(words[first])))
    angle = 2.0 * math.pi * uniform(words[first + 1])
    return radius * (math.sin(angle) if place % 2 else math.cos(angle))


def vectors() -> dict:
    """Everything the file holds. Integers past 2**53 are written as text: JSON has doubles."""
    published = [
        {"counter": counter.split(), "key": key.split(), "out": out.split()}
        for counter, key, out in PUBLISHED
    ]
    answers = [
        {
            "seed": str(seed),
            "sample": sample,
            "element": [str(element) for element in ELEMENTS],
            "noise": [noise(seed, sample, element) for element in ELEMENTS],
        }
        for seed in SEEDS
        for sample in SAMPLES
    ]
    return {"philox4x32_10": published, "noise": answers}


def difference(made: dict, stored: dict) -> float:
    """The largest difference of two sets of noise; infinite where they are of other elements."""
    largest = 0.0
    for ours, theirs in zip(made["noise"], stored["noise"], strict=True):
        if any(ours[name] != theirs[name] for name in ("seed", "sample", "element")):
            return math.inf
        pairs = zip(ours["noise"], theirs["noise"], strict=True)
        largest = max(largest, *(abs(a - b) for a, b in pairs))
    return largest


def main(arguments: list[str]) -> int:
    for case in vectors()["philox4x32_10"]:
        words = {name: [int(word, 16) for word in case[name]] for name in case}
        if philox4x32_10(words["counter"], words["key"]) != words["out"]:
            raise SystemExit(f"philox4x32_10 does not give the published words: {case}")
    if arguments == ["--check"]:
        # libm of another machine may differ in the last bits.
        return int(difference(vectors(), json.loads(VECTORS.read_text())) > 1e-14)
    VECTORS.write_text(json.dumps(vectors(), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
