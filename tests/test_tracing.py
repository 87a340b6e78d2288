"""Calls that are recorded, recomputed or transformed: torch.jit.trace, activation checkpoints and
torch.func, eager and compiled."""

from __future__ import annotations

import io
from collections.abc import Callable

import check
import pytest
import torch
from cases import ARGUMENTS, PRIORS, Case, priors, tensors
from conftest import Backend, require
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vae_fast.functional as F
from vae_fast import FusedVAE

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    # torch says of each part of torch.jit that it is to go,
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.:DeprecationWarning"),
    # and that a trace keeps no check of a shape, and nothing else that Python does with one.
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning"),
]
SEEDS = (None, 3, torch.tensor(4))


@pytest.fixture(params=("reference", "cpu"))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Plain PyTorch, and one of the backends that are called as registered ops."""
    chosen = Backend(request.param, "cpu")
    require(chosen)
    return chosen


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def case_of(op: str) -> Case:
    return Case(op, (5, 7), **priors(op))


def vae(backend: Backend | None = None) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(12, 3, (8,), backend=backend and backend.name)


class Outputs(nn.Module):
    """A model's outputs as a tuple of tensors, which a trace returns."""

    def __init__(self, model: FusedVAE, seed: int | None) -> None:
        super().__init__()
        self.model, self.seed = model, seed

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = self.model(x, seed=self.seed)
        return out.loss, out.z, out.elbo, out.mean


def with_gradients(function: Callable, inputs: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(9)
    made = function(*inputs)
    made = made if isinstance(made, tuple) else (made,)
    total = sum(t.sum() for t in made if t.requires_grad)
    gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [t.detach() for t in (*made, *gradients)]


def reloaded(traced: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize("grad_mode", [True, False])
@pytest.mark.parametrize("op", ARGUMENTS)
def test_a_trace_of_an_op(op: str, grad_mode: bool, backend: Backend) -> None:
    """Of other inputs it gives what eager code does, with gradients, whatever the mode was."""
    case = case_of(op)
    arguments = tensors(case)
    names = [name for name, tensor in arguments.items() if tensor is not None]

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        named = arguments | dict(zip(names, given, strict=True))
        return tuple(check.call(case, named, backend.name).values())

    example = tuple(arguments[name] for name in names)
    with torch.set_grad_enabled(grad_mode):
        traced = reloaded(torch.jit.trace(function, example))
    others = [torch.randn_like(t).requires_grad_() for t in example]
    got, want = (with_gradients(f, others, others) for f in (traced, function))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("grad_mode", [True, False])
def test_a_trace_of_the_model(seed: int | None, grad_mode: bool, compiled_backend: Backend) -> None:
    """A seed is a constant of the trace. Without one each call draws its own, as in eager mode."""
    module = Outputs(vae(compiled_backend), seed)
    with torch.set_grad_enabled(grad_mode):
        traced = torch.jit.trace(module, torch.randn(5, 12), check_trace=seed is not None)
    x = torch.randn(5, 12)
    for each in (traced, reloaded(traced)):
        got = with_gradients(each, [x], list(each.parameters()))
        want = with_gradients(module, [x], list(module.parameters()))
        torch.testing.assert_close(got, want)
        assert torch.equal(each(x)[1], each(x)[1]) == (seed is not None)


def test_a_trace_takes_seeds_and_sizes(backend: Backend) -> None:
    """Seeds may be its inputs; the noise may have the shape of one."""

    def function(x: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        noise = F.noise(x.shape, seed=seed, dtype=x.dtype, device=x.device, backend=backend.name)
        return noise, F.sample_kl(x, x, seed=seed, backend=backend.name)[0]

    traced = torch.jit.trace(function, (torch.zeros(5, 7), torch.tensor(3)))
    for seed in (3, -8):
        given = torch.randn(5, 7), torch.tensor(seed)
        torch.testing.assert_close(traced(*given), function(*given))


def test_traces_that_would_be_wrong_are_refused(backend: Backend) -> None:
    """A generator's seed would be a constant; plain PyTorch would lose the weights of "dreg"."""
    x = torch.randn(5, 7)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="generator must be None where a program is recorded"):
        torch.jit.trace(lambda x: F.sample_kl(x, x, generator=generator, backend=backend.name), x)
    case = Case("sample_log_weights", (5, 7), num_samples=3, estimator="dreg")
    arguments = tensors(case) | {"prior_mean": None, "prior_logvar": None}
    leaves = [arguments["mean"], arguments["logvar"]]

    def function(mean: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
        named = arguments | {"mean": mean, "logvar": logvar}
        return tuple(check.call(case, named, backend.name).values())

    if backend.name == "reference":
        with pytest.raises(NotImplementedError, match='estimator="dreg" cannot be exported or tra'):
            torch.jit.trace(function, tuple(leaves))
        return
    traced = torch.jit.trace(function, tuple(leaves))
    got, want = (with_gradients(f, leaves, leaves) for f in (traced, function))
    torch.testing.assert_close(got, want)


def steps(function: Callable, x: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(5)
    loss = function(x)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def checkpointed(function: Callable[[Tensor], Tensor], compiler: str | None) -> Callable:
    def call(x: Tensor) -> Tensor:
        return checkpoint(function, x, use_reentrant=False)

    return call if compiler is None else torch.compile(call, fullgraph=True, backend=compiler)


@pytest.mark.parametrize("compiler", [None, "aot_eager"])
@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_checkpoints_of_ops(
    seed: int | Tensor | None, compiler: str | None, backend: Backend
) -> None:
    """The recomputed forward pass has the noise of the first: the gradient is that without one."""
    x = torch.randn(5, 7, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        z, kl = F.sample_kl(x, x.sin(), seed=seed, backend=backend.name)
        return (z * z).sum() + F.negative_elbo(x.detach(), z.exp(), None, kl, backend=backend.name)

    want = steps(loss, x, [x])
    torch.testing.assert_close(steps(checkpointed(loss, compiler), x, [x]), want)


def test_a_checkpoint_draws_the_same_sample_again(compiled_backend: Backend) -> None:
    seen = []

    def loss(x: Tensor) -> Tensor:
        z, kl = F.sample_kl(x, x, backend=compiled_backend.name)
        seen.append(z.detach())
        return (z * z).sum() + kl.sum()

    x = torch.randn(5, 7, requires_grad=True)
    checkpoint(loss, x, use_reentrant=False).backward()
    assert len(seen) == 2 and torch.equal(*seen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("compiler", [None, "aot_eager", "inductor"])
@pytest.mark.parametrize("seed", SEEDS[::2], ids=str)
def test_checkpoints_of_the_model(
    seed: Tensor | None, compiler: str | None, compiled_backend: Backend
) -> None:
    model = vae(compiled_backend)
    x, leaves = torch.randn(5, 12), list(model.parameters())

    def loss(x: Tensor) -> Tensor:
        return model(x, seed=seed).loss

    want = steps(loss, x, leaves)
    got = steps(checkpointed(loss, compiler), x, leaves)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def mapped(randomness: str) -> Callable[[Tensor], Tensor]:
    def draw(row: Tensor) -> Tensor:
        return F.sample_kl(row, row, event_dims=1)[0]

    return torch.func.vmap(draw, randomness=randomness)


TRANSFORMED = {
    "grad": torch.func.grad(lambda x: sum(t.sum() for t in F.sample_kl(x, x, seed=3))),
    "grad, unseeded": torch.func.grad(lambda x: sum(t.sum() for t in F.sample_kl(x, x))),
    "vmap, same": mapped("same"),
    "vmap, different": mapped("different"),
    "vmap of grad": torch.func.vmap(torch.func.grad(lambda x: F.gaussian_kl(x, x, event_dims=1))),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_inside_compiled_code(name: str) -> None:
    x = torch.randn(4, 7)
    function = TRANSFORMED[name]
    made = []
    for call in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(7)
        made.append(call(x))
    torch.testing.assert_close(*made)
    if name.startswith("vmap, "):
        noise = (made[0] - x) / torch.exp(0.5 * x)
        assert torch.allclose(noise[0], noise[1], atol=1e-4) == (name == "vmap, same")


def test_transforms_that_are_refused_are_refused_compiled(compiled_backend: Backend) -> None:
    def kl(x: Tensor) -> Tensor:
        return F.gaussian_kl(x, x, backend=compiled_backend.name).sum()

    compiled = torch.compile(torch.func.grad(kl), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match=r"cannot run under torch\.func's transforms"):
        compiled(torch.zeros(4, 7))
    with pytest.raises(Exception, match="random operation while in randomness error mode"):
        torch.compile(mapped("error"), fullgraph=True, backend="aot_eager")(torch.zeros(4, 7))


def test_a_prior_is_traced_with_the_rest(compiled_backend: Backend) -> None:
    case = Case("sample_kl", (5, 7), free_bits=0.3, balance=0.8, return_dims=True, **PRIORS)
    arguments = tensors(case)

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(arguments, given, strict=True))
        return tuple(check.call(case, named, compiled_backend.name).values())

    traced = torch.jit.trace(function, tuple(arguments.values()))
    others = [torch.randn_like(t).requires_grad_() for t in arguments.values()]
    got, want = (with_gradients(f, others, others) for f in (traced, function))
    torch.testing.assert_close(got, want)
