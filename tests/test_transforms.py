"""Derivatives asked for many at once, or forwards: by vmap, torch.func and forward-mode AD."""

from __future__ import annotations

from collections.abc import Callable

import check
import pytest
import torch
from cases import ARGUMENTS, CONSTANTS, Case, priors, tensors
from conftest import Backend
from ops import OPS
from torch import Tensor
from torch.autograd import forward_ad

import vae_fast.functional as F

# Loading what it needs for forward mode, torch calls what it has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    # linearize's, of the constants in any graph that it makes.
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),
]

CASES = [
    Case(op, (2, 3), dtype=torch.float64, **(priors(op) | options))
    for op, options in (
        ("sample_kl", {"return_dims": True}),
        ("sample_kl", {"num_samples": 2, "noise": "eps", "free_bits": 0.4, "balance": 0.7}),
        ("gaussian_kl", {}),
        ("gaussian_log_likelihood", {"num_samples": 2, "logvar": "rows"}),
        ("negative_elbo", {}),
        ("negative_elbo", {"reduction": "none", "num_samples": 2}),
        ("squared_error", {}),
        ("sample_log_weights", {"num_samples": 2}),
        ("sample_log_weights", {"num_samples": 2, "estimator": "stl"}),
        ("sample_log_weights", {"num_samples": 2, "estimator": "dreg"}),
        ("importance_weighted_elbo", {}),
        ("score_function", {"num_samples": 2, "baseline": "rows"}),
    )
]
of_each_op = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case}")
of_each_derivative = pytest.mark.parametrize(
    "case", [c for c in CASES if c.estimator != "dreg"], ids=lambda case: f"{case.op}-{case}"
)
AUTOMATIC = Backend(None, "cpu")


def joined(case: Case, backend: Backend) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """All outputs of the case in one row, as a function of its arguments; and these."""
    arguments = tensors(case, backend.device)
    names = [name for name, tensor in arguments.items() if tensor is not None]
    options = OPS[case.op].options(case, backend.device, None)  # drawn outside of any vmap

    def call(*values: Tensor) -> Tensor:
        given = dict.fromkeys(arguments) | dict(zip(names, values, strict=True))
        made = getattr(F, case.op)(**given, **options, backend=backend.name)
        outputs = zip(case.outputs, made if isinstance(made, tuple) else (made,), strict=True)
        return torch.cat([o.flatten() for name, o in outputs if name not in CONSTANTS])

    return call, tuple(arguments[name] for name in names)


def one_by_one(output: Tensor, inputs: tuple[Tensor, ...], **options: bool) -> list[Tensor]:
    """The Jacobian by each input, a row at a time."""
    rows = [
        torch.autograd.grad(
            element, inputs, retain_graph=True, allow_unused=True, materialize_grads=True, **options
        )
        for element in output
    ]
    return [torch.stack(each) for each in zip(*rows, strict=True)]


def assert_close(got: object, want: object) -> None:
    torch.testing.assert_close(tuple(got), tuple(want), rtol=1e-10, atol=1e-12)


@of_each_op
def test_many_gradients_at_once(case: Case, backend: Backend) -> None:
    call, values = joined(case, backend)
    output = call(*values)
    want = one_by_one(output, values)
    rows = torch.eye(len(output), dtype=output.dtype, device=output.device)
    batched = torch.autograd.grad(
        output, values, rows, is_grads_batched=True, retain_graph=True,
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    assert_close(batched, want)
    vectorised = torch.autograd.functional.jacobian(call, values, vectorize=True)
    assert_close(vectorised, want)

    def pulled(row: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, values, row, retain_graph=True, allow_unused=True,
                                   materialize_grads=True)  # fmt: skip

    assert_close(torch.func.vmap(pulled)(rows), want)


@of_each_op
def test_torch_func_backwards(case: Case) -> None:
    """vjp, jacrev and vmap over them, where no kernel is named."""
    call, values = joined(case, AUTOMATIC)
    output = call(*values)
    want = one_by_one(output, values)
    plain = tuple(value.detach() for value in values)
    _, pull = torch.func.vjp(call, *plain)
    assert_close(torch.func.vmap(pull)(torch.eye(len(output), dtype=output.dtype)), want)
    everything = tuple(range(len(values)))
    assert_close(torch.func.jacrev(call, argnums=everything)(*plain), want)


@of_each_derivative
def test_forwards(case: Case) -> None:
    """jvp, linearize, jacfwd and forward_ad: all derivatives of what the first argument does."""
    call, values = joined(case, AUTOMATIC)
    plain = tuple(value.detach() for value in values)
    directions = tuple(torch.linspace(-1, 1, v.numel(), dtype=v.dtype).view(v.shape) for v in plain)
    jacobian = one_by_one(call(*values), values)
    # Of a surrogate too: what is pushed forward is what is pulled back.
    want = sum(j.flatten(1) @ d.flatten() for j, d in zip(jacobian, directions, strict=True))
    made = {"jvp": torch.func.jvp(call, plain, directions)[1]}
    made["linearize"] = torch.func.linearize(call, *plain)[1](*directions)
    with forward_ad.dual_level():
        dual = call(*map(forward_ad.make_dual, plain, directions))
        made["forward_ad"] = forward_ad.unpack_dual(dual).tangent
    forward = torch.func.jacfwd(call, argnums=tuple(range(len(plain))))(*plain)
    for name, tangent in made.items():
        torch.testing.assert_close(tangent, want, rtol=1e-10, atol=1e-12, msg=name)
    assert_close(forward, jacobian)


@pytest.mark.parametrize(
    "case",
    # Others weigh or hold anew at each order, unlike the formulas that create_graph takes.
    [c for c in CASES if c.estimator == "reparameterization" and c.balance is None],
    ids=lambda case: f"{case.op}-{case}",
)
def test_hessian(case: Case) -> None:
    """Forward over reverse, against reverse over reverse by ``create_graph``."""
    call, values = joined(case, AUTOMATIC)
    count = len(call(*values))
    weights = torch.linspace(0.5, 1.5, count, dtype=torch.float64)

    def loss(*inputs: Tensor) -> Tensor:
        return (call(*inputs).square() * weights).sum()

    everything = tuple(range(len(values)))
    hessian = torch.func.hessian(loss, argnums=everything)(*(v.detach() for v in values))
    first = torch.autograd.grad(loss(*values), values, create_graph=True)
    for row, gradient in zip(hessian, first, strict=True):
        want = one_by_one(gradient.flatten(), values)
        for got, block in zip(row, want, strict=True):
            torch.testing.assert_close(got.reshape(block.shape), block, rtol=1e-9, atol=1e-11)


TRANSFORMS = {
    "grad": lambda f, g: torch.func.grad(lambda g: f(g).sum())(g),
    "jvp": lambda f, g: torch.func.jvp(f, (g,), (g,))[1],
    "jacrev": lambda f, g: torch.func.jacrev(f)(g),
    "functionalize": lambda f, g: torch.func.functionalize(f)(g),
    "vmap": lambda f, g: torch.func.vmap(f)(torch.stack([g, 2 * g])),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("op", ARGUMENTS)
def test_a_backward_pass_inside_a_transform(op: str, transform: str, backend: Backend) -> None:
    """The forward pass went before, on any backend. The gradients are those of plain PyTorch."""
    shape = (3,) if op == "importance_weighted_elbo" else (2, 3)
    samples = 2 if op == "importance_weighted_elbo" else None
    case = Case(op, shape, dtype=torch.float64, num_samples=samples, **priors(op))
    found = []
    for name in (backend.name, "reference"):
        arguments = tensors(case, backend.device)
        made = check.call(case, arguments, name).values()
        output = next(t for t in made if t.requires_grad)
        leaf = next(t for t in arguments.values() if t is not None and t.requires_grad)

        def gradient(upstream: Tensor, output: Tensor = output, leaf: Tensor = leaf) -> Tensor:
            return torch.autograd.grad(output, leaf, upstream, retain_graph=True)[0]

        try:
            found.append(TRANSFORMS[transform](gradient, torch.ones_like(output)))
        except RuntimeError as error:  # of torch's own, where nothing is left to differentiate
            found.append(str(error).partition("\n")[0])
    if isinstance(found[1], str):
        assert found[0] == found[1]
    else:
        torch.testing.assert_close(*found)


def test_the_tangent_of_what_arrives(backend: Backend) -> None:
    mean = torch.randn(3, 4, device=backend.device).requires_grad_()
    kl = F.gaussian_kl(mean, torch.zeros_like(mean), backend=backend.name)
    ones, tangent = torch.ones_like(kl), torch.arange(1.0, 4.0, device=backend.device)
    with forward_ad.dual_level():
        (made,) = torch.autograd.grad(kl, mean, forward_ad.make_dual(ones, tangent))
        found = forward_ad.unpack_dual(made).tangent
    torch.testing.assert_close(found, tangent[:, None] * mean.detach())
