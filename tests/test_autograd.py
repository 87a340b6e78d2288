"""Derivatives: against finite differences, of second order, and under what autograd can do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import check
import pytest
import torch
from cases import ARGUMENTS, CONSTANTS, PRIORS, SURROGATES, Case, priors, tensors
from conftest import Backend
from torch import Tensor
from torch.autograd import forward_ad

import vae_fast.functional as F
from vae_fast import BackendUnavailableError

OPS = tuple(ARGUMENTS)
DIFFERENTIABLE = tuple(op for op in OPS if op not in SURROGATES)


def small(op: str, **options) -> Case:
    return Case(op, (2, 3), dtype=torch.float64, **(priors(op) | options))


def function(case: Case, backend: Backend, arguments: dict[str, Tensor | None]):
    """The op as a function of the arguments that are there, and those arguments."""
    names = [name for name, tensor in arguments.items() if tensor is not None]

    def call(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict.fromkeys(arguments) | dict(zip(names, values, strict=True))
        return tuple(check.call(case, given, backend.name).values())

    return call, [arguments[name] for name in names]


GRADCHECK_CASES = list(dict.fromkeys([
    *(small(op) for op in DIFFERENTIABLE),
    *(small("sample_kl", num_samples=count, noise=noise) for count in (None, 2)
      for noise in ("seed", "eps")),
    *(small(op, logvar=kind) for op in DIFFERENTIABLE if "logvar" in ARGUMENTS[op]
      for kind in ("event", "scalar", "row")),
    *(small(op, prior_mean=kind, prior_logvar=kind) for op in OPS if priors(op)
      for kind in ("event", "scalar", "row")),
    *(small(op, num_samples=2, logvar=kind) for op in ("gaussian_log_likelihood", "negative_elbo")
      for kind in ("full", "rows", "scalar", None)),
    *(small("negative_elbo", reduction=reduction, beta=0.3) for reduction in ("sum", "none")),
    small("sample_kl", free_bits=0.4, return_dims=True),
    small("gaussian_kl", free_bits=0.4),
    small("squared_error", num_samples=2),
    *(small("sample_log_weights", num_samples=count, noise=noise, sample_offset=offset)
      for count, noise, offset in ((None, "seed", 0), (2, "eps", 0), (2, "seed", 3))),
    *(small("importance_weighted_elbo", num_samples=count, level=level)
      for count, level in ((1, 0.0), (5, 0.0), (5, 1e3))),
]))  # fmt: skip


@pytest.mark.parametrize("case", GRADCHECK_CASES, ids=lambda case: f"{case.op}-{case}")
def test_gradcheck(case: Case, backend: Backend) -> None:
    call, values = function(case, backend, tensors(case, backend.device))
    assert torch.autograd.gradcheck(call, values, fast_mode=False)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradcheck_of_each_argument_alone(op: str, backend: Backend) -> None:
    for name in ARGUMENTS[op]:
        case = small(op, differentiate=(name,))
        call, values = function(case, backend, tensors(case, backend.device))
        assert torch.autograd.gradcheck(call, values, check_batched_grad=True)


TWICE_CASES = [
    *GRADCHECK_CASES[: len(DIFFERENTIABLE) + 4],
    small("sample_kl", free_bits=0.4, return_dims=True),
    small("sample_log_weights", num_samples=2),
]


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("case", TWICE_CASES, ids=lambda case: f"{case.op}-{case}")
def test_gradgradcheck(case: Case, name: str) -> None:
    """The second derivatives too are asked for one by one, and many at once by vmap. Every backend
    makes them by the same formulas, so that two are enough."""
    call, values = function(case, Backend(name, "cpu"), tensors(case))
    assert torch.autograd.gradgradcheck(call, values, check_batched_grad=True)


def weighted(tensors: Iterable[Tensor]) -> Tensor:
    """A sum of all elements with unequal weights."""
    return sum(
        (t * torch.linspace(0.5, 1.5, t.numel(), dtype=t.dtype).view(t.shape).to(t.device)).sum()
        for t in tensors
    )


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_third_derivatives_are_those_of_the_plain_formulas(
    op: str, backend: Backend, way: AbstractContextManager[Any]
) -> None:
    """Autograd's from an op, against torch.func's, which go through plain PyTorch alone."""
    case = small(op)
    call, values = function(case, backend, tensors(case, backend.device))
    plain, _ = function(case, Backend("reference", "cpu"), tensors(case))
    count = len(set(case.outputs) - set(CONSTANTS))

    def derived(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
        gradients = torch.func.grad(value, argnums=tuple(range(len(values))))
        return lambda *inputs: weighted(gradients(*inputs))

    def value(*inputs: Tensor) -> Tensor:
        return weighted(output.square() for output in plain(*inputs)[:count])

    with way:
        made = weighted(output.square() for output in call(*values)[:count])
        for _ in range(3):
            made = weighted(torch.autograd.grad(made, values, create_graph=True))
    want = derived(derived(derived(value)))(*(v.detach().cpu() for v in values))
    torch.testing.assert_close(made.detach().cpu(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", OPS)
def test_a_gradient_of_second_order_is_not_zero(op: str, backend: Backend) -> None:
    """Of the ops whose gradient is no derivative too: what arrives, and the inputs, still count."""
    case = small(op)
    arguments = tensors(case, backend.device)
    outputs = check.call(case, arguments, backend.name)
    loss = sum(output.square().sum() for output in outputs.values())
    first = torch.autograd.grad(loss, list(arguments.values()), create_graph=True)
    second = torch.autograd.grad(
        sum(g.square().sum() for g in first), list(arguments.values()), allow_unused=True
    )
    for name, gradient in zip(arguments, second, strict=True):
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


# Loading what it needs for forward mode, torch calls what it has deprecated.
LOADS_JIT = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@LOADS_JIT
@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("op", OPS)
def test_forward_mode_is_refused_and_not_dropped(
    op: str, recording: bool, compiled_backend: Backend, way: AbstractContextManager[Any]
) -> None:
    """Outside grad mode as well, where a call goes around autograd."""
    case = small(op)
    arguments = {name: tensor.detach() for name, tensor in tensors(case).items()}
    for name, tensor in arguments.items():
        with torch.set_grad_enabled(recording), forward_ad.dual_level():
            dual = forward_ad.make_dual(tensor, torch.ones_like(tensor))
            with way, pytest.raises(NotImplementedError, match="jvp"):
                check.call(case, arguments | {name: dual}, compiled_backend.name)


@LOADS_JIT
@pytest.mark.parametrize("name", ["reference", None])
@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_forward_mode_where_no_kernel_is_named(op: str, name: str | None) -> None:
    case = small(op)
    call, values = function(case, Backend(name, "cpu"), tensors(case))
    assert torch.autograd.gradcheck(
        call,
        values,
        check_forward_ad=True,
        check_backward_ad=False,
        check_batched_forward_grad=True,
    )


@LOADS_JIT
def test_forward_mode_of_a_path_weighed_by_what_arrives_is_refused() -> None:
    mean, logvar = torch.randn(2, 3), torch.randn(2, 3)

    def ratios(m: Tensor) -> Tensor:
        return F.sample_log_weights(m, logvar, num_samples=2, seed=1, estimator="dreg")[1]

    with pytest.raises(NotImplementedError, match=r'estimator="dreg" has no forward-mode'):
        torch.func.jvp(ratios, (mean,), (torch.ones_like(mean),))


@pytest.mark.parametrize("op", OPS)
def test_create_graph_changes_no_gradient(op: str, backend: Backend) -> None:
    """Beyond rounding: the gradients are the formulas' then, and not the kernels'."""
    case = small(op)
    gradients = []
    for create_graph in (False, True):
        arguments = tensors(case, backend.device)
        outputs = check.call(case, arguments, backend.name)
        loss = sum(output.square().sum() for output in outputs.values())
        gradients.append(
            torch.autograd.grad(loss, list(arguments.values()), create_graph=create_graph)
        )
    for plain, with_graph in zip(*gradients, strict=True):
        torch.testing.assert_close(with_graph.detach(), plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("op", OPS)
def test_a_retained_graph_gives_the_same_gradients_again(op: str, backend: Backend) -> None:
    case = Case(op, (5, 33), dtype=torch.bfloat16)
    arguments = {name: t for name, t in tensors(case, backend.device).items() if t is not None}
    outputs = check.call(case, tensors(case) | arguments, backend.name)
    loss = sum((output.float() * 3).sum() for output in outputs.values())
    made = [
        torch.autograd.grad(loss, list(arguments.values()), retain_graph=True) for _ in range(3)
    ]
    for first, *others in zip(*made, strict=True):
        for other in others:
            tolerance = torch.finfo(first.dtype).eps
            torch.testing.assert_close(first, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", OPS)
def test_nothing_is_recorded_where_nothing_is_differentiated(op: str, backend: Backend) -> None:
    case = Case(op, (3, 4))
    arguments = tensors(case, backend.device)
    detached = {n: None if t is None else t.detach() for n, t in arguments.items()}
    with torch.no_grad():
        quiet = check.call(case, arguments, backend.name)
    with torch.inference_mode():
        inference = check.call(case, detached, backend.name)
    constant = check.call(case, detached, backend.name)
    recorded = check.call(case, arguments, backend.name)
    for name, output in recorded.items():
        assert output.requires_grad == (name not in CONSTANTS)
        for other in (quiet, inference, constant):
            assert not other[name].requires_grad
            assert torch.equal(other[name], output.detach())


@pytest.mark.parametrize("op", OPS)
def test_freed_graphs_say_so(op: str, backend: Backend) -> None:
    case = Case(op, (3, 4))
    output = next(iter(check.call(case, tensors(case, backend.device), backend.name).values()))
    output.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("op", "name", "unreached"),
    [
        ("sample_kl", "z", tuple(PRIORS)),
        ("sample_kl", "kl", ()),
        ("sample_kl", "kl_dims", ()),
        ("sample_log_weights", "z", tuple(PRIORS)),
        ("sample_log_weights", "log_ratio", ()),
    ],
)
def test_an_output_whose_gradient_is_not_asked_for(
    op: str, name: str, unreached: tuple[str, ...], backend: Backend
) -> None:
    """One output alone: the other's gradient is zero, not garbage."""
    for case in (small(op, return_dims=True), small(op, return_dims=True, estimator="stl")):
        arguments = tensors(case, backend.device)
        check.call(case, arguments, backend.name)[name].sum().backward()
        for argument, tensor in arguments.items():
            if argument in unreached:
                assert tensor.grad is None or not tensor.grad.any()
            else:
                assert tensor.grad.isfinite().all() and tensor.grad.any()


@pytest.mark.parametrize("op", OPS)
def test_expanded_and_strided_upstream_gradients(op: str, backend: Backend) -> None:
    """``.sum()`` sends an expanded gradient, a transposition a strided one."""
    case = Case(op, (6, 6), reduction="none")
    results = []
    for make in (lambda t: t, lambda t: t.contiguous()):
        arguments = {n: t for n, t in tensors(case, backend.device).items() if t is not None}
        outputs = check.call(case, tensors(case) | arguments, backend.name)
        outputs = {name: t for name, t in outputs.items() if name not in CONSTANTS}
        upstream = []
        for output in outputs.values():
            values = torch.arange(output.numel(), dtype=output.dtype, device=output.device)
            strided = values.view(output.shape).transpose(0, -1) if output.dim() > 1 else values
            upstream.append(make(strided if output.dim() > 1 else values[:1].expand(output.shape)))
        results.append(
            torch.autograd.grad(
                list(outputs.values()), list(arguments.values()), upstream, allow_unused=True
            )
        )
    for strided, contiguous in zip(*results, strict=True):
        assert (strided is None) == (contiguous is None)
        assert strided is None or torch.equal(strided, contiguous)


@pytest.mark.parametrize("op", OPS)
def test_function_transforms_run_on_plain_pytorch(op: str) -> None:
    """torch.func has no rule for a compiled kernel: unless one is named, it gets the reference."""
    case = small(op, reduction="sum")
    automatic = Backend(None, "cpu")
    call, values = function(case, automatic, tensors(case))
    weights = [torch.linspace(1, 2, o.numel(), dtype=o.dtype).view(o.shape) for o in call(*values)]

    def loss(*inputs: Tensor) -> Tensor:
        return sum((o * w).sum() for o, w in zip(call(*inputs), weights, strict=True))

    transformed = torch.func.grad(loss, argnums=tuple(range(len(values))))(
        *(value.detach() for value in values)
    )
    plain = torch.autograd.grad(loss(*values), values)
    for a, b in zip(transformed, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    mapped = torch.func.vmap(call, randomness="same")(*(value[None] for value in values))
    for a, b in zip(call(*values), mapped, strict=True):
        torch.testing.assert_close(b[0], a, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("op", OPS)
def test_function_transforms_of_a_compiled_backend_are_refused(
    op: str, compiled_backend: Backend
) -> None:
    case = small(op)
    call, values = function(case, compiled_backend, tensors(case))
    with pytest.raises(
        BackendUnavailableError, match=r"'cpu' .*torch\.func.*backend=\"reference\""
    ):
        torch.func.grad(lambda *v: call(*v)[0].sum())(*(value.detach() for value in values))


def test_parameters_and_subclasses(backend: Backend) -> None:
    class Marked(Tensor):
        pass

    mean, logvar = (torch.randn(3, 4, device=backend.device) for _ in range(2))
    plain = F.gaussian_kl(mean, logvar, backend=backend.name)
    parameter = torch.nn.Parameter(copy.deepcopy(mean))
    assert torch.equal(F.gaussian_kl(parameter, logvar, backend=backend.name).detach(), plain)
    marked = F.gaussian_kl(mean.as_subclass(Marked), logvar, backend=backend.name)
    assert torch.equal(marked.as_subclass(Tensor), plain)
