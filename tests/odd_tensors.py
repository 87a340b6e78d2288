"""Tensors of every odd kind, and a program that hands them to every op of a backend.

``python tests/odd_tensors.py BACKEND`` prints each case before it runs it: whoever started the
program knows then which one ended it. It ends with the line ``done`` where none did.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")  # of torch: some of these kinds are prototypes

import check
import conftest  # noqa: F401  (which prepares Triton's interpreter)
import cuda_host
import torch
from cases import ARGUMENTS, CONSTANTS, PRIORS, Case, given_noise, tensors, upstream
from odd_kinds import UNPACKED, Kind, kinds, unwrapped
from ops.common import Named
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

import vae_fast.functional as F
from vae_fast import _backends

REFUSALS = (TypeError, ValueError, RuntimeError)  # NotImplementedError is the last


# Those that come further than the checks; few, where a call takes milliseconds.
FAR = ("two tensors", "wrapper", "inference", "zeros without memory", "negative view", "expanded",
       "fake", "functional", "freed", "cut behind an offset")  # fmt: skip
FEW = ("wrapper", "zeros without memory", "freed")
SLOW = ("triton", cuda_host.NAME)

CASES = [
    Case("sample_kl", (3, 4), return_dims=True, **PRIORS),
    Case("sample_kl", (3, 4), num_samples=2, noise="eps"),
    Case("gaussian_kl", (3, 4), **PRIORS),
    Case("gaussian_log_likelihood", (3, 4)),
    Case("gaussian_log_likelihood", (3, 4), num_samples=2, differentiate=("mean", "logvar")),
    Case("negative_elbo", (3, 4)),
    Case("negative_elbo", (3, 4), differentiate=("mean", "logvar", "kl")),
    Case("negative_elbo", (3, 4), reduction="none"),
    Case("squared_error", (3, 4)),
    Case("sample_log_weights", (3, 4), num_samples=2, estimator="dreg", **PRIORS),
    Case("sample_log_weights", (3, 4), noise="eps", estimator="stl"),
    Case("importance_weighted_elbo", (5, 3)),
    Case("score_function", (3, 4), num_samples=2, baseline="rows"),
    Case("score_function", (3, 4), noise="eps"),
]


def everything(case: Case) -> dict[str, Tensor]:
    """All tensors that may be given, those of the options among them."""
    given = {n: t for n, t in tensors(case).items() if t is not None}
    options = check.OPS[case.op].options(case, "cpu", None)
    if case.noise == "eps":
        given["eps"] = given_noise(case)
    elif "seed" in options:
        given["seed"] = torch.tensor(12345)
    if case.op == "negative_elbo":
        given["beta"] = torch.tensor(0.5)
    if options.get("baseline") is not None:
        given["baseline"] = options["baseline"]
    return given


def run(case: Case, given: Named, backend: str, above: Named | None = None) -> tuple[Named, Named]:
    """Outputs, and the gradients of whatever requires one."""
    options = check.OPS[case.op].options(case, "cpu", given.get("eps")) | given
    made = getattr(F, case.op)(**options, backend=backend)
    outputs = dict(zip(case.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    return outputs, gradients(case, given, outputs, above)


def gradients(case: Case, given: Named, outputs: Named, above: Named | None = None) -> Named:
    wanted = {n: t for n, t in given.items() if isinstance(t, Tensor) and t.requires_grad}
    reached = [n for n in outputs if n not in CONSTANTS and outputs[n].requires_grad]
    if not reached or not wanted:
        return {}
    above = above or upstream(case, outputs)
    made = torch.autograd.grad([outputs[n] for n in reached], list(wanted.values()),
                               [above[n] for n in reached], allow_unused=True)  # fmt: skip
    return {n: g for n, g in zip(wanted, made, strict=True) if g is not None}


TRACE, FAILURE = "Exception raised from", "Internal error"  # of C++, and of torch within


class Report:
    """The cases of a run: each is printed before it runs, and what is wrong with it after."""

    def __init__(self) -> None:
        self.count = 0
        self.unclear = TRACE  # what no error may say

    @contextmanager
    def case(self, name: str, kind: Kind, expected: str) -> Iterator[None]:
        print(f"case {name}", flush=True)
        self.count += 1
        try:
            yield
        except Exception as error:
            if isinstance(error, Wrong):
                print(f"wrong: {name}: {error}", flush=True)
                return
            message = str(error)
            if not kind.lines and expected == "any":
                return
            if expected in ("right", "fake") or not isinstance(error, REFUSALS):
                print(f"wrong: {name}: raised {type(error).__name__}: {message}", flush=True)
            elif not message or (kind.lines and "\n" in message) or self.unclear in message:
                print(f"wrong: {name}: the error is not clear: {message!r}", flush=True)
        else:
            if expected == "refused":
                print(f"wrong: {name}: was not refused", flush=True)


class Wrong(Exception):
    """A result is not what it has to be."""


def compare(got: Named, want: Named, expected: str) -> None:
    if expected in ("fake", "refused"):
        got = {name: tensor for name, tensor in got.items() if expected == "fake"}
    elif got.keys() < want.keys() or got.keys() - want.keys():
        raise Wrong(f"made {sorted(got)}, not {sorted(want)}")
    if expected == "any":
        return
    for name, tensor in got.items():
        if expected == "either" and isinstance(tensor, FakeTensor):
            continue
        right = want[name].detach()
        if tensor.shape != right.shape or tensor.dtype is not right.dtype:
            raise Wrong(f"{name} is {tuple(tensor.shape)}, {tensor.dtype}")
        if expected in ("right", "either"):
            try:
                torch.testing.assert_close(unwrapped(tensor).detach(), right)
            except AssertionError as error:
                raise Wrong(f"{name}: {error}") from None


DTYPES = ("bool", "uint8", "uint64", "int64", "float8")
NUMBERS = (*DTYPES, "quantised")


def expectation(label: str, kind: Kind, backend: str, name: str) -> str:
    if name == "seed" and label == "int64":
        return "right"
    if label == "meta" and name == "log_weights" and backend == "reference":
        return "fake"  # there is no other tensor beside it
    # Numbers of another kind are read as numbers.
    if (name == "beta" and label in NUMBERS) or (name in ("seed", "beta") and label == "coo"):
        return "any"
    return kind.by_torch or kind.expected if backend == "reference" else kind.expected


def leaf(tensor: Tensor, like: Tensor) -> Tensor:
    """Requires a gradient where ``like`` does and it can."""
    if like.requires_grad and not tensor.is_inference():
        try:
            return tensor.requires_grad_()
        except RuntimeError:  # a kind that cannot
            return tensor
    return tensor


def as_inputs(report: Report, case: Case, backend: str, labels: Sequence[str] | None) -> None:
    """Each tensor that is given in turn, of each kind."""
    plain = everything(case)
    for name, tensor in plain.items():

        @functools.cache
        def answer(zero: bool, differentiated: bool, name=name) -> tuple[Named, Named]:
            values = plain[name].detach().clone()
            values = torch.zeros_like(values) if zero else values
            return run(case, plain | {name: values.requires_grad_(differentiated)}, backend)

        for label, kind in kinds(tensor, labels).items():
            expected = expectation(label, kind, backend, name)
            if expected == "crash":
                continue
            with report.case(f"{case.op}-{case}: {name}: {label}", kind, expected):
                odd = kind.make(tensor.detach())
                if isinstance(odd, Tensor) and name not in ("seed", "beta", "eps", "baseline"):
                    odd = leaf(odd, tensor)
                outputs, made = run(case, plain | {name: odd}, backend)
                want, right = answer(kind.zero, odd.requires_grad)
                compare(outputs, want, expected)
                compare(made, right, expected)


def as_upstream(report: Report, case: Case, backend: str, labels: Sequence[str] | None) -> None:
    """What arrives for each output in turn, of each kind, after a plain forward pass."""
    given = everything(case)
    outputs, _ = run(case, given, backend)
    above = upstream(case, outputs)
    for name in above.keys() - set(CONSTANTS):
        for label, kind in kinds(above[name], labels).items():
            expected = expectation(label, kind, backend, name)
            if label in DTYPES:  # autograd converts it
                expected = "right"
            if label == "masked":  # which the reference's formulas get, and do what they do
                expected = "any"
            if expected == "crash":
                continue
            with report.case(f"{case.op}-{case}: above {name}: {label}", kind, expected):
                odd = kind.make(above[name])
                made = run(case, given, backend, above | {name: odd})[1]
                if expected != "refused":
                    values = torch.zeros_like(above[name]) if kind.zero else above[name]
                    values = odd.to(values.dtype) if label in DTYPES else values
                    right = run(case, given, backend, above | {name: values})[1]
                    compare(made, right, expected)


def from_hooks(report: Report, case: Case, backend: str, labels: Sequence[str] | None) -> None:
    """Each saved tensor in turn, of each kind, as a hook gives it back."""
    given = everything(case)
    outputs, want = run(case, given, backend)
    above = upstream(case, outputs)
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> int:
        saved.append(tensor)
        return len(saved) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
        run(case, given, backend, above)
    for place in range(len(saved)):
        for label, kind in (kinds(saved[place], labels) | UNPACKED).items():
            expected = "any" if kind.zero or label in DTYPES else kind.expected
            expected = "any" if expected == "any" or label == "jagged" else "either"
            with report.case(f"{case.op}-{case}: saved {place}: {label}", kind, expected):
                saved.clear()

                def unpack(number: int, place=place, make=kind.make) -> Any:
                    return make(saved[number].detach()) if number == place else saved[number]

                with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
                    outputs, made = run(case, given, backend, above)
                compare(made, want, expected)


def of_many_dimensions(report: Report, case: Case, backend: str) -> None:
    """Up to 64 are right; beyond, and with a sample axis that makes more of them, or refused."""
    flat = {n: t.detach() for n, t in everything(case).items() if n not in ("seed", "beta")}

    def given(more: int) -> Named:
        """The arguments, so many dimensions of one element in front of their last one."""
        made = {}
        for name, tensor in flat.items():
            whole = tensor.shape[-1] == case.shape[-1]  # not one value a row
            tensor = tensor[(..., *(None,) * more, slice(None))] if whole else tensor
            made[name] = tensor.clone().requires_grad_(name in ARGUMENTS[case.op])
        return made

    outputs, _ = run(case, given(0), backend)
    above = upstream(case, outputs)
    want = run(case, given(0), backend, above)

    def like(more: int) -> Named:
        """What arrives, in the shapes of the outputs."""
        made, _ = run(case, {n: t.detach() for n, t in given(more).items()}, backend)
        return {n: above[n].reshape(made[n].shape) for n in above}

    for dims in (64, 90) if backend in SLOW else (25, 63, 64, 65, 90):
        fits = dims + (case.num_samples is not None) <= 64
        kind = Kind(Tensor.clone, "right" if fits else "either")
        with report.case(f"{case.op}-{case}: {dims} dimensions", kind, kind.expected):
            made = run(case, given(dims - 2), backend, like(dims - 2))
            for got, right in zip(made, want, strict=True):
                reshaped = {n: t.reshape(right[n].shape) for n, t in got.items()}
                compare(reshaped, right, "right")


def without_dimensions(report: Report, case: Case, backend: str) -> None:
    kind = Kind(Tensor.clone, "refused")
    plain = everything(case)
    for name, tensor in plain.items():
        if tensor.dim() > 0 and name not in ("logvar", "prior_mean", "prior_logvar", "baseline"):
            with report.case(f"{case.op}-{case}: {name}: no dimension", kind, "refused"):
                run(case, plain | {name: tensor.detach().flatten()[0]}, backend)


def choose(name: str) -> None:
    if name == cuda_host.NAME:
        entry = _backends._Entry(("cpu",), "for the tests")
        _backends._TABLE = MappingProxyType({**_backends._TABLE, name: entry})
        _backends._loaded[name] = cuda_host.backend()


def main(backend: str, thorough: bool) -> None:
    choose(backend)
    report, seen = Report(), set()
    for case in CASES:
        # Of an op's second case, and where a call takes milliseconds, what passes the checks.
        labels = None if thorough and case.op not in seen else FAR
        if thorough or case.op not in seen:
            report.unclear = FAILURE  # as an argument is looked at before torch gets it
            as_inputs(report, case, backend, labels)
            report.unclear = TRACE
            as_upstream(report, case, backend, labels)
        if backend != "reference" and case.op not in seen:  # what it saves is autograd's
            from_hooks(report, case, backend, None if thorough else FEW)
        if case.op not in seen:
            of_many_dimensions(report, case, backend)
            without_dimensions(report, case, backend)
        seen.add(case.op)
    print(f"done {report.count}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[1] not in SLOW)
