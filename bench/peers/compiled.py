"""What ``torch.compile`` makes of the eager peer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bench.device import Setting
from bench.peers import Function, eager
from vae_fast import FusedVAE

CUDA_GRAPHS = ("max-autotune", "reduce-overhead")


def _fresh(function: Function) -> Function:
    """Says before each call that the outputs of the one before, in the graph's memory, are done."""

    def call(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return function(*arguments)

    return call


def functions(setting: Setting, mode: str | None = None) -> Mapping[str, Function]:
    compiled = {name: torch.compile(each, mode=mode) for name, each in eager.FUNCTIONS.items()}
    if mode in CUDA_GRAPHS:
        return {name: _fresh(each) for name, each in compiled.items()}
    return compiled


def step(fused: FusedVAE, mode: str | None = None) -> nn.Module:
    module = eager.EagerVAE(fused)
    # In place, so that nothing but the calls differs from the eager module.
    module.compile(mode=mode)
    return module
