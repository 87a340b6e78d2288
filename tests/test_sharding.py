"""Models in two processes: replicated, and with parameters cut up by both kinds of FSDP."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from vae_fast import FusedVAE, GaussianPrior
from vae_fast.objectives import ELBO, FreeBits

pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(),
    reason="this torch has no gloo",
)

PROCESSES, ROWS = 2, 4
VARIANCES = ("learned", "per_feature", "shared", "fixed", "optimal")
X = torch.linspace(-2, 2, PROCESSES * ROWS * 12).reshape(-1, 12).sin()


def run(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES
    )
    try:
        for work in (every_way, sharded_methods, from_files, old_wrapper):
            work(rank)
    finally:
        distributed.destroy_process_group()
    # Else one process of fifteen ends by SIGABRT, since a thread of torch's own still runs.
    os._exit(0)


def make(variance: str, latent: int = 3, **options: Any) -> FusedVAE:
    torch.manual_seed(0)
    prior = GaussianPrior(latent, torch.linspace(-0.5, 0.5, latent), 0.3, learned=True)
    return FusedVAE(12, latent, (8,), decoder_variance=variance, prior=prior, **options)


def replicated(model: FusedVAE) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def cut(model: FusedVAE) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    mesh = distributed.device_mesh.init_device_mesh("cpu", (PROCESSES,))
    return fully_shard(model, mesh=mesh)


def cut_in_parts(model: FusedVAE) -> nn.Module:
    for part in (model.encoder, model.decoder):
        cut(part)
    return cut(model)


def flattened(model: FusedVAE, use_orig_params: bool = False) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(
        model, device_id=torch.device("cpu"), use_orig_params=use_orig_params
    )


def flattened_by_name(model: FusedVAE) -> nn.Module:
    return flattened(model, use_orig_params=True)


WAYS = (replicated, cut, cut_in_parts, flattened, flattened_by_name)


def methods(model: FusedVAE) -> list[Tensor]:
    return [
        model.sample(3, seed=1),
        model.sample(3, seed=1, add_noise=True),
        model.reconstruct(X),
        model.log_likelihood(X, 7, chunk=3, seed=1),
    ]


def whole_parameters(way: Callable, wrapped: nn.Module) -> contextlib.AbstractContextManager[None]:
    if way not in (flattened, flattened_by_name):
        return contextlib.nullcontext()
    return type(wrapped).summon_full_params(wrapped)


def mean_of(loss: Tensor) -> Tensor:
    total = loss.detach().clone()
    distributed.all_reduce(total)
    return total / PROCESSES


def trains_as_one(rank: int, way: Callable, variance: str, latent: int, **options: Any) -> None:
    """Methods before and after two steps, and the losses of these, are those of one process."""
    model = make(variance, latent, **options)
    alone = copy.deepcopy(model)
    wrapped = way(model)
    close = torch.testing.assert_close
    with whole_parameters(way, wrapped):
        close(methods(model), methods(alone))
    optimizers = [torch.optim.SGD(m.parameters(), 1e-2) for m in (wrapped, alone)]
    part = slice(rank * ROWS, (rank + 1) * ROWS)
    for step in range(2):
        out = wrapped(X[part], seed=step, row_offset=rank * ROWS)
        if variance == "optimal":  # each process has its batch's own
            losses = [
                alone(X[i * ROWS : (i + 1) * ROWS], seed=step, row_offset=i * ROWS).loss
                for i in range(PROCESSES)
            ]
            want = torch.stack(losses).mean()
            alone.squared_error.load_state_dict(model.squared_error.state_dict())
        else:
            want = alone(X, seed=step).loss
        close(mean_of(out.loss), want.detach())
        for optimizer, loss in zip(optimizers, (out.loss, want), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with whole_parameters(way, wrapped):
        close(methods(model), methods(alone), rtol=1e-4, atol=1e-4)


def every_way(rank: int) -> None:
    for way in WAYS:
        for variance in VARIANCES:
            try:
                trains_as_one(rank, way, variance, 1 if variance == "shared" else 3)
            except Exception as error:
                raise AssertionError(f"{way.__name__}, {variance}") from error
        trains_as_one(rank, way, "learned", 3, objective=ELBO(2, "score_function", baseline=None))


def sharded_methods(rank: int) -> None:
    for way in (cut, cut_in_parts):
        model = make("shared")
        alone = copy.deepcopy(model)
        way(model)
        sharded = [type(p) for p in model.parameters()]
        assert all(kind.__name__ == "DTensor" for kind in sharded)
        # Without gradients they are cut up again.
        torch.testing.assert_close(methods(model), methods(alone))
        assert [type(p) for p in model.parameters()] == sharded
        # With gradients, which reach the parts.
        for m in (model, alone):
            mean, logvar = m.encode(X)
            decoded, shared = m.decode(mean)
            assert shared.shape == ()
            (mean.sum() + logvar.sum() + decoded.sum() + shared).backward()
        for name, parameter in alone.named_parameters():
            found = model.get_parameter(name).grad
            if parameter.grad is None:  # of the prior
                assert found is None or not found.full_tensor().any()
            else:
                torch.testing.assert_close(found.full_tensor(), parameter.grad)
        # What fails leaves the model as it was.
        for _ in "ab":
            with pytest.raises(ValueError, match="num must be at least 0"):
                model.sample(-1)
        torch.testing.assert_close(model.sample(2, seed=1), alone.sample(2, seed=1))


def from_files(rank: int) -> None:
    """Made without memory, cut up, and filled from the state of a whole model."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    objective = ELBO(free_bits=FreeBits(0.4, "group", {"a": [2, 0], "b": [1]}))
    want = make("shared", objective=objective)
    with torch.device("meta"):
        model = make("shared", objective=objective)
    cut(model)
    model.to_empty(device="cpu")
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, copy.deepcopy(want.state_dict()), options=options)
    torch.testing.assert_close(model(X, seed=3).loss, want(X, seed=3).loss)
    # What is gathered for forward serves the methods that it calls.
    assert "_run_gathered" not in model.__dict__


def old_wrapper(rank: int) -> None:
    for way in (flattened, flattened_by_name):
        wrapped = way(make("shared"))
        with whole_parameters(way, wrapped), pytest.raises(ValueError, match="num must be at le"):
            wrapped.module.sample(-1)
        for name, given in (("sample", 2), ("reconstruct", X), ("log_likelihood", X)):
            message = f"{name} needs whole parameters.*{name} of .*summon_full_params"
            with pytest.raises(RuntimeError, match=message):
                getattr(wrapped.module, name)(given)


def test_in_two_processes(tmp_path: Path) -> None:
    """All of the above: to start the processes takes longer than what they do."""
    torch.multiprocessing.spawn(run, (str(tmp_path / "store"),), PROCESSES)
