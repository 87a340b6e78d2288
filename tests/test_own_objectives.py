"""Objectives that are not the package's: that of docs/objectives.md, and some with less or more."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from vae_fast import FusedVAE, VAEOutput
from vae_fast.objectives import ELBO, IWAE, Objective, ObjectiveState

DOCUMENT = Path(__file__).parents[1] / "docs" / "objectives.md"
X = torch.linspace(-2, 2, 60).sin().reshape(10, 6)


def documented() -> Any:
    """The class that the document shows."""
    (block,) = (b for b in re.findall("```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
                if "(Objective)" in b)  # fmt: skip
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 30
    module = sys.modules["documented"] = ModuleType("documented")  # where the compiler looks
    exec(block, vars(module))
    return module.Renyi


Renyi = documented()


def vae(objective: Any, **options: Any) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(6, 2, (8,), objective=objective, **options)


def gradients(model: FusedVAE, loss: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(model.parameters()))


def test_the_documented_one_is_the_importance_weighted_bound_at_0(backend: Any) -> None:
    mine, known = (vae(o, backend=backend.name) for o in (Renyi(5, 0.0), IWAE(5)))
    for model in (mine, known):
        model.to(backend.device)
    x = X.to(backend.device)
    got, want = mine(x, seed=3), known(x, seed=3)
    torch.testing.assert_close(tuple(got), tuple(want))
    torch.testing.assert_close(gradients(mine, got.loss), gradients(known, want.loss))


def test_it_goes_to_the_elbo_at_1() -> None:
    rows = X.repeat(2000, 1)
    with torch.no_grad():
        near = vae(Renyi(2, 0.999), backend="cpu")(rows, seed=3).loss
        elbo = vae(ELBO(2), backend="cpu")(rows, seed=3).loss
    torch.testing.assert_close(near, elbo, rtol=2e-3, atol=0)


def test_a_model_with_it_is_one_like_any_other() -> None:
    model = vae(Renyi(alpha=0.3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(200):
        loss = model(X, seed=step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert sum(losses[-20:]) < sum(losses[:20]) - 10
    assert model.num_samples == 8
    model.num_samples = 3
    assert model.objective == Renyi(3, 0.3)
    assert not hasattr(model, "beta")
    assert "objective=Renyi(num_samples=3, alpha=0.3)" in repr(model) and "beta" not in repr(model)
    model.set_step(7)
    assert model.sample(4).shape == (4, 6) and model.log_likelihood(X, 10).shape == (10,)
    other = vae(Renyi(3, 0.3))
    other.load_state_dict(model.state_dict())
    for each in (other, copy.deepcopy(model)):
        assert torch.equal(each(X, seed=1).loss, model(X, seed=1).loss)


def test_compiled() -> None:
    model = vae(Renyi())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    seed = torch.tensor(3)
    got, want = compiled(X, seed).loss, model(X, seed).loss
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(model, got), gradients(model, want))


class Counted(ObjectiveState):
    """Counts the batches, in the model's state."""

    def __init__(self) -> None:
        super().__init__(beta=2.0)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))


@dataclasses.dataclass(frozen=True)
class Counting(Objective):
    """With a state, and a model that it refuses."""

    def __call__(self, model, x, seed=None, eps=None, row_offset=0) -> VAEOutput:
        model.objective_state.batches += 1
        return ELBO()(model, x, seed, eps, row_offset)

    def check_model(self, latent_shape, prior_learns, decoder_variance) -> None:
        if decoder_variance == "fixed":
            raise ValueError("counting needs a variance")

    def make_state(self, latent_shape) -> ObjectiveState:
        return Counted()


def test_its_state_is_the_models() -> None:
    model = vae(Counting())
    for _ in range(3):
        out = model(X, seed=1)
    assert model.state_dict()["objective_state.batches"] == 3
    assert model.beta == 2.0
    torch.testing.assert_close(out.loss, 2 * out.kl.mean() - out.log_likelihood.mean())
    with pytest.raises(ValueError, match="counting needs a variance"):
        vae(Counting(), decoder_variance="fixed")
    with pytest.raises(TypeError, match="beta"):
        model.beta = 0.5
    assert pickle.loads(pickle.dumps(model)).state_dict()["objective_state.batches"] == 3


class Foreign:
    """Derives from nothing, and is no dataclass."""

    def __call__(self, model, x, seed=None, eps=None, row_offset=0) -> VAEOutput:
        return ELBO()(model, x, seed, eps, row_offset)

    def check_model(self, latent_shape, prior_learns, decoder_variance) -> None:
        pass

    def make_state(self, latent_shape) -> ObjectiveState:
        return ObjectiveState(1.0)


def test_one_that_derives_from_nothing() -> None:
    model = vae(Foreign())
    assert torch.equal(model(X, seed=1).loss, vae(None)(X, seed=1).loss)
    assert not hasattr(model, "num_samples")
    with pytest.raises(TypeError, match="num_samples can be set of an objective that is a datacl"):
        model.num_samples = 3


@dataclasses.dataclass(frozen=True)
class Delegating(Objective):
    """Takes the loss of an objective whose state the model has not."""

    inner: Objective
    beta: float = 1.0

    def __call__(self, model, x, seed=None, eps=None, row_offset=0) -> VAEOutput:
        return self.inner(model, x, seed, eps, row_offset)


@pytest.mark.parametrize("inner", [ELBO(), ELBO(capacity=3.0), IWAE(2)])
def test_the_state_of_another_objective_is_refused(inner: Objective) -> None:
    model = vae(Delegating(inner))
    with pytest.raises(ValueError, match=r"objective_state must be .* make_state returns"):
        model(X)
    with pytest.raises(ValueError, match="it has no beta"):
        model.beta = 2.0


class WithoutCapacity(Delegating):
    """Its state has a β, and no capacity."""

    def make_state(self, latent_shape) -> ObjectiveState:
        return ObjectiveState(1.0)


def test_a_capacity_that_the_state_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no capacity"):
        vae(WithoutCapacity(ELBO(capacity=3.0)))(X)


class Unfinished(Objective):
    """Says no loss."""


@pytest.mark.parametrize("wrong", ["elbo", 3, ELBO, lambda model, x: x])
def test_what_is_no_objective(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"objective must be an Objective, .*; got "):
        vae(wrong)


def test_an_objective_without_a_loss_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Unfinished()  # type: ignore[abstract]
