"""Who does the same work: a row of the table each, a module each with what it takes to do it.

A peer's module has ``functions(setting)``, by the op's name, and, where it does training steps,
``step(fused)``: a module with the networks of that ``FusedVAE`` whose call on a batch gives the
loss and z. It is imported only when the peer is asked for, since it imports the peer's package.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import NamedTuple

from torch import Tensor, nn

from bench.device import Setting
from vae_fast import FusedVAE

Function = Callable[..., tuple[Tensor, ...]]

OURS, EAGER, COMPILED = "vae_fast", "eager", "compiled"
UNCONTROLLED = "without free bits"

_SAMPLE = ("sample_kl", "packed_sample_kl")
_DENSITIES = ("gaussian_kl", "gaussian_log_likelihood", "negative_elbo")
_LOSSES = ("elbo", "unit_negative_elbo")
_ESTIMATORS = ("free_bits_sample_kl", "iwae", "score_function")
OP_NAMES = (*_SAMPLE, *_DENSITIES, *_LOSSES, *_ESTIMATORS, "noise")
STEP_NAMES = ("mlp784", "mlp784_unit", "mlp784_8_samples", "conv64", "tabular20000")
_EVERYTHING = (*OP_NAMES, *STEP_NAMES)


class Peer(NamedTuple):
    name: str  # in the tables
    module: str  # of this folder
    work: tuple[str, ...]  # the ops and steps of which it does the whole
    package: str | None = None  # to be installed for it
    devices: tuple[str, ...] = ()  # empty: any
    options: Mapping[str, str] = MappingProxyType({})  # for the module's functions

    @property
    def compiles(self) -> bool:
        return self.module == "compiled" or "mode" in self.options


def _compiled(mode: str, work: tuple[str, ...] = _EVERYTHING) -> Peer:
    options = MappingProxyType({"mode": mode})
    return Peer(f"{COMPILED} {mode}", "compiled", work, None, ("cuda",), options)


def _ours_compiled(mode: str, devices: tuple[str, ...] = ()) -> Peer:
    """Of steps, where the networks' own calls are what a compiler saves."""
    name = f"{OURS} {COMPILED}" if mode == "default" else f"{OURS} {COMPILED} {mode}"
    return Peer(name, "ours", STEP_NAMES, None, devices, MappingProxyType({"mode": mode}))


PEERS = (
    Peer(OURS, "ours", _EVERYTHING),
    Peer(EAGER, "eager", _EVERYTHING),
    Peer(COMPILED, "compiled", _EVERYTHING),
    # Of a step it would tune each matrix product, for minutes; those are every peer's.
    _compiled("max-autotune", OP_NAMES),
    _compiled("reduce-overhead"),
    _ours_compiled("default"),
    _ours_compiled("reduce-overhead", ("cuda",)),
    Peer(UNCONTROLLED, "uncontrolled", ("free_bits_sample_kl",)),
    Peer(
        "torch.distributions",
        "distributions",
        (*_SAMPLE, *_DENSITIES, *_LOSSES, "iwae", "score_function"),
    ),
    Peer("GaussianNLLLoss", "gaussian_nll", ("gaussian_log_likelihood", "negative_elbo")),
    Peer("diffusers", "diffusers", ("packed_sample_kl",), "diffusers"),
    Peer("pythae", "pythae", ("unit_negative_elbo", "mlp784_unit"), "pythae"),
    Peer("pyro", "pyro", ("mlp784",), "pyro-ppl"),
)
BY_NAME = MappingProxyType({peer.name: peer for peer in PEERS})


def of(work: str) -> tuple[str, ...]:
    """The names of those that do an op or a step, whether they can run here or not."""
    return tuple(peer.name for peer in PEERS if work in peer.work)


def version(peer: Peer) -> str | None:
    """Of its package; None where it is a part of torch or of this project."""
    return None if peer.package is None else importlib.metadata.version(peer.package)


def missing(peer: Peer, setting: Setting) -> str | None:
    """Why it cannot run, or None where it can."""
    if peer.devices and setting.kind not in peer.devices:
        return f"{peer.name} runs on {' or '.join(peer.devices)} only"
    try:
        version(peer)
    except importlib.metadata.PackageNotFoundError:
        return f"{peer.package} is not installed; pip install 'vae_fast[bench]' brings it"
    return None


def present(work: str, setting: Setting) -> list[Peer]:
    """Those that do the work and can run here, ours first."""
    return [peer for peer in PEERS if work in peer.work and missing(peer, setting) is None]


def _module(peer: Peer) -> ModuleType:
    return importlib.import_module(f"{__name__}.{peer.module}")


def function(peer: Peer, op: str, setting: Setting) -> Function:
    """What takes the inputs of the op and returns the tuple of its outputs."""
    return _module(peer).functions(setting, **peer.options)[op]


def step(peer: Peer, fused: FusedVAE) -> nn.Module:
    """A model with copies of the networks of ``fused``; its call gives the loss and z."""
    return _module(peer).step(fused, **peer.options)
