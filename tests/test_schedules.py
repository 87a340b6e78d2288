"""Schedules: their values, and that a model follows them without being compiled again."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from vae_fast import FusedVAE
from vae_fast.objectives import ELBO, Constant, Cosine, Cyclical, FreeBits, Linear, Schedule


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(2), {0: 2.0, 10**9: 2.0}),
        (Linear(0.5, 1.5, 4), {0: 0.5, 1: 0.75, 2: 1.0, 4: 1.5, 10**9: 1.5}),
        (Linear(3, 1, 1), {0: 3.0, 1: 1.0}),
        (Cosine(1.0, 3.0, 4), {0: 1.0, 1: 2 - math.sqrt(0.5), 2: 2.0, 4: 3.0, 5: 3.0}),
        # Rises in the first half of each 8 steps, stays for the second, and begins again.
        (Cyclical(0.0, 1.0, 8), {0: 0.0, 1: 0.25, 4: 1.0, 7: 1.0, 8: 0.0, 10: 0.5, 8003: 0.75}),
        (Cyclical(0.0, 1.0, 8, cycles=2), {9: 0.25, 15: 1.0, 16: 1.0, 18: 1.0}),
        (Cyclical(1.0, 2.0, 4, ratio=1.0), {0: 1.0, 3: 1.75, 4: 1.0}),
    ],
    ids=str,
)
def test_values(schedule: Schedule, values: dict[int, float]) -> None:
    for step, value in values.items():
        found = schedule(step)
        assert isinstance(found, float) and found == pytest.approx(value, abs=1e-12), step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 1, 0), r"steps must be at least 1; got 0"),
        (lambda: Linear(0, 1, -3), r"steps .*-3"),
        (lambda: Linear(0, math.inf, 3), r"end must be finite.*inf"),
        (lambda: Linear(-1, 1, 3), r"start .*at least 0; got -1"),
        (lambda: Cosine(0, math.nan, 3), r"end .*nan"),
        (lambda: Cosine(0, 1, 0), r"steps .*0"),
        (lambda: Cyclical(0, 1, 0), r"period .*at least 1; got 0"),
        (lambda: Cyclical(0, 1, 4, cycles=0), r"cycles .*0"),
        (lambda: Cyclical(0, 1, 4, ratio=0), r"ratio must be above 0"),
        (lambda: Cyclical(0, 1, 4, ratio=1.5), r"ratio .*at most 1; got 1\.5"),
    ],
)
def test_what_a_schedule_refuses(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 1, 2.5), r"steps must be an int; got float"),
        (lambda: Cyclical(0, 1, True), r"period must be an int; got bool"),
        (lambda: Constant("1"), r"value must be a number; got str"),
        (lambda: Constant(True), r"value must be a number; got bool"),
    ],
)
def test_types_that_a_schedule_refuses(make, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def model(**options) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(12, 3, (8,), objective=ELBO(**options), backend="reference")


def test_a_model_follows_its_schedules() -> None:
    x = torch.randn(5, 12)
    followed = model(beta=Linear(0.0, 2.0, 10), capacity=Linear(0.0, 5.0, 5))
    assert followed.beta == 0
    for step, (beta, capacity) in {3: (0.6, 3.0), 7: (1.4, 5.0), 100: (2.0, 5.0)}.items():
        followed.set_step(step)
        assert followed.beta == pytest.approx(beta)
        out = followed(x, seed=1)
        want = beta * (out.kl.mean() - capacity).abs() - out.log_likelihood.mean()
        torch.testing.assert_close(out.loss.detach(), want)


def test_beta_set_by_hand_ends_the_schedule() -> None:
    followed = model(beta=Linear(0.0, 2.0, 10))
    followed.beta = 0.25
    followed.set_step(7)
    assert followed.beta == 0.25


def test_scheduled_values_survive_dtypes_and_copies() -> None:
    followed = model(beta=Linear(0.0, 1.0, 10))
    followed.set_step(1)
    assert followed.double().half().float().beta == 0.1
    assert followed.objective_state.beta.tensor.item() == 0.1
    for twin in (copy.deepcopy(followed), pickle.loads(pickle.dumps(followed))):
        twin.set_step(2)
        assert (twin.beta, followed.beta) == (0.2, 0.1)
    assert set(followed.state_dict()) == {name for name, _ in followed.named_parameters()}


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (-1, ValueError, "at least 0; got -1"),
        (1.5, TypeError, "an int; got float"),
        (True, TypeError, "an int; got bool"),
    ],
)
def test_steps_are_whole_numbers(step: object, error: type, message: str) -> None:
    for take in (model().set_step, Linear(0, 1, 5), Cyclical(0, 1, 5)):
        with pytest.raises(error, match=f"step must be {message}"):
            take(step)


def test_a_schedule_of_ones_own() -> None:
    class Halving(Schedule):
        def __call__(self, step: int) -> float:
            return 2.0 - step

    followed = model(beta=Halving())
    followed.set_step(1)
    assert followed.beta == 1
    with pytest.raises(ValueError, match=r"beta must be finite and at least 0; got -1"):
        followed.set_step(3)
    assert followed.beta == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tracing an autograd.Function
@torch._dynamo.config.patch(error_on_recompile=True)
@pytest.mark.parametrize(
    "options",
    [
        {"capacity": Linear(0.0, 5.0, 5)},
        {"free_bits": FreeBits(0.1)},
        {"estimator": "score_function", "num_samples": 2},
    ],
    ids=str,
)
def test_a_compiled_model_is_not_compiled_again(options: dict) -> None:
    torch._dynamo.reset()
    followed = model(beta=Cyclical(0.0, 1.0, 4), **options)
    compiled = torch.compile(followed, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 12)
    for step in range(6):
        followed.set_step(step)
        seed = torch.tensor(step)
        out, eager = compiled(x, seed=seed), followed(x, seed=seed)
        torch.testing.assert_close(out.loss, eager.loss, rtol=1e-5, atol=1e-5)
        out.loss.backward()
