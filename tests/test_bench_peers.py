"""The benchmarks' peers: each does the same work, and one that is not there is skipped by name."""

from __future__ import annotations

import importlib.metadata
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bench_folder
import pytest
import torch
from torch import Tensor, nn

from bench import harness, parity, peers
from bench.device import DTYPES, Setting
from bench.models import MODELS
from bench.ops import OPS, Size
from bench.training_step import TrainingStep
from bench.workload import Workload
from vae_fast import FusedVAE

TINY = Size(3, 8, 12)
NOT_COMPILED = [peer.name for peer in peers.PEERS if not peer.compiles]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with harness.threads(1):
        yield


def has_packages(name: str) -> bool:
    return peers.missing(peers.BY_NAME[name], Setting()) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, op in OPS.items() for dtype in op.dtypes]
)
def test_every_peer_does_the_same_work(name: str, dtype: str) -> None:
    """Values and gradients against float64, of whichever peers are installed."""
    work = Workload(OPS[name], TINY, Setting(dtype=DTYPES[dtype]), NOT_COMPILED)
    expected = {each for each in peers.of(name) if each in NOT_COMPILED and has_packages(each)}
    assert set(work.functions) == expected
    for direction in OPS[name].directions:
        assert work.block(peers.OURS, direction)(2) > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["mlp784", "mlp784_unit", "mlp784_8_samples"])
def test_every_peer_trains_the_same_model(name: str) -> None:
    work = TrainingStep(name, 4, Setting(), NOT_COMPILED)
    expected = {each for each in peers.of(name) if each in NOT_COMPILED and has_packages(each)}
    assert set(work.steps) == expected
    before = [p.detach().clone() for p in work.modules[peers.OURS].parameters()]
    work.step(peers.OURS)(0)
    changed = zip(before, work.modules[peers.OURS].parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in changed)


@pytest.mark.parametrize(
    ("name", "number"),
    # Of a sample, what it should have been shows only where the noise is given.
    [
        *((name, 0) for name in OPS if name == "sample_kl" or not OPS[name].posterior),
        *((name, 1) for name in OPS if OPS[name].posterior),
    ],
)  # fmt: skip
def test_a_peer_that_is_wrong_is_not_timed(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part in a thousand, in any output. The others are timed, unless ours is wrong."""
    right = peers.function
    liar = peers.EAGER

    def wrong(peer: peers.Peer, op: str, setting: Setting) -> peers.Function:
        def call(*arguments: Tensor) -> tuple[Tensor, ...]:
            outputs = list(right(peer, op, setting)(*arguments))
            outputs[number] = outputs[number] * (1.001 if op != "noise" else 3)
            return tuple(outputs)

        return call if peer.name == liar else right(peer, op, setting)

    def make() -> Workload:
        return Workload(OPS[name], Size(64, 8, 12), Setting(), [peers.OURS, peers.EAGER])

    monkeypatch.setattr(peers, "function", wrong)
    work = make()
    assert re.search(f"{name} .* by eager", work.wrong[peers.EAGER])
    assert list(work.compare(OPS[name].directions[-1], 0.01).rounds) == [peers.OURS]
    liar = peers.OURS
    with pytest.raises(AssertionError, match=f"{name} .* by vae_fast"):
        make()


@pytest.mark.parametrize("liar", [peers.OURS, peers.EAGER])
def test_a_training_step_that_is_wrong_is_not_timed(
    liar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = peers.step

    class Wrong(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            loss, z = self.module(x)
            return 1.001 * loss, z

    def step(peer: peers.Peer, fused: FusedVAE) -> nn.Module:
        module = right(peer, fused)
        return Wrong(module) if peer.name == liar else module

    monkeypatch.setattr(peers, "step", step)
    if liar == peers.OURS:
        with pytest.raises(AssertionError, match="loss of vae_fast is off"):
            TrainingStep("mlp784", 4, Setting(), [peers.OURS])
    else:
        work = TrainingStep("mlp784", 4, Setting(), [peers.OURS, peers.EAGER])
        assert "loss of eager is off" in work.wrong[peers.EAGER]
        assert list(work.compare("step", 0.01).rounds) == [peers.OURS]


def test_the_inputs_are_the_same_in_every_run() -> None:
    works = [Workload(OPS["negative_elbo"], TINY, Setting(), [peers.OURS]) for _ in range(2)]
    pairs = zip(*(work.copies[-1].arguments for work in works), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    steps = [TrainingStep("mlp784", 4, Setting(), [peers.OURS]) for _ in range(2)]
    batches, weights = (
        [step.batches[-1] for step in steps],
        [next(step.modules[peers.OURS].parameters()) for step in steps],
    )
    assert torch.equal(*batches) and torch.equal(*weights)


def test_noise_that_is_not_normal_is_refused() -> None:
    with pytest.raises(AssertionError, match="no standard-normal noise"):
        parity.standard_normal("uniform", torch.rand(1000, dtype=torch.float64), 1e-6)
    with pytest.raises(AssertionError, match="no standard-normal noise"):
        parity.standard_normal("nan", torch.full((10,), math.nan), 1e-6)


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name, package in (("pythae", "pythae"), ("diffusers", "diffusers"), ("pyro", "pyro-ppl")):
        reason = peers.missing(peers.BY_NAME[name], Setting())
        assert reason is not None and reason.startswith(f"{package} is not installed")
    there = [peer.name for peer in peers.present("mlp784_unit", Setting())]
    assert there == [peers.OURS, peers.EAGER, peers.COMPILED, f"{peers.OURS} compiled"]


def test_the_compilers_cuda_modes_are_for_cuda() -> None:
    modes = [peer for peer in peers.PEERS if peer.devices]
    assert len(modes) == 3
    for peer in modes:
        assert peers.missing(peer, Setting()) == f"{peer.name} runs on cuda only"
        assert peers.missing(peer, Setting(device="cuda")) is None


def test_every_op_and_model_has_a_row_of_peers() -> None:
    assert set(peers.OP_NAMES) == set(OPS) and set(peers.STEP_NAMES) == set(MODELS)
    for name in (*OPS, *MODELS):
        assert {peers.OURS, peers.EAGER, peers.COMPILED} <= set(peers.of(name))


def test_the_least_traffic_of_an_op() -> None:
    """Spelled out for one shape: what is read, and what is written, in elements."""
    size, elements = Size(2, 3, 5), {"latent": 6, "data": 10}
    for name, side, forward, both in (
        ("sample_kl", "latent", 2 + 1, 2 + 1 + 3 + 2),
        ("gaussian_kl", "latent", 2, 2 + 2 + 2),
        ("gaussian_log_likelihood", "data", 3, 3 + 3 + 2),
        ("negative_elbo", "data", 3, 3 + 2),
        ("noise", "latent", 1, 1),
    ):
        op = OPS[name]
        assert op.least_bytes(size, "forward", torch.float32) == 4 * elements[side] * forward
        assert op.least_bytes(size, "both", torch.bfloat16) == 2 * elements[side] * both


def test_curves_start_at_two_to_the_ten_and_have_eight_points() -> None:
    for op in (op for op in OPS.values() if op.curved):
        elements = [op.elements(size) for size in op.curve("cpu")]
        assert len(elements) >= 8 and elements[0] == 2**10 and elements == sorted(elements)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_smoke_run(dtype: str, tmp_path: Path) -> None:
    """``pytest bench/ --benchmark-only --quick``: one row a peer, those not installed skipped."""
    root = bench_folder.ROOT
    done = subprocess.run(
        [
            sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))",
            root / "bench", "-c", root / "pyproject.toml", "--import-mode=append",
            "-p", "no:cacheprovider", "--benchmark-only", "--quick", "--threads=1",
            f"--dtype={dtype}", "-rs", "-k",
            "(packed_sample_kl or unit_negative_elbo) and both and not compiled",
        ],
        cwd=tmp_path,  # not this folder, whose package would hide the installed one
        # pytest-benchmark measures nothing where it takes itself for one of several processes.
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for op, size in (("packed_sample_kl", "128x20"), ("unit_negative_elbo", "128x20+784")):
        assert f"{op} {size} both, {dtype}, cpu, 1 threads" in done.stdout
    for name in ("diffusers", "pythae"):
        if not has_packages(name):
            assert f"{name}: {name} is not installed" in done.stdout
