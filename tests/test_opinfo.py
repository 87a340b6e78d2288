"""PyTorch's own checks of an operator and a module, on its Gaussian loss as this package makes it.

The sample inputs and the checks are those of PyTorch's test suite; the loss around
``gaussian_log_likelihood`` is written here.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import pickle
import random
import sys
import types
import unittest
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal import composite_compliance

import vae_fast.functional as F

# Loading what it needs for forward mode, torch calls what it has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)
EVERYWHERE = {"logvar_min": -math.inf, "logvar_max": math.inf}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    backend: str | None = None,
) -> Tensor:
    """``torch.nn.functional.gaussian_nll_loss``, each element an event of the likelihood."""
    if var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    var = var + (var.clamp(min=eps) - var).detach()  # clamped without a gradient of 0
    mean, x = torch.broadcast_tensors(input, target)
    loss = -F.gaussian_log_likelihood(
        x, mean, var.log(), event_dims=0, backend=backend, **EVERYWHERE
    )
    if not full:
        loss = loss - 0.5 * math.log(2 * math.pi)
    return loss if reduction == "none" else getattr(loss, reduction)()


class GaussianNLLLoss(nn.Module):
    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__()
        self.options = {"full": full, "eps": eps, "reduction": reduction}

    def forward(self, input: Tensor, target: Tensor, var: Tensor) -> Tensor:
        return gaussian_nll_loss(input, target, var, **self.options)


class Lists(NamedTuple):
    op: Any  # PyTorch's OpInfo of the loss
    module: Any  # and ModuleInfo


@pytest.fixture(scope="module")
def lists() -> Lists:
    if importlib.util.find_spec("expecttest") is None:  # of which the lists need a name
        stand_in = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stand_in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which they use
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
    # They forbid the rest of the process to set torch.backends.
    torch.backends.__dict__["__allow_nonbracketed_mutation_flag"] = True
    (op,) = (each for each in op_db if each.name == "nn.functional.gaussian_nll_loss")
    (module,) = (each for each in module_db if each.module_cls is nn.GaussianNLLLoss)
    return Lists(op, module)


class Sample(NamedTuple):
    values: tuple[Tensor, ...]
    options: dict[str, Any]

    def op(self, backend: str | None) -> Any:
        return lambda *values: gaussian_nll_loss(*values, **self.options, backend=backend)


def samples(lists: Lists, step: int = 1) -> list[Sample]:
    """The sample inputs in float64, or each ``step``-th of those of at most 25 elements."""
    random.seed(0)
    made = [
        Sample((each.input, *each.args), dict(each.kwargs))
        for each in lists.op.sample_inputs("cpu", torch.float64, requires_grad=True)
    ]
    if step > 1:
        made = [each for each in made if each.values[0].numel() <= 25][::step]
    assert len(made) > 6
    return made


named = pytest.mark.parametrize("backend", [None, "cpu", "reference"])
composed = pytest.mark.parametrize("backend", [None, "reference"])


@named
def test_values_and_gradients(lists: Lists, backend: str | None) -> None:
    for sample in samples(lists):
        results = []
        for op in (sample.op(backend), lists.op.op):
            options = {} if op is not lists.op.op else sample.options
            output = op(*sample.values, **options)
            results.append((output, *torch.autograd.grad(output.sum(), sample.values)))
        torch.testing.assert_close(*results, **CLOSE)


@named
def test_gradcheck(lists: Lists, backend: str | None) -> None:
    for sample in samples(lists, 5):
        assert torch.autograd.gradcheck(
            sample.op(backend), sample.values, fast_mode=True, check_batched_grad=True
        )


@composed
def test_gradcheck_forwards(lists: Lists, backend: str | None) -> None:
    for sample in samples(lists, 5):
        assert torch.autograd.gradcheck(
            sample.op(backend), sample.values, fast_mode=True, check_forward_ad=True,
            check_backward_ad=False, check_batched_forward_grad=True, check_undefined_grad=True,
        )  # fmt: skip


@named
def test_gradgradcheck(lists: Lists, backend: str | None) -> None:
    for sample in samples(lists, 5):
        assert torch.autograd.gradgradcheck(
            sample.op(backend), sample.values, fast_mode=True, check_batched_grad=True
        )


@composed
def test_gradgradcheck_forward_over_reverse(lists: Lists, backend: str | None) -> None:
    for sample in samples(lists, 5):
        assert torch.autograd.gradgradcheck(
            sample.op(backend), sample.values, fast_mode=True, check_fwd_over_rev=True,
            check_rev_over_rev=False, check_undefined_grad=False,
        )  # fmt: skip


def assert_close(got: Any, want: Any, **_options: Any) -> None:
    torch.testing.assert_close(got, want, **CLOSE)


@named
def test_composite_compliance(lists: Lists, backend: str | None) -> None:
    """Each choice of wrapped arguments, and of wrapped gradients from above."""
    for sample in samples(lists, 7):
        op = sample.op(backend)
        composite_compliance.check_with_mode(op, sample.values, {}, assert_close)
        composite_compliance.check_all_permutations(op, sample.values, {}, assert_close)
        composite_compliance.check_backward_formula(
            op, sample.values, {}, assert_equal_fn=assert_close
        )


@composed
def test_composite_compliance_forwards(lists: Lists, backend: str | None) -> None:
    for sample in samples(lists, 29):
        composite_compliance.check_forward_ad_formula(
            sample.op(backend), sample.values, {}, assert_equal_fn=assert_close
        )


@pytest.mark.parametrize("training", [True, False])
def test_module(lists: Lists, training: bool) -> None:
    """As it is, copied and pickled; with its gradients."""
    inputs = lists.module.module_inputs_func(
        lists.module, "cpu", torch.float64, requires_grad=True, training=training
    )
    assert len(inputs) >= 5
    for each in inputs:
        options, values = each.constructor_input.kwargs, each.forward_input.args
        made = GaussianNLLLoss(**options).train(training)
        want = nn.GaussianNLLLoss(**options)(*values)
        differentiated = [v for v in values if v.requires_grad]
        right = torch.autograd.grad(want.sum(), differentiated)
        for module in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert module.training is training and not list(module.state_dict())
            output = module(*values)
            torch.testing.assert_close(output, want, **CLOSE)
            gradients = torch.autograd.grad(output.sum(), differentiated)
            torch.testing.assert_close(gradients, right, **CLOSE)
        assert torch.autograd.gradcheck(made, values, fast_mode=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(made, values, fast_mode=True)
