"""Seeds drawn by the host from the state of a GPU's generator."""

from __future__ import annotations

import threading

import pytest
import torch

from vae_fast import _seed

DEVICE = torch.device("cuda", 0)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@pytest.mark.parametrize("first", [0, 1, 2**32 + 7, 2**63 + 5])
def test_they_are_what_the_device_would_draw(first: int) -> None:
    """And leave the generator in the same state: compiled code and graphs draw on the device."""
    ours, theirs = (torch.Generator(DEVICE).manual_seed(first) for _ in range(2))
    for count in (1, 3):
        drawn = [_seed.draw(DEVICE, ours) for _ in range(count)]
        assert all(isinstance(seed, int) for seed in drawn)
        assert drawn == [_seed.to_int(_seed.draw_tensor(DEVICE, theirs)) for _ in range(count)]
        assert ours.get_offset() == theirs.get_offset()
        for generator in (ours, theirs):  # moves the offset by more than one draw does
            torch.rand(1000, 1000, device=DEVICE, generator=generator)
    for generator in (ours, theirs):
        generator.set_offset(2**35)  # a counter of more than 32 bits
    assert _seed.draw(DEVICE, ours) == _seed.to_int(_seed.draw_tensor(DEVICE, theirs))


def test_manual_seed_governs_them() -> None:
    torch.manual_seed(3)
    first = [_seed.draw(DEVICE, None) for _ in range(3)]
    torch.manual_seed(3)
    assert first == [_seed.draw(DEVICE, None) for _ in range(3)]
    assert len(set(first)) == 3


def test_threads_never_share_one() -> None:
    drawn: list[list[int]] = [[] for _ in range(8)]

    def draw(mine: list[int]) -> None:
        for _ in range(2000):
            mine.append(_seed.to_int(_seed.draw(DEVICE, None)))

    threads = [threading.Thread(target=draw, args=(mine,)) for mine in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [seed for mine in drawn for seed in mine]
    assert len(set(every)) == len(every) == 8 * 2000
