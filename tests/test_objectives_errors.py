"""What objectives and models with them refuse, saying what was expected and what it got."""

from __future__ import annotations

import pytest

from vae_fast import FusedVAE, GaussianPrior
from vae_fast.objectives import ELBO, IWAE, FreeBits, Linear


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ELBO(0), r"num_samples must be at least 1; got 0"),
        (lambda: ELBO(estimator="dreg"), r"estimator .*'score_function', 'stl'; got 'dreg'"),
        (lambda: ELBO(beta=-1), r"beta .*-1"),
        (lambda: ELBO(capacity=-2.0), r"capacity .*-2"),
        (lambda: ELBO(balance=1.5), r"balance .*at most 1; got 1\.5"),
        (lambda: ELBO(free_bits=FreeBits(1.0), capacity=2.0), r"at most one of free_bits and cap"),
        (lambda: ELBO(baseline="batch_mean"), r"needs estimator='score_function'; got"),
        (lambda: ELBO(1, "score_function", baseline="leave_one_out"), r"num_samples of at least 2"),
        (lambda: ELBO(1, "score_function", baseline="mean"), r"baseline .*'auto'.*got 'mean'"),
        (lambda: ELBO(estimator="stl", free_bits=FreeBits(1.0)), r"'stl' samples it.*free_bits"),
        (lambda: ELBO(estimator="stl", capacity=3.0), r"only beta may be given; got capacity"),
        (lambda: IWAE(3, free_bits=FreeBits(1.0)), r"IWAE samples it.*got free_bits"),
        (lambda: IWAE(3, capacity=1.0, balance=0.5), r"IWAE samples it.*got capacity, balance"),
        (lambda: IWAE(0), r"num_samples .*0"),
        (lambda: IWAE(2, "score_function"), r"estimator .*'dreg'.*'score_function'"),
        (lambda: IWAE(2, "dreg", beta=0.5), r"beta must be 1 for estimator='dreg'; got 0\.5"),
        (lambda: IWAE(2, "dreg", beta=Linear(0.0, 1.0, 9)), r"beta must be 1 .*Linear"),
        (lambda: FreeBits(-1.0), r"nats .*-1"),
        (lambda: FreeBits(1.0, per="column"), r"per must be one of 'dimension'.*'column'"),
        (lambda: FreeBits(1.0, per="group"), r"groups must be given with per='group'"),
        (lambda: FreeBits(1.0, groups={"a": [0]}), r"groups must be given with per='group'"),
    ],
)
def test_what_an_objective_refuses(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ELBO(True), r"num_samples must be an int; got bool"),
        (lambda: IWAE(2.0), r"num_samples must be an int; got float"),
        (lambda: ELBO(beta="linear"), r"beta must be a number; got str"),
        (lambda: ELBO(capacity=True), r"capacity must be a number; got bool"),
        (lambda: ELBO(balance="half"), r"balance must be a number; got str"),
        (lambda: ELBO(free_bits=0.5), r"free_bits must be a FreeBits or None; got 0\.5"),
        (lambda: FreeBits(None), r"nats must be a number; got NoneType"),
        (lambda: FreeBits(1.0, "group", [[0, 1]]), r"groups must be a mapping; got list"),
        (lambda: FreeBits(1.0, "group", {"a": 0}), r"groups must hold .*got int for 'a'"),
        (lambda: FreeBits(1.0, "group", {"a": [0.5]}), r"groups\['a'\] must be an int; got float"),
    ],
)
def test_types_that_an_objective_refuses(make, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def groups(**of: list[int]) -> dict:
    return {"objective": ELBO(free_bits=FreeBits(1.0, per="group", groups=of))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": ELBO(), "beta": 2.0},
            r"beta and num_samples must be given to the obj.*2\.0",
        ),
        ({"objective": IWAE(3), "num_samples": 3}, r"given to the objective.*num_samples=3"),
        ({"objective": ELBO(balance=0.5)}, r"balance needs a prior that learns"),
        (
            {"objective": ELBO(balance=0.5), "prior": GaussianPrior(4, learned=False)},
            r"balance needs a prior that learns",
        ),
        (groups(a=[0, 1]), r"once; missing are \[2, 3\], twice or out of range \[\]"),
        (groups(a=[0, 1, 2], b=[2, 3]), r"missing are \[\], twice or out of range \[2\]"),
        (groups(a=[0, 1, 2, 3, 4]), r"twice or out of range \[4\]"),
        (groups(a=[0, 1, 2, -1]), r"missing are \[3\], twice or out of range \[-1\]"),
        ({"objective": IWAE(3), "decoder_variance": "optimal"}, r"'optimal'.*IWAE"),
        (
            {"objective": ELBO(2, "score_function"), "decoder_variance": "optimal"},
            r"'optimal'.*score_function",
        ),
    ],
)
def test_what_a_model_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedVAE(6, 4, (8,), **options)


def test_setting_what_an_objective_cannot_have() -> None:
    model = FusedVAE(6, 4, (8,), objective=IWAE(3, "dreg"))
    with pytest.raises(ValueError, match="beta must be 1"):
        model.beta = 0.5
    model.num_samples = 7
    assert model.objective == IWAE(7, "dreg") and model.beta == 1
    model = FusedVAE(6, 4, (8,), objective=ELBO(2, "score_function", baseline="leave_one_out"))
    with pytest.raises(ValueError, match="at least 2"):
        model.num_samples = 1
    assert model.num_samples == 2
