"""torch.compile: whole graphs, right values and gradients, and nothing that compiles twice."""

from __future__ import annotations

import check
import pytest
import torch
from cases import ARGUMENTS, Case, given_noise, priors, tensors, upstream
from conftest import Backend
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend

import vae_fast.functional as F
from vae_fast import FusedVAE
from vae_fast.autograd import halves

OPS = tuple(ARGUMENTS)
PRIORS = {"prior_mean": "full", "prior_logvar": "event"}


class Counter:
    """A compiler backend that counts the graphs it is given. ``aot_eager`` traces all that
    inductor would, backward pass and shapes included, and generates no code."""

    def __init__(self, inner: str = "aot_eager") -> None:
        self.inner, self.graphs = lookup_backend(inner), 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]):
        self.graphs += any(node.op == "call_function" for node in graph.graph.nodes)
        return self.inner(graph, inputs)


# Tracing an autograd.Function, torch makes an object of it, and warns that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def compile_whole(function, counter: Counter | None = None, **options):
    return torch.compile(function, fullgraph=True, backend=counter or Counter(), **options)


def with_gradients(function, case: Case, device: str) -> dict[str, Tensor]:
    arguments = tensors(case, device)
    outputs = function(arguments)
    gradients = check.differentiate(outputs, arguments, upstream(case, outputs))
    return {name: t.detach() for name, t in outputs.items()} | {
        f"grad {name}": gradient for name, gradient in gradients.items()
    }


def assert_alike(case: Case, compiled, backend: Backend) -> None:
    """As in eager mode. In half precision one result may be rounded once more than the other."""
    eager = with_gradients(lambda a: check.call(case, a, backend.name), case, backend.device)
    got = with_gradients(compiled, case, backend.device)
    for name, want in eager.items():
        eps = torch.finfo(want.dtype).eps
        tolerance = {"rtol": 8 * eps, "atol": 8 * eps * want.abs().max().item()}
        torch.testing.assert_close(got[name], want, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def compiled_call(case: Case, backend: Backend, counter: Counter):
    eps = given_noise(case, backend.device) if case.noise == "eps" else None
    return compile_whole(lambda a: check.call(case, a, backend.name, eps), counter)


COMPILED = [
    *(Case(op, (5, 7), dtype=dtype, **(PRIORS if priors(op) else {}))
      for op in OPS for dtype in (torch.float32, torch.bfloat16)),
    Case("sample_kl", (5, 7), free_bits=0.3, balance=0.8, return_dims=True, **PRIORS),
    Case("gaussian_kl", (5, 7), free_bits=0.3, balance=0.8),
    Case("squared_error", (5, 7), num_samples=2, differentiate=("mean",)),
    Case("sample_log_weights", (5, 7), num_samples=2, sample_offset=3, estimator="stl"),
    Case("sample_log_weights", (5, 7), num_samples=2, noise="eps", estimator="dreg", **PRIORS),
    Case("sample_log_weights", (5, 7), num_samples=2, estimator="dreg", upstream=("z",)),
    Case("importance_weighted_elbo", (7,), num_samples=5, dtype=torch.float16),
    Case("score_function", (5, 7), num_samples=2, logvar="event"),
    Case("sample_kl", (4, 3, 5), event_dims=1, num_samples=2),
    Case("sample_kl", (5, 7), noise="eps", logvar="event"),
    Case("gaussian_log_likelihood", (5, 7), logvar=None, num_samples=2),
    Case("gaussian_log_likelihood", (5, 7), logvar="scalar", differentiate=("logvar",)),
    Case("negative_elbo", (5, 7), logvar="scalar", reduction="sum", beta=0.5,
         differentiate=("mean", "logvar", "kl")),
    Case("negative_elbo", (5, 7), logvar=None, reduction="none", num_samples=3),
    Case("negative_elbo", (5, 7), dtype=torch.float16, differentiate=("mean",)),
    Case("gaussian_kl", (4, 6, 5), layout="transposed", logvar="channel"),
    *(Case(op, (5, 1, 8, 8), logvar="plane", **dict.fromkeys(priors(op), "plane")) for op in OPS
      if "logvar" in ARGUMENTS[op]),
]  # fmt: skip


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: f"{case.op}-{case}")
def test_each_op(case: Case, backend: Backend) -> None:
    counter = Counter()
    assert_alike(case, compiled_call(case, backend, counter), backend)
    assert counter.graphs == 1


@pytest.mark.parametrize("op", OPS)
def test_dynamic_shapes(op: str, backend: Backend) -> None:
    """One graph serves every batch and event size."""
    counter = Counter()

    def function(arguments: dict[str, Tensor | None]) -> dict[str, Tensor]:
        return check.call(Case(op, (5, 7)), arguments, backend.name)

    compiled = compile_whole(function, counter, dynamic=True)
    assert_alike(Case(op, (5, 7)), compiled, backend)
    once = counter.graphs  # torch 2.11 traces its first call twice
    for shape in ((9, 4), (33, 65)):
        assert_alike(Case(op, shape), compiled, backend)
    assert counter.graphs == once


@pytest.mark.parametrize("op", ["sample_kl", "gaussian_log_likelihood"])
def test_halves_of_one_tensor_compile_once(
    op: str, compiled_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their size: that from which eager code joins their gradients itself is no guard."""
    monkeypatch.setattr(halves, "SMALLEST", 1000)

    def loss(parameters: Tensor) -> Tensor:
        mean, logvar = parameters.chunk(2, 1)
        given = (mean.detach(), mean, logvar) if op == "gaussian_log_likelihood" else (mean, logvar)
        made = getattr(F, op)(*given, backend=compiled_backend.name)
        return made.sum() if isinstance(made, Tensor) else made[1].sum()

    counter = Counter()
    compiled = compile_whole(loss, counter, dynamic=True)
    graphs = []
    for rows in (5, 60, 7):
        parameters = torch.randn(rows, 10, requires_grad=True)
        (got,) = torch.autograd.grad(compiled(parameters), parameters)
        (want,) = torch.autograd.grad(loss(parameters), parameters)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
        graphs.append(counter.graphs)
    assert len(set(graphs)) == 1


def test_noise(backend: Backend) -> None:
    def make(seed: Tensor, like: Tensor) -> Tensor:
        return F.noise(like.shape, seed=seed, num_samples=2, dtype=torch.float32,
                       device=like.device, backend=backend.name)  # fmt: skip

    compiled = compile_whole(make)
    like = torch.zeros(5, 7, device=backend.device)
    for seed in (0, 7, -1):
        tensor = torch.tensor(seed, device=backend.device)
        assert torch.equal(compiled(tensor, like), make(tensor, like))


def test_seed_tensors_never_compile_again(backend: Backend) -> None:
    counter = Counter()
    mean = torch.zeros(5, 7, device=backend.device)
    draw = compile_whole(
        lambda s: F.sample_kl(mean, mean, seed=s, backend=backend.name)[0], counter
    )
    for seed in (0, 1, 2, 2**40, -1, -(2**63)):
        z = draw(torch.tensor(seed, device=backend.device))
        eager = F.sample_kl(mean, mean, seed=seed % 2**64, backend=backend.name)[0]
        torch.testing.assert_close(z, eager, rtol=1e-6, atol=1e-6)
    assert counter.graphs == 1


@pytest.mark.parametrize("op", ["sample_log_weights", "score_function"])
def test_no_seed_or_baseline_compiles_an_estimator_again(op: str, backend: Backend) -> None:
    """Value and gradients are those of eager calls with each seed."""
    mean, logvar = (torch.randn(5, 7, device=backend.device) for _ in "ab")

    def log_weights(leaf: Tensor, seed: Tensor, _: Tensor) -> Tensor:
        options = {"num_samples": 3, "estimator": "dreg", "backend": backend.name}
        _, ratio = F.sample_log_weights(leaf, logvar, seed=seed, **options)
        return F.importance_weighted_elbo(ratio, backend=backend.name)[0].sum()

    def score(leaf: Tensor, seed: Tensor, baseline: Tensor) -> Tensor:
        signal = leaf.detach().sum(1)
        return F.score_function(
            signal, leaf, logvar, baseline=baseline, seed=seed, backend=backend.name
        ).sum()

    function = log_weights if op == "sample_log_weights" else score
    counter = Counter()
    compiled = compile_whole(function, counter)
    for number in (0, 5, -1):
        seed = torch.tensor(number, device=backend.device)
        made = []
        for call in (compiled, function):
            leaf = mean.clone().requires_grad_()
            value = call(leaf, seed, torch.full((), 0.1 * number, device=backend.device))
            made.append((value.detach(), *torch.autograd.grad(value, leaf)))
        torch.testing.assert_close(*made, rtol=1e-5, atol=1e-5)
    assert counter.graphs == 1


def test_python_seeds_compile_at_most_twice(backend: Backend) -> None:
    """The first is taken for a constant, the second makes it a variable."""
    counter = Counter()
    mean = torch.zeros(5, 7, device=backend.device)
    draw = compile_whole(
        lambda s: F.sample_kl(mean, mean, seed=s, backend=backend.name)[0], counter
    )
    for seed in (3, 4, 5, 2**31, 2**40, 2**63 - 1):
        eager = F.sample_kl(mean, mean, seed=seed, backend=backend.name)[0]
        torch.testing.assert_close(draw(seed), eager, rtol=1e-6, atol=1e-6)
    assert counter.graphs <= 2


def test_python_seeds_past_a_signed_word(backend: Backend) -> None:
    """No 64-bit signed integer holds them: they compile, each as it must."""
    mean = torch.zeros(5, 7, device=backend.device)
    draw = compile_whole(lambda s: F.sample_kl(mean, mean, seed=s, backend=backend.name)[0])
    for seed in (2**64 - 1, 2**63):
        eager = F.sample_kl(mean, mean, seed=seed, backend=backend.name)[0]
        torch.testing.assert_close(draw(seed), eager, rtol=1e-6, atol=1e-6)


def test_noise_is_drawn_anew_at_each_call(backend: Backend) -> None:
    """Compiled code has no seed built in, and draws those that eager code would."""
    mean = torch.zeros(5, 7, device=backend.device)

    def draw(mean: Tensor) -> Tensor:
        return F.sample_kl(mean, mean, backend=backend.name)[0]

    compiled = compile_whole(draw)
    torch.manual_seed(3)
    first, second = compiled(mean), compiled(mean)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(mean), first, rtol=0, atol=0)
    torch.manual_seed(3)
    torch.testing.assert_close(draw(mean), first, rtol=1e-6, atol=1e-6)
    two = compile_whole(lambda m: (draw(m), draw(m)))(mean)
    assert not torch.equal(*two)  # nor are two equal draws merged into one


def vae(backend: Backend, **options) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(12, 3, (8,), backend=backend.name, **options).to(backend.device)


def step(model, x: Tensor, parameters: list[Tensor], **options) -> tuple[Tensor, list[Tensor]]:
    loss = model(x, **options).loss
    return loss.detach(), list(torch.autograd.grad(loss, parameters))


def assert_steps_alike(model: FusedVAE, compiled, rows: tuple[int, ...], device: str) -> None:
    parameters = list(model.parameters())
    for count in rows:
        x = torch.randn(count, 12, device=device)
        seed = torch.tensor(count, device=device)
        got, want = (step(m, x, parameters, seed=seed) for m in (compiled, model))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@torch._dynamo.config.patch(error_on_recompile=True)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"decoder_variance": "shared", "num_samples": 3}, {"decoder_variance": "fixed"}],
    ids=str,
)
def test_the_model(options: dict, dynamic: bool, compiled_backend: Backend) -> None:
    model = vae(compiled_backend, **options)
    compiled = compile_whole(model, dynamic=dynamic)
    rows = (5, 8, 11) if dynamic else (5,)
    assert_steps_alike(model, compiled, rows, compiled_backend.device)


def test_the_model_on_the_reference() -> None:
    reference = Backend("reference", "cpu")
    model = vae(reference, decoder_variance="shared", num_samples=2)
    assert_steps_alike(model, compile_whole(model), (5,), reference.device)


@torch._dynamo.config.patch(error_on_recompile=True)
def test_neither_beta_nor_a_learning_step_compiles_the_model_again(backend: Backend) -> None:
    model = vae(backend, beta=1.0)
    compiled = compile_whole(model)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x = torch.randn(5, 12, device=backend.device)
    for index, beta in enumerate((1.0, 0.0, 0.5, 0.25, 2)):
        model.beta = beta
        seed = torch.tensor(index, device=backend.device)
        out, eager = compiled(x, seed=seed), model(x, seed=seed)
        torch.testing.assert_close(out.loss, eager.loss, rtol=1e-5, atol=1e-5)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_inductor(compiled_backend: Backend) -> None:
    """Code is generated around the ops, forward and backward, in the middle of other operations."""
    model = vae(compiled_backend, decoder_variance="shared", num_samples=2)
    compiled = torch.compile(model, fullgraph=True)
    assert_steps_alike(model, compiled, (5,), compiled_backend.device)
