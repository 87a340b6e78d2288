"""A whole step of training: zero_grad, forward, backward and Adam, by the same networks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench import harness, parity, peers
from bench.workload import COMPILED, EAGER, OURS
from vae_fast import FusedVAE

INPUT = 784
BATCHES = (128, 1024)
BATCH_COPIES = 8


class EagerVAE(nn.Module):
    """The networks of a ``FusedVAE``, and the rest in plain PyTorch."""

    def __init__(self, model: FusedVAE) -> None:
        super().__init__()
        self.encoder, self.decoder = copy.deepcopy(model.encoder), copy.deepcopy(model.decoder)
        self.decoder_logvar_min = model.decoder_logvar_min

    def forward(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        posterior_mean, posterior_logvar = self.encoder(x)
        z, kl = peers.sample_kl(posterior_mean, posterior_logvar, eps)
        mean, logvar = self.decoder(z)
        return peers.negative_elbo(x, mean, logvar, kl, self.decoder_logvar_min)


class _FusedLoss(nn.Module):
    def __init__(self, model: FusedVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        return self.model(x, eps=eps).loss


def smooth(module: nn.Module) -> nn.Module:
    """A copy with SiLU for ReLU, where rounding cannot put a unit on the other side of a kink."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.SiLU())
    return module


class TrainingStep:
    """The default ``FusedVAE(784)`` at a batch size, and its eager and compiled peers."""

    def __init__(self, batch: int) -> None:
        self.label = f"{batch}x{INPUT}"
        model = FusedVAE(INPUT, backend="cpu")
        self.batches = [torch.rand(batch, INPUT) for _ in range(BATCH_COPIES)]
        eager = EagerVAE(model)
        self._check(smooth(_FusedLoss(model)), smooth(eager))
        self.modules: dict[str, nn.Module] = {
            OURS: _FusedLoss(model),
            EAGER: eager,
            COMPILED: copy.deepcopy(eager),
        }
        torch._dynamo.reset()
        # Compiled in place, so that nothing but the calls differs from the eager module.
        self.modules[COMPILED].compile()
        self.steps = {peer: self._step(module) for peer, module in self.modules.items()}
        start = time.perf_counter()
        self.steps[COMPILED](0)
        self.compile_seconds = time.perf_counter() - start

    def _check(self, *modules: nn.Module) -> None:
        """Loss and gradients for given noise, against the eager module in float64."""
        x = self.batches[0]
        eps = torch.randn(x.shape[0], 32)
        exact = copy.deepcopy(modules[-1]).double()
        want = exact(x.double(), eps.double())
        want.backward()
        for module in modules:
            loss = module(x, eps)
            loss.backward()
            parity.close(f"loss of {type(module).__name__}", loss.detach(), want.detach())
            for (name, got), parameter in zip(
                module.named_parameters(), exact.parameters(), strict=True
            ):
                assert got.grad is not None and parameter.grad is not None
                parity.close(f"gradient of {name}", got.grad, parameter.grad)

    def _step(self, module: nn.Module) -> Callable[[int], None]:
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

        def step(number: int) -> None:
            optimizer.zero_grad(set_to_none=True)
            module(self.batches[number % BATCH_COPIES]).backward()
            optimizer.step()

        return step

    def compare(self, direction: str, seconds: float) -> harness.Comparison:
        """``direction`` is "step": there is no other."""
        assert direction == "step"
        blocks = {peer: harness.timed(step) for peer, step in self.steps.items()}
        return harness.interleave(blocks, seconds)
