"""A whole step of training: zero_grad, forward, backward and Adam (fused), by the same networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from bench import device, harness, models, parity, peers
from bench.device import Setting
from bench.peers.eager import EagerVAE
from vae_fast import FusedVAE

BATCH_COPIES = 8
BATCH_BYTES = 2**28  # of all copies
# Of the norm. A unit of a ReLU network may fall on the other side of its kink by rounding.
KINK_TOLERANCE = 1e-2
# Of gradients, under autocast: every matrix product has operands of 8 bits.
AUTOCAST_TOLERANCE = 1e-1


class _Oracle(EagerVAE):
    """The eager peer in float64, with the noise that a given z was made of."""

    z: Tensor

    def draw(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return ((self.z - mean) / torch.exp(0.5 * logvar)).detach()


def _close_norm(what: str, got: Tensor, want: Tensor, tolerance: float) -> None:
    error, norm = (got.double() - want).norm().item(), want.norm().item()
    if not error <= tolerance * norm:
        raise AssertionError(f"{what} is off by {error:.3g} in norm, of {norm:.3g}")


class TrainingStep:
    """A model at a batch size, by every peer that trains it; bfloat16 means autocast.

    Args:
        names: of the peers, where not all are wanted.
        check: compare the results with float64, without which nothing is to be timed.
    """

    def __init__(
        self,
        name: str,
        batch: int,
        setting: Setting,
        names: Collection[str] | None = None,
        check: bool = True,
    ) -> None:
        # On CUDA convolutions are by default of 10 bits: float32 is to mean that for every peer.
        torch.backends.cudnn.allow_tf32 = False
        torch.manual_seed(0)  # the same numbers in every run
        model = self.model = models.MODELS[name]
        self.label, self.setting = model.label(batch), setting
        self.wait = device.synchronizer(setting.device)
        fused = model.make(setting.backend).to(setting.device)
        x = torch.rand(batch, *model.event, device=setting.device)
        copies = max(2, min(BATCH_COPIES, BATCH_BYTES // x.nbytes))
        self.batches = [x, *(torch.rand_like(x) for _ in range(copies - 1))]
        torch._dynamo.reset()
        self.modules: dict[str, nn.Module] = {}
        self.compile_seconds: dict[str, float] = {}
        for peer in peers.present(name, setting):
            if names is None or peer.name in names:
                self._add(peer, fused)
        self._fused = fused
        self.steps = {peer: self._step(module) for peer, module in self.modules.items()}
        self.wrong: dict[str, str] = {}  # of each peer that was left out, why
        if check:
            self.check()

    def check(self) -> None:
        """Every peer's loss and gradients against float64: one that is wrong is left out.

        Raises:
            AssertionError: it is ours.
        """
        self.wrong = parity.wrong(
            {
                name: partial(self._check_peer, peers.BY_NAME[name], self._fused)
                for name in self.modules
            }
        )
        for peer in self.wrong:
            del self.modules[peer], self.steps[peer]

    def _add(self, peer: peers.Peer, fused: FusedVAE) -> None:
        """Makes it, and compiles it where it is to be."""
        module = self.modules[peer.name] = peers.step(peer, fused)
        start = time.perf_counter()
        with self._autocast():
            loss, _ = module(self.batches[0])
        loss.backward()
        if peer.compiles:
            self.wait()
            self.compile_seconds[peer.name] = time.perf_counter() - start

    def _check_peer(self, peer: peers.Peer, fused: FusedVAE) -> None:
        """A network with kinks is checked without them as well, unless that has to be compiled."""
        self._check(peer.name, self.modules[peer.name], fused)
        if models.has_kinks(fused) and not peer.compiles:
            smoothed = models.smooth(fused)
            assert isinstance(smoothed, FusedVAE)
            self._check(peer.name, peers.step(peer, smoothed), smoothed)

    def _autocast(self) -> AbstractContextManager[None]:
        if self.setting.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.setting.kind, self.setting.dtype)

    def _check(self, peer: str, module: nn.Module, fused: FusedVAE) -> None:
        """Loss and gradients for the noise that it drew, against the eager module in float64."""
        module.zero_grad(set_to_none=True)
        with self._autocast():
            loss, z = module(self.batches[0])
        loss.backward()
        exact = _Oracle(fused).double()
        exact.z = z.detach().double()
        want, _ = exact(self.batches[0].double())
        want.backward()
        dtype = self.setting.dtype
        parity.close(f"loss of {peer}", loss.detach(), want.detach(), parity.TOLERANCE[dtype])
        gradients = models.parameters_by_layer(module)
        for name, parameter in models.parameters_by_layer(exact).items():
            got, right = gradients[name].grad, parameter.grad
            assert got is not None and right is not None, f"{name} of {peer} has no gradient"
            what = f"gradient of {name} of {peer}"
            if dtype != torch.float32:
                _close_norm(what, got, right, AUTOCAST_TOLERANCE)
            elif models.has_kinks(fused):
                _close_norm(what, got, right, KINK_TOLERANCE)
            else:
                parity.close(what, got, right, self.model.tolerance)

    def _step(self, module: nn.Module) -> Callable[[int], None]:
        # Fused, as who looks at the time of a step has it: the default takes a dozen passes over
        # the parameters, which on a CPU is a fifth of the default model's step.
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

        def step(number: int) -> None:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss, _ = module(self.batches[number % len(self.batches)])
            loss.backward()
            optimizer.step()

        return step

    def step(self, peer: str) -> Callable[[int], None]:
        return self.steps[peer]

    def least_bytes(self, direction: str) -> int | None:
        """Not known: most of a step is matrix products."""
        return None

    def compare(
        self, direction: str, seconds: float, names: Collection[str] | None = None
    ) -> harness.Comparison:
        """``direction`` is "step": there is no other."""
        assert direction == "step"
        chosen = self.steps if names is None else names
        blocks = {peer: harness.timed(self.steps[peer], self.wait) for peer in chosen}
        return harness.interleave(blocks, seconds)
