"""How many kernels or aten calls a forward and a backward pass make, by the torch profiler.

On an accelerator the kernels that ran there; on the CPU the calls of aten operators, those inside
others included, which neither a fused op of this package nor compiled code shows up among.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench import device
from bench.device import Setting

MATRIX_PRODUCTS = (
    "aten::mm", "aten::addmm", "aten::bmm", "aten::_convolution", "aten::mkldnn_convolution",
    "aten::convolution_backward", "aten::mkldnn_linear", "aten::cudnn_convolution",
)  # fmt: skip
OPTIMISER = "Optimizer.step"  # torch's own name for it, before that of the class
CALLS = 5
_ACTIVITIES = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}


def _events(step: Callable[[int], object], setting: Setting, number: int) -> Any:
    activities = [ProfilerActivity.CPU]
    if setting.kind in _ACTIVITIES:
        activities.append(_ACTIVITIES[setting.kind])
    step(0)
    with profile(activities=activities, acc_events=True) as record:
        for call in range(number):
            step(call)
        device.synchronizer(setting.device)()
    return record.key_averages()


def calls(step: Callable[[int], object]) -> int:
    """Calls of aten operators in one call of ``step`` on the CPU."""
    events = _events(step, Setting(), 1)
    return sum(event.count for event in events if event.key.startswith("aten::"))


class Kernel(NamedTuple):
    """What an accelerator ran in one call."""

    name: str
    calls: int
    seconds: float  # of all of them together


def kernels(step: Callable[[int], object], setting: Setting) -> list[Kernel]:
    """Each kind of kernel, copies and fillings apart, the longest first."""
    copies = ("Memcpy", "Memset")
    found = [
        Kernel(event.key, event.count // CALLS, event.self_device_time_total * 1e-6 / CALLS)
        for event in _events(step, setting, CALLS)
        if event.device_type != DeviceType.CPU
        and not event.is_user_annotation
        and not event.key.startswith(copies)
    ]
    return sorted(found, key=lambda kernel: -kernel.seconds)


class Shares(NamedTuple):
    """Of the time of a step."""

    outside_matrix_products: float
    optimiser: float  # a part of that


def shares(step: Callable[[int], object]) -> Shares:
    """What calls of ``step`` on the CPU spend their time on."""
    events = _events(step, Setting(), CALLS)
    whole = sum(event.self_cpu_time_total for event in events)
    products = sum(e.self_cpu_time_total for e in events if e.key in MATRIX_PRODUCTS)
    optimiser = sum(e.cpu_time_total for e in events if e.key.startswith(OPTIMISER))
    return Shares(1 - products / whole, optimiser / whole)
