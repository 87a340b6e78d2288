"""Every foreseeable error: one line that says what was expected and given, status 2, no loss."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import numpy as np
import torch
from command import COMMAND, fails, files

from vae_fast.cli import main
from vae_fast.training import run as run_module
from vae_fast.training.config import ADDED

Capture = pytest.CaptureFixture[str]


BAD_OPTIONS = {
    "--bogus": "unrecognized arguments: --bogus",
    "--epoch=3": "unrecognized arguments: --epoch=3",  # no guessing at abbreviations
    "--epochs=1.5": "--epochs: expected a whole number; got '1.5'",
    "--epochs=0": "--epochs must be a whole number from 1 to 1000000000; got 0",
    f"--epochs={10**30}": f"--epochs must be a whole number .* got {10**30}",
    "--epochs": "--epochs: expected one argument",
    f"--seed={2**64}": f"--seed must be a whole number from 0 to {2**64 - 1}",
    "--seed=-1": "--seed must be a whole number from 0",
    "--learning-rate=0": "--learning-rate must be a number above 0",
    "--learning-rate=nan": "--learning-rate must be a number .* got nan",
    "--learning-rate=fast": "--learning-rate: expected a number; got 'fast'",
    "--latent-dim=0": "--latent-dim must be a whole number from 1",
    "--hidden-dims=512,": "--hidden-dims: expected widths as in 512,256; got '512,'",
    "--hidden-dims=8,0": "--hidden-dims must be a whole number from 1",
    "--decoder-variance=big": "--decoder-variance must be one of learned, per_feature, shared, "
    "fixed, optimal; got big",
    "--prior=flat": "--prior must be one of standard, learned; got flat",
    "--objective=vae": "--objective must be one of elbo, iwae; got vae",
    "--estimator=best": "--estimator must be one of reparameterization, .*; got best",
    "--estimator=dreg": "--objective elbo: estimator must be one of .*; got 'dreg'",
    "--objective=iwae --estimator=score_function": "iwae: estimator must .* got 'score_function'",
    "--baseline=zero": "--baseline must be one of auto, .*, none; got zero",
    "--baseline=batch_mean": "a baseline needs estimator='score_function'",
    "--estimator=score_function --baseline=leave_one_out": "needs num_samples of at least 2; got 1",
    "--objective=iwae --baseline=none": "--objective iwae: it has no baseline; got 'none'",
    "--objective=iwae --free-bits=1": "IWAE samples it: .* got free_bits",
    "--objective=iwae --decoder-variance=optimal": "--objective iwae: decoder_variance='optimal'",
    "--objective=iwae --estimator=dreg --beta=2": "beta must be 1 for estimator='dreg'; got 2.0",
    "--estimator=stl --capacity=5": "'stl' samples it: .* got capacity",
    "--free-bits=1 --capacity=5": "at most one of free_bits and capacity",
    "--free-bits=-1": "--free-bits must be a number from 0",
    "--free-bits-per=group": "--free-bits-per must be one of dimension, element, row; got group",
    "--capacity=inf": "--capacity must be a number",
    "--balance=2 --prior=learned": "--balance must be a number from 0 to 1; got 2",
    "--balance=0.8": "balance needs a prior that learns",
    "--objective=iwae --prior=learned --balance=0.8": "got balance",
    "--capacity-steps=-1": "--capacity-steps must be a whole number from 0",
    "--capacity-steps=9": "--capacity-steps needs a --capacity above 0; got 9 steps",
    "--beta-schedule=steep": "--beta-schedule must be one of constant, linear, cyclical, cosine",
    "--beta-schedule=linear": "--beta-steps must be above 0 .* got 0 for linear",
    "--beta-steps=5": "--beta-steps must be .* 0 for one that is; got 5 for constant",
    "--beta-steps=-5 --beta-schedule=cosine": "--beta-steps must be a whole number from 0",
    "--decoder-logvar-min=-inf": "--decoder-logvar-min must be a number .* got -inf",
    "--beta=-1": "--beta must be a number from 0",
    "--num-samples=0": "--num-samples must be",
    "--batch-size=0": "--batch-size must be",
    "--validation-fraction=1": "--validation-fraction must be a number above 0 to 0.9",
    "--backend=cuda11": "--backend must be one of cuda, triton, cpu, reference; got cuda11",
    "--backend=cuda --accelerator=cpu": "backend 'cuda'",
    "--accelerator=tpu": "--accelerator must be one of auto, cpu, gpu; got tpu",
    "--accelerator=cpu --precision=16-mixed": "--precision 16-mixed needs a GPU",
    "--precision=8": "--precision must be one of .* got 8",
    "--devices=3": "--batch-size must be a multiple of --devices, 3, .* got 128",
    "--devices=0": "--devices must be",
    "--devices=256 --batch-size=256 --data=FOUR --accelerator=cpu": "--devices must be at most 3",
    "--threads=0": "--threads must be",
    "--data=": "--data must name a data set or a path",
    "--data=/nowhere/x.npy": "there is no data /nowhere/x.npy",
    "--resume --overwrite": "not allowed with argument",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options(tmp_path: Path, capsys: Capture, options: str) -> None:
    np.save(tmp_path / "four.npy", np.eye(4))
    given = options.replace("FOUR", str(tmp_path / "four.npy")).split()
    text = fails(capsys, "train", f"--out={tmp_path / 'run'}", *given)
    assert re.search(BAD_OPTIONS[options], text), text
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path: Path, capsys: Capture) -> None:
    text = fails(capsys, "train", f"--out={tmp_path / 'run'}", "--accelerator=gpu")
    assert "--accelerator gpu needs a GPU" in text and "vae-fast doctor" in text


def test_commands_and_their_arguments(capsys: Capture) -> None:
    assert "required: COMMAND" in fails(capsys)
    assert "invalid choice: 'tarin'" in fails(capsys, "tarin")
    assert "required: --out" in fails(capsys, "train")
    assert "required: RUN" in fails(capsys, "evaluate")


def test_a_run_is_not_lost(run: Path, capsys: Capture) -> None:
    before = files(run)
    out = f"--out={run}"
    text = fails(capsys, "train", out)
    assert "already has a run" in text and "--resume" in text and "--overwrite" in text
    # What is wrong is found before anything is thrown away.
    fails(capsys, "train", out, "--overwrite", "--data=/nowhere")
    fails(capsys, "train", out, "--overwrite", "--backend=cuda", "--accelerator=cpu")
    fails(capsys, "train", out, "--resume", "--latent-dim=4")
    fails(capsys, "train", out, "--resume", "--epochs=2")
    assert files(run) == before


def test_files_that_are_no_runs_are_not_lost(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "samples.png").write_text("mine")
    for more in (), ("--overwrite",):
        text = fails(capsys, "train", f"--out={tmp_path}", *more)
        assert "is no run's folder but has samples.png" in text
    assert "has no config.json" in fails(capsys, "train", f"--out={tmp_path}", "--resume")
    assert files(tmp_path) == {"samples.png": b"mine"}


def test_folders_that_cannot_be_written(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    assert "--out must be a folder; got the file" in fails(
        capsys, "train", f"--out={tmp_path / 'file'}"
    )
    assert "Not a directory" in fails(capsys, "train", f"--out={tmp_path / 'file' / 'run'}")
    if Path("/proc").is_dir():  # where root cannot write either
        assert "cannot write /proc/run" in fails(capsys, "train", "--out=/proc/run")


def test_folders_that_are_no_runs(tmp_path: Path, run: Path, capsys: Capture) -> None:
    for command in "evaluate", "sample":
        assert "there is no run folder" in fails(capsys, command, str(tmp_path / "none"))
        assert "has no config.json" in fails(capsys, command, str(tmp_path))
    (run / "checkpoint.safetensors").unlink()
    assert "there is no checkpoint" in fails(capsys, "evaluate", str(run))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": "vae-fast run 1"}', b"\xff\xfe", b"null"]
)
def test_damaged_config(run: Path, capsys: Capture, content: bytes) -> None:
    (run / "config.json").write_bytes(content)
    for arguments in (("evaluate", str(run)), ("train", "--resume", f"--out={run}")):
        assert "config.json is damaged" in fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"latent_dim": 3', '"latent_dim": "three"'),
        ('"latent_dim": 3', '"latent_dim": -3'),
        ('"latent_dim": 3,', ""),
        ('"latent_dim": 3', '"latent": 3, "latent_dim": 3'),
        ('"limits"', '"limit"'),
    ],
)
def test_changed_config(run: Path, capsys: Capture, old: str, new: str) -> None:
    text = (run / "config.json").read_text()
    assert old in text
    (run / "config.json").write_text(text.replace(old, new))
    assert "config.json is damaged" in fails(capsys, "evaluate", str(run))


def test_damaged_checkpoint(tmp_path: Path, run: Path, capsys: Capture) -> None:
    path = run / "checkpoint.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[:-9] + b"\0" + content[-8:]):
        path.write_bytes(damaged)
        for arguments in (
            ("evaluate", str(run)),
            ("sample", str(run), f"--out={tmp_path / 's.png'}"),
            ("train", "--resume", f"--out={run}"),
        ):
            assert "checkpoint.safetensors is damaged" in fails(capsys, *arguments)
        assert path.read_bytes() == damaged


def test_config_of_an_earlier_version(run: Path, capsys: Capture) -> None:
    """It lacks what was added, and its run has the defaults of that."""
    content = json.loads((run / "config.json").read_text())
    for name in ADDED:
        del content["config"][name]
    (run / "config.json").write_text(json.dumps(content))
    assert main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((run / "results.json").read_text())
    assert main(["train", "--resume", "--epochs=4", f"--out={run}"]) == 0
    assert json.loads((run / "config.json").read_text())["config"]["objective"] == "elbo"


def test_checkpoint_of_another_run(run: Path, capsys: Capture) -> None:
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"latent_dim": 3', '"latent_dim": 4'))
    assert "does not belong to" in fails(capsys, "evaluate", str(run))


def test_data_of_another_run(tmp_path: Path, run: Path, capsys: Capture) -> None:
    data = tmp_path / "data.npy"
    np.save(data, np.zeros((1797, 8, 8)))
    for arguments in (("evaluate", str(run)), ("train", "--resume", f"--out={run}")):
        assert "does not hold the rows" in fails(capsys, *arguments, f"--data={data}")


def test_sample_arguments(tmp_path: Path, run: Path, capsys: Capture) -> None:
    assert "--out must end in .png or .npy" in fails(capsys, "sample", str(run), "--out=s.jpg")
    for number in "0", "-3", "4097", str(10**20):
        out = f"--out={tmp_path / 's.png'}"
        assert "-n must be a whole number from 1" in fails(
            capsys, "sample", str(run), "-n", number, out
        )
    nowhere = tmp_path / "nowhere" / "s.png"
    assert f"cannot write {nowhere}" in fails(capsys, "sample", str(run), f"--out={nowhere}")
    assert "--seed must be a whole number from 0" in fails(capsys, "sample", str(run), "--seed=-1")
    assert "--num-samples must be a whole number from 1" in fails(
        capsys, "evaluate", str(run), "--num-samples=0"
    )
    assert "--likelihood-samples must be a whole number from 0" in fails(
        capsys, "evaluate", str(run), "--likelihood-samples=-1"
    )


def test_full_disk(run: Path, capsys: Capture) -> None:
    """The disk fills up at the checkpoint: the old one stays."""
    before = files(run)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        # The progress is on stderr, too, where the error must be the last line.
        assert main(["train", "--resume", "--epochs=5", f"--out={run}"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = capsys.readouterr().err
    path = run / "checkpoint.safetensors"
    assert text.splitlines()[-1] == f"vae-fast: error: cannot write {path}: File too large"
    assert "Traceback" not in text
    assert path.read_bytes() == before["checkpoint.safetensors"]
    assert set(files(run)) == set(before)
    assert main(["train", "--resume", f"--out={run}"]) == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] can't allocate memory: 4 TB"), "not enough memory: .* 4 TB"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried 4 TB"), "not enough memory"),
        (OSError(28, "No space left on device", "x"), "x: No space left on device"),
    ],
)
def test_errors_of_the_machine(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(run_module, "build_model", fail)
    message = fails(capsys, "train", f"--out={tmp_path / 'run'}")
    assert re.search(text, message)
    assert not (tmp_path / "run").exists()


def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(run_module, "build_model", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main(["train", f"--out={tmp_path / 'run'}"])


@pytest.mark.parametrize("missing", ["lightning", "sklearn", "matplotlib", "safetensors"])
def test_without_the_train_extra(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for arguments in (("train", "--out=x"), ("evaluate", "x"), ("sample", "x")):
        text = fails(capsys, *arguments)
        assert f"needs {missing}" in text and "pip install 'vae_fast[train]'" in text


WITHOUT_EXTRA = """
import sys
for name in ("lightning", "sklearn", "matplotlib", "safetensors", "PIL", "tqdm"):
    sys.modules[name] = None
import vae_fast
from vae_fast.cli import main
sys.exit(main(["doctor"]))
"""


def test_doctor_needs_only_the_core() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "backends" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "vae-fast: error: cannot write to stdout: No space left on device\n"
