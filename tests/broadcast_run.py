"""Runs the calls of ``broadcast_cases`` on a backend, and holds them to ``broadcast_answers``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from broadcast_answers import ANSWERS, Named
from broadcast_cases import OPS, Call
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

import vae_fast.functional as F

# What is looked for is a value in the wrong place or sum, or a NaN that nobody wrote over: off by
# about its own size, which is 0.1 to 100. Rounding stays far below these.
FAR = {"float64": 1e-9, "float32": 2e-4}
TOGETHER = 4096  # results that are compared at once
SHOWN = 5  # wrong calls that a message names


def pool(name: str) -> Tensor:
    """Values that each tensor of the name begins with. Upstream gradients are positive, so that no
    sum of them is near 0."""
    seed = sum(ord(letter) * 31**at for at, letter in enumerate(name)) % 2**31
    draw = torch.rand(2 * 3**4, generator=torch.Generator().manual_seed(seed))
    return draw + 0.5 if name.startswith("grad") else 2 * draw - 1


POOLS = {
    name: pool(name)
    for name in (
        "x", "mean", "logvar", "prior_mean", "prior_logvar", "kl", "signal", "baseline", "eps",
        "log_weights", *(f"grad {name}" for op in OPS.values() for name in op.outputs),
    )
}  # fmt: skip


class Made(NamedTuple):
    """The tensors of a call: those that are differentiated, and as the op takes them."""

    leaves: Named
    upstream: Named


def make(call: Call, device: str) -> Made:
    shapes, dtype = dict(call.shapes), getattr(torch, call.dtype)
    leaves: Named = {}
    upstream: Named = {}
    for name, full in call.full_shapes().items():
        shape = shapes.get(name, full)
        # Of memory of its own: what lies behind it belongs to nobody.
        leaf = POOLS[name][: math.prod(shape)].reshape(shape).to(device, dtype, copy=True)
        if name.startswith("grad "):
            upstream[name.removeprefix("grad ")] = leaf.expand(full)
            continue
        leaves[name] = leaf
    return Made(leaves, upstream)


def answer(call: Call, made: Made) -> tuple[Named, Named]:
    """Each output, and the gradient of each leaf, in float64."""
    a = {name: leaf.detach().double() for name, leaf in made.leaves.items()}
    full = call.full_shapes()
    for name in OPS[call.op].expanded:
        a[name] = a[name].expand(full[name])
    a |= {f"grad {name}": g.double() for name, g in made.upstream.items()}
    outputs, gradients = ANSWERS[call.op](a, call.frame.event_dims, **call.options)
    summed = {}
    for name, gradient in gradients.items():
        leaf = made.leaves[name]
        if gradient.dim() < len(full[name]) or gradient.shape[-len(full[name]) :] != full[name]:
            gradient = gradient.expand(full[name])
        summed[name] = (
            gradient if gradient.shape == leaf.shape else gradient.sum_to_size(leaf.shape)
        )
    return outputs, summed


def results(call: Call, made: Made, backend: str) -> tuple[Named, Named]:
    """Each output, and the gradients that the call asks for, of the public function."""
    op = OPS[call.op]
    needs = op.learned if call.needs is None else call.needs
    full = call.full_shapes()
    arguments = {}
    for name, leaf in made.leaves.items():
        if name in op.learned:
            leaf.requires_grad_(name in needs)
        arguments[name] = leaf.expand(full[name]) if name in op.expanded else leaf
    options: dict[str, Any] = dict(call.options)
    if call.op != "importance_weighted_elbo":
        options["event_dims"] = call.frame.event_dims
    returned = getattr(F, call.op)(**arguments, **options, backend=backend)
    returned = returned if isinstance(returned, tuple) else (returned,)
    outputs = dict(zip(op.outputs, returned, strict=False))  # kl_dims is not always asked for
    if not needs:
        return outputs, {}
    reached = [n for n in made.upstream if outputs[n].requires_grad]
    # As torch.autograd.grad, whose checks would take a quarter of the test's time.
    gradients = _engine_run_backward(
        tuple(outputs[name] for name in reached),
        tuple(made.upstream[name] for name in reached),
        False,
        False,
        tuple(made.leaves[name] for name in needs),
        allow_unreachable=False,
        accumulate_grad=False,
    )
    return outputs, dict(zip(needs, gradients, strict=True))


class Comparison:
    """Results beside the answers, compared many at once."""

    def __init__(self, backend: str, device: str) -> None:
        self.backend, self.device = backend, device
        self.calls = 0
        self.wrong: list[str] = []
        self._clear()

    def _clear(self) -> None:
        self.count = 0
        self.whose: list[tuple[Call, str]] = []
        self.got: list[Tensor] = []
        self.want: list[Tensor] = []

    def add(self, call: Call, name: str, got: Tensor, want: Tensor) -> None:
        if got.shape != want.shape:
            said = f"{name}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
            self.wrong.append(self.line(call, said))
            return
        self.whose.append((call, name))
        self.got.append(got.detach().reshape(-1))
        self.want.append(want.reshape(-1))
        self.count += got.numel()

    def add_calls(self, calls: list[Call]) -> None:
        """Of calls that differ in the gradients asked for."""
        made = make(calls[0], self.device)
        outputs, gradients = answer(calls[0], made)
        for call in calls:
            try:
                got, got_gradients = results(call, made, self.backend)
            except Exception as error:
                self.wrong.append(self.line(call, f"{type(error).__name__}: {error}"))
                continue
            for name, value in got.items():
                self.add(call, name, value, outputs[name])
            for name, value in got_gradients.items():
                self.add(call, f"grad {name}", value, gradients[name])
        self.calls += len(calls)
        if self.count >= TOGETHER:
            self.compare(calls[0].dtype)

    def compare(self, dtype: str) -> None:
        if not self.got:
            return
        got, want = torch.cat(self.got).double(), torch.cat(self.want)
        error = (got - want).abs() / (1 + want.abs())
        good = (error <= FAR[dtype]) | (got.isnan() & want.isnan())
        if not good.all():
            parts = [each.numel() for each in self.got]
            error = error.nan_to_num(math.inf).where(~good, 0)
            for (call, name), g, w, e in zip(
                self.whose, got.split(parts), want.split(parts), error.split(parts), strict=True
            ):
                if e.numel() and e.max() > 0:
                    at = int(e.argmax())
                    said = f"{name}: element {at} is {g[at]:.6g}, not {w[at]:.6g}"
                    self.wrong.append(self.line(call, said))
        self._clear()

    def line(self, call: Call, said: str) -> str:
        frame = f"{call.frame.shape} with event_dims={call.frame.event_dims}"
        shapes = ", ".join(f"{name} {shape}" for name, shape in call.shapes) or "all full"
        needs = "all gradients" if call.needs is None else f"gradients {call.needs}"
        named = f"{call.op} of {frame}, {shapes}, {needs}: {said}"
        return f"{named}\n  replay({call!r}, {self.backend!r})"


def compare(calls: Iterable[list[Call]], backend: str, device: str = "cpu") -> int:
    """Makes the calls; how many. Fails with the lines that repeat those which are wrong."""
    comparison = Comparison(backend, device)
    dtype = "float64"
    for each in calls:
        dtype = each[0].dtype
        comparison.add_calls(each)
    comparison.compare(dtype)
    wrong = comparison.wrong
    if wrong:
        raise AssertionError(
            f"{len(wrong)} results of {comparison.calls} calls are wrong, among them\n"
            + "\n".join(wrong[:SHOWN])
            + '\nTo repeat one, in tests/: python -c "from test_broadcasts import *; replay(...)"'
        )
    return comparison.calls
