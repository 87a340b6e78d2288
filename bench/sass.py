"""Control flow of a kernel's machine code, as cuobjdump prints it."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple


class Instruction(NamedTuple):
    address: int
    text: str  # with its predicate


def parse(body: str) -> list[Instruction]:
    """The instructions of one function's listing, in order of address."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]+);", body)
    return [Instruction(int(address, 16), text.strip()) for address, text in found]


def _successors(code: list[Instruction]) -> list[list[int]]:
    places = {instruction.address: index for index, instruction in enumerate(code)}
    following: list[list[int]] = []
    for index, (_, text) in enumerate(code):
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        ends = re.search(r"\b(?:BRA|EXIT|RET)\b", text) and not re.search(r"@|\bUP\d", text)
        after = [] if ends or index + 1 == len(code) else [index + 1]
        if jump and int(jump.group(1), 16) in places:
            after.append(places[int(jump.group(1), 16)])
        following.append(after)
    return following


def _distance(following: list[list[int]], start: int, goal: int) -> int | None:
    """Instructions executed from start until goal is reached, at least one."""
    steps = {start: 0}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for there in following[here]:
            if there == goal:
                return steps[here] + 1
            if there not in steps:
                steps[there] = steps[here] + 1
                queue.append(there)
    return None


def loop_length(code: list[Instruction]) -> int | None:
    """Instructions of the shortest turn of the loop over packs, None where it is not made out.

    A turn goes past the 16-byte loads of a pack before the first exponential or logarithm, and past
    the first logarithm if there is one: its inputs, and its noise. Where the next pack is on its
    way while one is worked on, loads are there twice, for the first pack of a row and for the
    others: those count, and they may come anywhere in the loop.
    """
    texts = [instruction.text for instruction in code]
    costly = [i for i, text in enumerate(texts) if re.search(r"MUFU\.(?:EX2|LG2)", text)]
    if not costly:
        return None
    loads = [i for i, text in enumerate(texts) if re.search(r"\bLDG[\w.]*\.128", text)]
    noise = [i for i in costly if "LG2" in texts[i]][:1]
    in_place = [i for i in loads if i < costly[0]] + noise
    ahead = sorted([*loads[len(loads) // 2 :], (noise or costly)[0]])
    following = _successors(code)
    turns = (_turn(following, way) for way in (in_place, ahead))
    return min((turn for turn in turns if turn is not None), default=None)


def _turn(following: list[list[int]], way: list[int]) -> int | None:
    """Instructions executed on the way and back to its start."""
    legs = [_distance(following, a, b) for a, b in zip(way, [*way[1:], *way[:1]], strict=True)]
    return None if None in legs or not way else sum(leg for leg in legs if leg is not None)
