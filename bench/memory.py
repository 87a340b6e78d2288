"""Peak memory of a forward and a backward pass, above its inputs, in a process of its own.

On the CPU the growth of the process's high-water mark, which Linux resets on request; freed memory
is given back to it first, what this package keeps of its results too. On an accelerator what the
allocator says of its tensors.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bench import device
from bench.device import Setting
from bench.ops import OPS, Size
from bench.training_step import TrainingStep
from bench.workload import Workload
from vae_fast import memory as kept_results

WARM_UP_CALLS = 3  # compiled code and optimisers have made what they keep


def _kilobytes(field: str) -> int:
    found = re.search(
        rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    assert found is not None
    return int(found.group(1))


def _high_water_growth(call: Callable[[], object]) -> int:
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    call()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def growth(call: Callable[[], object], setting: Setting) -> int | None:
    """Bytes that one call needs at its peak; None where this system does not tell."""
    gc.collect()
    kept_results.empty_cache()
    if setting.kind != "cpu":
        allocator = device.module(setting.device)
        allocator.reset_peak_memory_stats()
        before = allocator.memory_allocated()
        call()
        allocator.synchronize()
        return allocator.max_memory_allocated() - before
    return _high_water_growth(call) if sys.platform == "linux" else None


def _measure(
    name: str, size: Any, device_name: str, dtype: str, backend: str | None, threads: int, peer: str
) -> int | None:
    torch.set_num_threads(threads)
    setting = Setting(device_name, device.DTYPES[dtype], backend)
    work: Workload | TrainingStep
    if name in OPS:
        work = Workload(OPS[name], Size(*size), setting, (peer,), check=False)
    else:
        work = TrainingStep(name, size, setting, (peer,), check=False)
    step = work.step(peer)
    for number in range(WARM_UP_CALLS):
        step(number)
    if isinstance(work, Workload):
        work.clear(peer)
    return growth(lambda: step(WARM_UP_CALLS), setting)


def peak(name: str, size: Any, setting: Setting, peer: str) -> int | None:
    """Bytes, above the inputs (and a model's parameters and the optimiser's state)."""
    arguments = (
        name, tuple(size) if isinstance(size, Size) else size, setting.device, setting.dtype_name,
        setting.backend, torch.get_num_threads(), peer,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_measure, *arguments).result()
