"""The models of the training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from vae_fast import FusedVAE

LATENTS = 32
WIDTHS = (32, 64, 128)  # channels of the convolutional networks at 32, 16 and 8 pixels a side


class Model(NamedTuple):
    event: tuple[int, ...]  # shape of a row
    batches: tuple[int, ...]
    options: Callable[[], dict[str, Any]]  # of FusedVAE
    tolerance: float = 2e-5  # of float32 gradients, of the largest value in each

    def make(self, backend: str | None) -> FusedVAE:
        return FusedVAE(self.event, LATENTS, backend=backend, **self.options())

    def label(self, batch: int) -> str:
        return f"{batch}x{'x'.join(map(str, self.event))}"


def _conv_encoder() -> nn.Module:
    """[N, 3, 64, 64] to [N, 2·LATENTS]."""
    layers: list[nn.Module] = []
    for channels, width in zip((3, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(channels, width, kernel_size=4, stride=2, padding=1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 8 * 8, 2 * LATENTS))


def _conv_decoder() -> nn.Module:
    """[N, LATENTS] to [N, 6, 64, 64]: the means, then the log-variances, of three channels."""
    layers: list[nn.Module] = [
        nn.Linear(LATENTS, WIDTHS[-1] * 8 * 8), nn.Unflatten(1, (WIDTHS[-1], 8, 8)),
    ]  # fmt: skip
    for channels, width in zip(WIDTHS[::-1], (*WIDTHS[-2::-1], 6), strict=True):
        up = nn.ConvTranspose2d(channels, width, kernel_size=4, stride=2, padding=1)
        layers += [nn.SiLU(), up]
    return nn.Sequential(*layers)


def _convolutional() -> dict[str, Any]:
    return {"encoder": _conv_encoder(), "decoder": _conv_decoder()}


MODELS = {
    "mlp784": Model((784,), (128, 1024), dict),
    # The decoder of pythae's VAE.
    "mlp784_unit": Model((784,), (128,), lambda: {"decoder_variance": "fixed"}),
    "mlp784_8_samples": Model((784,), (128,), lambda: {"num_samples": 8}),
    # The gradients of its biases are float32 sums of up to 131,072 terms, and more.
    "conv64": Model((3, 64, 64), (32,), _convolutional, 2e-4),
    # Expression counts and the like: many features, one narrow hidden layer.
    "tabular20000": Model((20_000,), (1024,), lambda: {"hidden_dims": (128,)}),
}


def smooth(module: nn.Module) -> nn.Module:
    """A copy with SiLU for ReLU, where rounding cannot put a unit on the other side of a kink."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.SiLU())
    return module


def has_kinks(module: nn.Module) -> bool:
    return any(isinstance(child, nn.ReLU) for child in module.modules())


def parameters_by_layer(module: nn.Module) -> dict[str, Tensor]:
    """Parameters by the name of their layer, whatever the peer wraps the networks in."""
    wrappers = ("model.", "network.", "_orig_mod.")
    named: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for wrapper in wrappers:
            name = name.replace(wrapper, "")
        named[name] = parameter
    return named
