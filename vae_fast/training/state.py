"""What a checkpoint must hold for a model or a run to go on from it, found out before it is used.

PyTorch and Lightning take a state apart as they load it, and fail in the middle, or take what does
not fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from vae_fast.training.errors import UserError
from vae_fast.training.module import VAEModule
from vae_fast.training.reading import is_number, is_whole, shown

PREFIX = "model."  # of the weights in Lightning's module
_NAMED = 3  # tensors in a message
_MOST = 2**62
# Of Adam in the oldest PyTorch that is supported. What a newer one adds, it knows to do without.
OPTIONS = (
    "params", "betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable",
    "differentiable", "fused", "decoupled_weight_decay",
)  # fmt: skip


def _form(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return shown(value)


def _same_form(value: object, expected: Tensor) -> bool:
    """Whether ``value`` is a tensor of that shape, and of floats where that is one."""
    return (
        isinstance(value, Tensor)
        and value.shape == expected.shape
        and value.dtype.is_floating_point == expected.dtype.is_floating_point
    )


def model_weights(path: Path, checkpoint: Mapping[str, Any], model: torch.nn.Module) -> Any:
    """The weights of ``checkpoint``, which ``model`` can load; its own may be without memory.

    Args:
        path: the checkpoint's, for the message.

    Raises:
        UserError: some do not fit; names the first.
    """
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict):
        raise UserError(f"{path} must have weights; got {shown(weights)}")
    expected = {PREFIX + name: value for name, value in model.state_dict().items()}
    wrong = []
    for name, value in expected.items():
        if name not in weights:
            wrong.append(f"{name} must be {_form(value)}; it is missing")
        elif not _same_form(weights[name], value):
            wrong.append(f"{name} must be {_form(value)}; got {_form(weights[name])}")
    wrong += [f"{shown(name)} is none of the model's" for name in weights if name not in expected]
    if wrong:
        more = f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise UserError(
            f"{path} does not belong to {path.parent / 'config.json'}: "
            f"{', '.join(wrong[:_NAMED])}{more}"
        )
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{path} must have finite weights; {name} has others")
    return {name.removeprefix(PREFIX): value for name, value in weights.items()}


class _Misfit(Exception):
    """A part of a state is not as it must be."""


def _need(condition: bool, what: str, value: object) -> None:
    if not condition:
        raise _Misfit(f"{what}; got {shown(value)}")


def _like(name: str, value: Any, expected: Any, needed: bool) -> None:
    """``value`` has the form of ``expected``: the same keys, and whole numbers for its numbers.

    Args:
        needed: whether keys may not be missing. Lightning adds some to its loops now and then.
    """
    if isinstance(expected, dict):
        _need(isinstance(value, dict), f"{name} must be an object", value)
        for key in expected:
            if needed or key in value:
                _need(key in value, f"{name} must have {key}", sorted(map(str, value)))
                _like(f"{name}.{key}", value[key], expected[key], needed or "." in name)
    elif isinstance(expected, bool):
        _need(isinstance(value, bool), f"{name} must be true or false", value)
    elif isinstance(expected, int):
        _need(is_whole(value, 0, _MOST), f"{name} must be a whole number", value)


def _check_loops(loops: object, expected: Mapping[str, Any], batches: int) -> None:
    for name, form in expected.items():
        _need(isinstance(loops, dict) and name in loops, f"loops must have {name}", loops)
        _like(f"loops.{name}", loops[name], form, False)  # type: ignore[index]
    fit = loops["fit_loop"]  # type: ignore[index]
    _need("epoch_progress" in fit, "loops.fit_loop must have epoch_progress", list(fit))
    loaders = fit.get("state_dict", {}).get("combined_loader", [])
    _need(
        isinstance(loaders, list)
        and len(loaders) <= 1
        and all(
            isinstance(each, dict) and is_whole(each.get("position"), 0, batches)
            for each in loaders
        ),
        f"the position in an epoch must be from 0 to {batches}",
        loaders,
    )


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    expected = optimizer.state_dict()["param_groups"]
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    _need(
        isinstance(state, dict) and {"state", "param_groups"} <= set(state),
        "the optimiser must have state and param_groups",
        state,
    )
    groups = state["param_groups"]
    _need(
        isinstance(groups, list)
        and len(groups) == len(expected)
        and all(isinstance(group, dict) for group in groups),
        f"the optimiser must have {len(expected)} groups",
        groups,
    )
    for group, form in zip(groups, expected, strict=True):
        for name in ("lr", "initial_lr"):
            value = group.get(name)
            _need(is_number(value) and 0 <= value <= 1e6, f"{name} must be a rate", value)
        for name, value in form.items():
            # A rate moves; another option is what the run was started with.
            if name not in ("lr", "initial_lr") and (name in group or name in OPTIONS):
                own = group.get(name)
                _need(
                    type(own) is type(value) and own == value,
                    f"the optimiser's {name} must be {shown(value)}",
                    own,
                )
    moments = state["state"]
    _need(isinstance(moments, dict), "the optimiser's state must be an object", moments)
    for index, values in moments.items():
        _need(is_whole(index, 0, len(parameters) - 1), "the optimiser must know its weights", index)
        parts = {"step": torch.zeros(()), "exp_avg": parameters[index]}
        parts["exp_avg_sq"] = parts["exp_avg"]
        _need(
            isinstance(values, dict)
            and set(values) == set(parts)
            and all(_same_form(values[name], parts[name]) for name in parts),
            f"the optimiser's moments of weight {index} must have its shape",
            {name: _form(value) for name, value in values.items()}
            if isinstance(values, dict)
            else values,
        )


def _check_schedule(state: Any, scheduler: Any) -> None:
    expected = scheduler.state_dict()
    _need(
        isinstance(state, dict) and set(state) <= set(expected),
        f"the schedule must have {', '.join(expected)}",
        state,
    )
    for name, form in expected.items():
        value = state.get(name, form)
        if name in ("base_lrs", "_last_lr"):
            good = (
                isinstance(value, list) and len(value) == len(form) and all(map(is_number, value))
            )
        elif isinstance(form, int) and not isinstance(form, bool):
            good = is_whole(value, 0, _MOST)
        else:
            good = type(value) is type(form) and value == form
        _need(name in state and good, f"the schedule's {name} must be as {shown(form)}", value)


def check_run_state(
    path: Path, checkpoint: Mapping[str, Any], module: VAEModule, trainer: Trainer, batches: int
) -> None:
    """UserError where a training cannot go on from ``checkpoint``.

    Args:
        path: the checkpoint's, for the message.
        module: what is to be trained; its weights are not looked at (``model_weights`` does that).
        trainer: of the training that is to go on.
        batches: of an epoch.
    """
    from packaging.version import InvalidVersion, Version

    try:
        version, known = checkpoint.get("pytorch-lightning_version"), False
        with contextlib.suppress(InvalidVersion):
            known = isinstance(version, str) and Version(version) >= Version("2.0")
        _need(known, "the version of Lightning must be 2.0 or later", version)
        for name in ("epoch", "global_step"):
            value = checkpoint.get(name)
            _need(is_whole(value, 0, _MOST), f"{name} must be a whole number", value)
        # What Trainer.fit saves of its loops.
        loops = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
        forms = {name: getattr(trainer, name).state_dict() for name in loops}
        _check_loops(checkpoint.get("loops"), forms, batches)
        configured = module.configure_optimizers()
        for name, one, check in (
            ("optimizer_states", configured["optimizer"], _check_optimizer),
            ("lr_schedulers", configured["lr_scheduler"]["scheduler"], _check_schedule),
        ):
            states = checkpoint.get(name)
            _need(isinstance(states, list) and len(states) == 1, f"{name} must be one", states)
            check(states[0], one)  # type: ignore[index]
        sums = checkpoint.get("sums")
        _need(
            isinstance(sums, Tensor) and sums.dtype == torch.float64 and sums.shape == (3,),
            "sums must be three numbers of float64",
            _form(sums),
        )
        callbacks = checkpoint.get("callbacks", {})
        _need(
            isinstance(callbacks, dict) and all(isinstance(key, str) for key in callbacks),
            "callbacks must be an object",
            callbacks,
        )
        scaler = checkpoint.get("MixedPrecision", {})
        _need(
            isinstance(scaler, dict) and all(map(is_number, scaler.values())),
            "MixedPrecision must be numbers",
            scaler,
        )
    except _Misfit as error:
        raise UserError(f"{path} holds no state to go on from: {error}") from error
