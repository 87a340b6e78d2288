"""Configs, tables and checkpoints that no run can have: refused in one line that says why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

import numpy as np
import torch
from command import TINY_ARGUMENTS, fails, files

from vae_fast.cli import main
from vae_fast.training.errors import UserError
from vae_fast.training.metrics import read_metrics
from vae_fast.training.storage import read_checkpoint, write_checkpoint

Capture = pytest.CaptureFixture[str]


METRICS = {
    "another header": ("epoch,steps\n", "its columns must be epoch,step,learning_rate"),
    "a null byte": ("\0\n", "is damaged"),
    "an open quotation": ('1,11,0.1,"-1,-1,1,-1,-1,1\n', "is damaged"),
    "a long field": ("1" * 200_000 + "\n", "is damaged"),
    "too few": ("1,11,0.1\n", "row 1 must have 9 numbers"),
    "too many": ("1,11,0.1,-1,-1,1,-1,-1,1,5\n", "row 1 must have 9 numbers"),
    "an infinite step": ("1,inf,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "a step that is none": ("1,nan,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "half an epoch": ("1.5,11,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "other digits": ("٣,11,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "twice": ("1,11,0.1,-1,-1,1,-1,-1,1\n" * 2, "row 2 .* above those of the row before"),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics(tmp_path: Path, name: str) -> None:
    content, message = METRICS[name]
    header = "" if "header" in name else (
        "epoch,step,learning_rate,train_elbo,train_log_likelihood,train_kl,held_out_elbo,"
        "held_out_log_likelihood,held_out_kl\n"
    )  # fmt: skip
    (tmp_path / "m.csv").write_text(header + content)
    with pytest.raises(UserError, match=rf"m\.csv is damaged: .*{message}|m\.csv {message}"):
        read_metrics(tmp_path / "m.csv")


def test_metrics_of_a_run_that_diverged_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "epoch,step,learning_rate,train_elbo,train_log_likelihood,train_kl,held_out_elbo,"
        "held_out_log_likelihood,held_out_kl\n1,11,0.1,nan,-inf,inf,-1e300,-1,1e-05\n2,22"
    )
    (row,) = read_metrics(tmp_path / "m.csv")
    assert (row["epoch"], row["step"], row["held_out_kl"]) == (1, 11, 1e-5)


CONFIGS = {
    '"learning_rate": 1e999': "--learning-rate must be a number .* got inf",
    f'"learning_rate": {10**400}': "--learning-rate must be a number .* got 1000",
    '"learning_rate": NaN': "it has NaN, which is no number of JSON",
    '"hidden_dims": [1000000, 1000000]': "does not belong to",
    f'"hidden_dims": {[1] * 1001}': "at most 1000 widths; got 1001",
    f'"hidden_dims": {"[" * 30 + "]" * 30}': "at most 20 levels of lists and objects; got",
    f'"hidden_dims": {"[" * 100_000}': "is damaged: it is nested too deeply",
    '"data": "\\ud800"': "--data must name a data set or a path",
    '"objective": []': "--objective must be one of",
    f'"event_shape": [{10**6}, {10**6}]': "event_shape must be .* product",
    '"rows": true': "rows must be a whole number",
    '"limits": [0.0, 1e300]': "limits must be two numbers",
    '"sha256": "x"': "sha256 must be 64 hexadecimal digits",
}


@pytest.mark.parametrize("entry", CONFIGS, ids=lambda entry: entry[:30])
def test_configs(run: Path, capsys: Capture, entry: str) -> None:
    name = entry.split('"')[1]
    content = json.loads((run / "config.json").read_text())
    part = content["config"] if name in content["config"] else content["data"]
    part[name] = "HERE"
    text = json.dumps(content).replace(f'"{name}": "HERE"', entry)
    (run / "config.json").write_text(text)
    for arguments in (("evaluate", str(run)), ("sample", str(run), "--out=/nowhere/x.png")):
        said = fails(capsys, *arguments)
        assert "config.json" in said and len(said) < 1000
        assert re.search(CONFIGS[entry], said), said


def change(run: Path, edit: Any) -> None:
    """Write the run's checkpoint anew, with a right checksum."""
    path = run / "checkpoint.safetensors"
    checkpoint = read_checkpoint(path)
    edit(checkpoint)
    write_checkpoint(path, checkpoint)


WEIGHT = "model.encoder.hidden.1.weight"


def edits() -> dict[str, tuple[Any, str]]:
    def wider(c: Any) -> None:
        c["state_dict"][WEIGHT] = torch.zeros(17, 64)

    def whole(c: Any) -> None:
        c["state_dict"][WEIGHT] = c["state_dict"][WEIGHT].int()

    def missing(c: Any) -> None:
        del c["state_dict"][WEIGHT]

    def more(c: Any) -> None:
        c["state_dict"] |= {f"w{number}": torch.zeros(1) for number in range(5)}

    def infinite(c: Any) -> None:
        c["state_dict"][WEIGHT][0, 0] = float("inf")

    def none(c: Any) -> None:
        del c["state_dict"]

    return {
        "wider": (wider, rf"config\.json: {WEIGHT} must be float32 of shape \(16, 64\); got "
                         r"float32 of shape \(17, 64\)$"),
        "whole": (whole, rf"{WEIGHT} must be float32 .*; got int32 of shape \(16, 64\)"),
        "missing": (missing, rf"{WEIGHT} must be float32 of shape \(16, 64\); it is missing"),
        "more": (more, "w0 is none of the model's, w1 .*, w2 .*, and 2 more"),
        "infinite": (infinite, rf"must have finite weights; {WEIGHT} has others"),
        "none": (none, "must have weights"),
    }  # fmt: skip


@pytest.mark.parametrize("name", edits())
def test_weights_that_do_not_fit(run: Path, capsys: Capture, name: str) -> None:
    edit, message = edits()[name]
    change(run, edit)
    before = files(run)
    for arguments in (
        ("evaluate", str(run)),
        ("sample", str(run), "--out=/nowhere/x.png"),
        ("train", "--resume", "--epochs=4", f"--out={run}"),
    ):
        text = fails(capsys, *arguments)
        assert "checkpoint.safetensors" in text
        assert re.search(message, text.rstrip()), text
    assert files(run) == before


def state_edits() -> dict[str, tuple[Any, str]]:
    def moment(c: Any) -> None:
        c["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(17, 64)

    def weight(c: Any) -> None:
        c["optimizer_states"][0]["state"][99] = {}

    def option(c: Any) -> None:
        c["optimizer_states"][0]["param_groups"][0]["betas"] = "x"

    def no_option(c: Any) -> None:
        del c["optimizer_states"][0]["param_groups"][0]["weight_decay"]

    def schedule(c: Any) -> None:
        c["lr_schedulers"][0]["optimizer"] = 5

    def position(c: Any) -> None:
        c["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["position"] = -1

    def epochs(c: Any) -> None:
        c["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"] = "2"

    def batches(c: Any) -> None:
        c["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] = 1.5

    def version(c: Any) -> None:
        c["pytorch-lightning_version"] = "x.y"

    def sums(c: Any) -> None:
        c["sums"] = torch.zeros(4)

    return {
        "moment": (moment, "moments of weight 0 must have its shape"),
        "weight": (weight, "the optimiser must know its weights; got 99"),
        "option": (option, "the optimiser's betas must be .*; got x"),
        "no option": (no_option, "the optimiser's weight_decay must be 0; got None"),
        "schedule": (schedule, "the schedule must have base_lrs"),
        "position": (position, "the position in an epoch must be from 0 to 11"),
        "epochs": (epochs, "does not say how many epochs"),
        "batches": (batches, "batch_progress.total.ready must be a whole number; got 1.5"),
        "version": (version, "the version of Lightning must be 2.0 or later; got x.y"),
        "sums": (sums, r"sums must be three numbers of float64; got float32 of shape \(4,\)"),
    }


@pytest.mark.parametrize("name", state_edits())
def test_states_that_no_training_can_go_on_from(run: Path, capsys: Capture, name: str) -> None:
    edit, message = state_edits()[name]
    change(run, edit)
    text = fails(capsys, "train", "--resume", f"--out={run}")
    assert "checkpoint.safetensors" in text
    assert re.search(message, text.rstrip()), text


def test_a_model_that_gives_no_numbers(tmp_path: Path, run: Path, capsys: Capture) -> None:
    """Weights that are finite, and whose products are not."""

    def huge(c: Any) -> None:
        for value in c["state_dict"].values():
            value.fill_(3e38)

    change(run, huge)
    assert "held-out ELBO of" in fails(capsys, "evaluate", str(run))
    out = f"--out={tmp_path / 's.npy'}"
    assert "values that are not finite" in fails(capsys, "sample", str(run), out)


def test_labels_that_look_like_formulas(tmp_path: Path) -> None:
    labels = np.array(["$\\frac$", "_x", "a\nb", "\x00", "é", "y" * 500] * 5)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((30, 4)), y=labels)
    out = tmp_path / "run"
    options = ["--latent-dim=2", f"--data={tmp_path / 'd.npz'}", f"--out={out}"]
    assert main(["train", *TINY_ARGUMENTS, *options]) == 0
    assert (out / "latent_map.png").exists()
