"""``split_parameters``: the values of ``chunk``, and a gradient that nobody has to put together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import Backend, Dispatching
from packed_cases import are_halves
from packed_uses import OPS, Use, leaf, sampled, uses, weighted
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import vae_fast.functional as F
from vae_fast import FusedVAE
from vae_fast.autograd import halves


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "SMALLEST", 0)


def chunked(parameters: Tensor, use: Use, dim: int = 1) -> Tensor:
    """The gradient that plain ``chunk`` joins from two contiguous ones."""
    other = parameters.detach().clone().requires_grad_()
    mean, logvar = other.chunk(2, dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halves, "SMALLEST", 1 << 60)
        use(mean, logvar).backward()
    return other.grad


def run(parameters: Tensor, use: Use, dim: int = 1) -> bool:
    """Makes ``.grad``; whether it is where the op has written the gradients of the halves."""
    places: list[int] = []
    mean, logvar = F.split_parameters(parameters, dim)
    for half in (mean, logvar):
        half.register_hook(lambda gradient: places.append(gradient.data_ptr()))
    use(mean, logvar).backward()
    start = parameters.grad.data_ptr()
    step = parameters.grad.stride(dim) * parameters.shape[dim] // 2 * parameters.itemsize
    return sorted(places) == [start, start + step]


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_values_are_those_of_chunk(dim: int) -> None:
    parameters = torch.randn(4, 6, 8)
    for tensor in (parameters, parameters.clone().requires_grad_(), parameters.transpose(0, 2)):
        for half, want in zip(F.split_parameters(tensor, dim), tensor.chunk(2, dim), strict=True):
            assert half.is_set_to(want) and half.requires_grad == tensor.requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, 2.0],), TypeError, "parameters must be a torch.Tensor; got list"),
        ((torch.ones(2, 4, dtype=torch.int64),), TypeError, "parameters must be float64"),
        ((torch.ones(2, 5),), ValueError, r"even size along dimension 1, .* got shape \(2, 5\)"),
        ((torch.ones(()), 0), ValueError, "at least one dimension; got none"),
        ((torch.ones(4),), ValueError, "dim must be at least -1 and at most 0; got 1"),
        ((torch.ones(2, 4), -3), ValueError, "dim must be at least -2 and at most 1; got -3"),
        ((torch.ones(2, 4), 1.0), TypeError, "dim must be an int; got float"),
    ],
)
def test_what_cannot_be_cut(arguments, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.split_parameters(*arguments)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "shape", [(6, 10), (6, 4, 5, 3), (3, 2 * 1030)], ids=lambda shape: "x".join(map(str, shape))
)
def test_the_gradient_is_not_copied(op: str, shape: tuple[int, ...], backend: Backend) -> None:
    parameters, use = leaf(*shape, device=backend.device), uses(backend.name)[op]
    assert run(parameters, use) == (backend.name != "reference")
    assert torch.equal(parameters.grad, chunked(parameters, use))
    assert parameters.grad.is_contiguous() and not parameters.grad._is_view()


def test_nothing_is_joined(compiled_backend: Backend) -> None:
    def names(split: Callable[[Tensor, int], tuple[Tensor, ...]]) -> set[str]:
        loss = sampled("cpu")(*split(leaf(6, 10), 1))
        with torch.profiler.profile() as profile:
            loss.backward()
        return {event.key for event in profile.key_averages()}

    assert "aten::cat" not in names(F.split_parameters)
    assert "aten::cat" in names(lambda parameters, dim: parameters.chunk(2, dim))


def test_along_other_dimensions(compiled_backend: Backend) -> None:
    for shape, dim, dims in (((4, 5, 6), 2, 1), ((4, 5, 6), -1, 1), ((4, 3, 6, 2), 2, 2)):
        parameters, use = leaf(*shape), sampled("cpu", event_dims=dims)
        assert run(parameters, use, dim)
        assert torch.equal(parameters.grad, chunked(parameters, use, dim))
    # Halves of the batch, of a dimension behind the event's first, and of all but whole rows.
    for shape, dim, dims in (((4, 6), 0, 1), ((4, 5, 6), 2, 2), ((4, 6, 5), 1, 1)):
        parameters, use = leaf(*shape), sampled("cpu", event_dims=dims)
        assert not run(parameters, use, dim)
        assert torch.equal(parameters.grad, chunked(parameters, use, dim))


def test_rows_of_samples(backend: Backend) -> None:
    """As a decoder returns them: cut first, then in shape."""

    def use(mean: Tensor, logvar: Tensor) -> Tensor:
        mean, logvar = (half.unflatten(0, (2, 3)) for half in (mean, logvar))
        x, kl = torch.ones(3, 5, device=backend.device), torch.ones(3, device=backend.device)
        return F.negative_elbo(x, mean, logvar, kl, backend=backend.name)

    parameters = leaf(6, 10, device=backend.device)
    assert run(parameters, use) == (backend.name != "reference")
    assert torch.equal(parameters.grad, chunked(parameters, use))


def twice(mean: Tensor, logvar: Tensor) -> Tensor:
    return sampled("cpu")(mean, logvar) + sampled("cpu")(mean, logvar.detach())


def between(mean: Tensor, logvar: Tensor) -> Tensor:
    return sampled("cpu")(mean, logvar * 1.5)


def mean_alone(mean: Tensor, logvar: Tensor) -> Tensor:
    return sampled("cpu")(mean, logvar.detach())


def shared(mean: Tensor, logvar: Tensor) -> Tensor:
    return sampled("cpu")(mean, logvar[:1])


def unequal(mean: Tensor, logvar: Tensor) -> Tensor:
    return sampled("cpu")(logvar, mean)


def two_ops(mean: Tensor, logvar: Tensor) -> Tensor:
    return sampled("cpu")(mean, logvar) + uses("cpu")["gaussian_kl"](mean, logvar)


@pytest.mark.parametrize("use", [twice, between, mean_alone, shared, unequal, two_ops])
def test_gradients_that_are_not_halves_are_joined(use: Use, compiled_backend: Backend) -> None:
    parameters = leaf(6, 10)
    mean, logvar = F.split_parameters(parameters)
    use(mean, logvar).backward()
    assert torch.equal(parameters.grad, chunked(parameters, use))


@pytest.mark.parametrize("name", ["z", "kl"])
def test_one_output_alone(name: str, compiled_backend: Backend) -> None:
    def use(mean: Tensor, logvar: Tensor) -> Tensor:
        z, kl = F.sample_kl(mean, logvar, seed=7, backend="cpu")
        return weighted({"z": z, "kl": kl}[name])

    parameters = leaf(6, 10)
    assert run(parameters, use)
    assert torch.equal(parameters.grad, chunked(parameters, use))


@pytest.mark.parametrize("name", ["mean", "logvar"])
def test_a_half_that_is_not_used_has_the_gradient_zero(name: str) -> None:
    parameters = leaf(6, 10)
    half = dict(zip(("mean", "logvar"), F.split_parameters(parameters), strict=True))[name]
    weighted(half).backward()
    used, other = parameters.grad.chunk(2, 1)[:: 1 if name == "mean" else -1]
    assert used.all() and not other.any()


def test_with_a_prior(backend: Backend) -> None:
    prior = leaf(5, device=backend.device), leaf(6, 5, device=backend.device)
    use = sampled(backend.name, prior_mean=prior[0], prior_logvar=prior[1])
    parameters = leaf(6, 10, device=backend.device)
    assert run(parameters, use) == (backend.name != "reference")
    made = [tensor.grad.clone() for tensor in prior]
    for tensor in prior:
        tensor.grad = None
    assert torch.equal(parameters.grad, chunked(parameters, use))
    assert all(torch.equal(*pair) for pair in zip(made, (t.grad for t in prior), strict=True))


@pytest.mark.parametrize("op", ["sample_kl", "score_function", "negative_elbo"])
def test_beside_float64_gradients_are_those_of_the_halves(op: str, backend: Backend) -> None:
    """A float32 mean that is computed with in float64, and perhaps converted first."""
    wide = torch.linspace(-1, 1, 30, dtype=torch.float64, device=backend.device).view(6, 5)

    def use(mean: Tensor, logvar: Tensor, name: str | None = backend.name) -> Tensor:
        if op == "sample_kl":
            z, kl = F.sample_kl(mean, logvar, prior_mean=wide, seed=7, backend=name)
            return weighted(z, kl)
        if op == "score_function":
            signal = wide[:, 0].clone().requires_grad_()
            return weighted(F.score_function(signal, mean, logvar, seed=7, backend=name))
        return 3 * F.negative_elbo(wide, mean, logvar, wide[:, 0], backend=name)

    parameters = leaf(6, 10, device=backend.device)
    run(parameters, use)
    want = chunked(parameters, lambda mean, logvar: use(mean, logvar, "reference"))
    torch.testing.assert_close(parameters.grad, want, rtol=1e-5, atol=1e-5)


def test_a_hook_may_replace_a_gradient(compiled_backend: Backend) -> None:
    def use(mean: Tensor, logvar: Tensor) -> Tensor:
        logvar.register_hook(lambda gradient: 2 * gradient)
        return sampled("cpu")(mean, logvar)

    parameters = leaf(6, 10)
    use(*F.split_parameters(parameters)).backward()
    assert torch.equal(parameters.grad, chunked(parameters, use))


def test_a_hook_may_return_what_only_looks_like_a_half(compiled_backend: Backend) -> None:
    """Of the same memory and place, but with the negated values."""

    def use(mean: Tensor, logvar: Tensor) -> Tensor:
        logvar.register_hook(torch._neg_view)
        return sampled("cpu")(mean, logvar)

    parameters = leaf(6, 10)
    use(*F.split_parameters(parameters)).backward()
    assert torch.equal(parameters.grad, chunked(parameters, use))


def test_kept_gradients_of_the_halves_are_copies(compiled_backend: Backend) -> None:
    parameters = leaf(6, 10)
    mean, logvar = F.split_parameters(parameters)
    mean.retain_grad()
    logvar.retain_grad()
    sampled("cpu")(mean, logvar).backward()
    want = parameters.grad.clone()
    parameters.grad.zero_()
    assert torch.equal(torch.cat((mean.grad, logvar.grad), 1), want)


def test_gradients_of_halves_and_whole_at_once(compiled_backend: Backend) -> None:
    parameters = leaf(6, 10)
    mean, logvar = F.split_parameters(parameters)
    loss = sampled("cpu")(mean, logvar)
    *apart, whole = torch.autograd.grad(loss, (mean, logvar, parameters))
    assert torch.equal(torch.cat(apart, 1), whole)
    assert torch.equal(whole, chunked(parameters, sampled("cpu")))


def test_gradients_add_up(backend: Backend) -> None:
    parameters, use = leaf(6, 10, device=backend.device), uses(backend.name)["negative_elbo"]
    kept: list[Tensor] = []
    for _ in range(2):
        assert parameters.grad is not None or run(parameters, use) or backend.name == "reference"
        kept.append(parameters.grad.clone())
        use(*F.split_parameters(parameters)).backward()
    once = chunked(parameters, use)
    torch.testing.assert_close(kept[0], once)
    torch.testing.assert_close(parameters.grad, 3 * once)


@pytest.mark.parametrize("op", OPS)
def test_a_retained_graph(op: str, backend: Backend) -> None:
    """What the first backward pass has handed over, the second neither reads nor writes."""
    parameters = leaf(6, 10, device=backend.device)
    loss = uses(backend.name)[op](*F.split_parameters(parameters))
    first = torch.autograd.grad(loss, parameters, retain_graph=True)[0]
    want = first.clone()
    first.zero_()
    second = torch.autograd.grad(loss, parameters, retain_graph=True)[0]
    torch.testing.assert_close(second, want)
    assert not first.any() and not are_halves(first, second)


@pytest.mark.parametrize("op", ["sample_kl", "negative_elbo"])
def test_a_gradient_that_is_differentiated_again(op: str, compiled_backend: Backend) -> None:
    """It is the same, and its derivative is that of the plain formulas."""
    parameters = leaf(6, 10)
    seconds = []
    for name in ("cpu", "reference"):
        loss = uses(name)[op](*F.split_parameters(parameters)) ** 2
        (first,) = torch.autograd.grad(loss, parameters, create_graph=True)
        torch.testing.assert_close(
            first.detach(), chunked(parameters, lambda *both: uses("cpu")[op](*both) ** 2)
        )
        seconds.append(torch.autograd.grad(first.sum(), parameters)[0])
    assert seconds[0].any()
    torch.testing.assert_close(*seconds, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_second_derivatives(name: str) -> None:
    parameters = leaf(3, 4, dtype=torch.float64)
    use = sampled(name)
    assert torch.autograd.gradgradcheck(lambda p: use(*F.split_parameters(p)), [parameters])


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant: bool, compiled_backend: Backend) -> None:
    parameters = leaf(6, 10)

    def loss(given: Tensor) -> Tensor:
        return sampled("cpu")(*F.split_parameters(given * 1))

    checkpoint(loss, parameters, use_reentrant=reentrant).backward()
    assert torch.equal(parameters.grad, chunked(parameters, sampled("cpu")))


def test_autocast(compiled_backend: Backend) -> None:
    layer = torch.nn.Linear(7, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parameters = layer(torch.randn(6, 7))
        assert parameters.dtype is torch.bfloat16
        parameters.retain_grad()
        sampled("cpu")(*F.split_parameters(parameters)).backward()
    assert torch.equal(parameters.grad, chunked(parameters, sampled("cpu")))


def is_plain(parameters: Tensor) -> bool:
    return "SplitParameters" not in type(F.split_parameters(parameters)[0].grad_fn).__name__


def test_where_chunk_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Marked(Tensor):
        pass

    parameters = leaf(6, 10)
    assert not is_plain(parameters)
    assert is_plain(leaf(10, 6).t()) and is_plain(parameters.detach())
    assert is_plain(parameters.detach().as_subclass(Marked).requires_grad_())
    with torch.no_grad():
        assert is_plain(parameters)
    with Dispatching():
        assert is_plain(parameters)
    monkeypatch.setattr(halves, "SMALLEST", 241)
    assert is_plain(parameters) and not is_plain(leaf(6, 12))


def test_small_gradients_are_apart(
    monkeypatch: pytest.MonkeyPatch, compiled_backend: Backend
) -> None:
    monkeypatch.setattr(halves, "SMALLEST", 241)
    assert not run(leaf(6, 10), sampled("cpu")) and run(leaf(6, 12), sampled("cpu"))


def test_dispatched_callers(compiled_backend: Backend) -> None:
    parameters = leaf(6, 10)
    with Dispatching():
        loss = sampled("cpu")(*F.split_parameters(parameters))
    loss.backward()
    assert torch.equal(parameters.grad, chunked(parameters, sampled("cpu")))


def test_compiled_callers(compiled_backend: Backend) -> None:
    use, parameters = sampled("cpu"), leaf(6, 10)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(given: Tensor) -> Tensor:
        return use(*F.split_parameters(given))

    for rows in (6, 7, 8):
        parameters = leaf(rows, 10)
        loss(parameters).backward()
        assert torch.equal(parameters.grad, chunked(parameters, use))


def test_function_transforms() -> None:
    def loss(given: Tensor) -> Tensor:
        return sampled(None)(*F.split_parameters(given))

    parameters = leaf(6, 10, dtype=torch.float64)
    want = chunked(parameters, sampled("reference"))
    torch.testing.assert_close(torch.func.grad(loss)(parameters.detach()), want)
    mapped = torch.func.vmap(F.split_parameters)(parameters.detach()[None])
    assert all(map(torch.equal, mapped, (h[None] for h in parameters.chunk(2, 1))))


def test_networks_that_return_one_tensor(
    monkeypatch: pytest.MonkeyPatch, compiled_backend: Backend
) -> None:
    """The encoder's gradient and the decoder's, of samples too, are as the ops have made them."""
    model = FusedVAE(
        (5,), 3, encoder=torch.nn.Linear(5, 6), decoder=torch.nn.Linear(3, 10), num_samples=2,
        backend="cpu",
    )  # fmt: skip
    x = torch.randn(6, 5)
    with torch.profiler.profile() as profile:
        model(x, seed=1).loss.backward()
    assert "aten::cat" not in {event.key for event in profile.key_averages()}
    made = [p.grad.clone() for p in model.parameters()]
    monkeypatch.setattr(halves, "SMALLEST", 1 << 60)
    model.zero_grad()
    model(x, seed=1).loss.backward()
    for gradient, p in zip(made, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad)
