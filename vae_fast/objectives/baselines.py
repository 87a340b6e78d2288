"""Baselines of the score-function estimator: what is subtracted from its signal."""

from __future__ import annotations

from torch import Tensor

from vae_fast.objectives.state import RunningMean

BASELINES = ("auto", "leave_one_out", "batch_mean", "running_mean")


def chosen(baseline: str | None, num_samples: int) -> str | None:
    """What "auto" stands for: the other samples of the row, or where it has none, other rows."""
    if baseline != "auto":
        return baseline
    return "leave_one_out" if num_samples > 1 else "batch_mean"


def baseline_of(
    baseline: str | None,  # as ``chosen``
    signal: Tensor,  # [N] or [L, N], detached
    running_mean: RunningMean | None,
    training: bool,  # whether the running mean takes the signal in, after it has been read
) -> Tensor | None:
    """The baseline, broadcastable to ``signal``.

    None depends on the sample whose signal it is subtracted from, so the estimator stays unbiased.
    """
    if baseline == "leave_one_out":
        return (signal.sum(0) - signal) / (signal.shape[0] - 1)
    if baseline == "batch_mean":  # of the other rows, all their samples; 0 where there are none
        rows = signal if signal.dim() == 1 else signal.mean(0)
        return (rows.sum() - rows) / max(rows.shape[0] - 1, 1)
    if baseline == "running_mean":
        assert running_mean is not None
        if training:
            return running_mean.exchange(signal.mean())
        return running_mean.value(signal.dtype)
    return None
