"""What FusedVAE refuses, saying what was expected and what it got."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vae_fast import BackendUnavailableError, FusedVAE


class Returns(nn.Module):
    """A network that returns the same whatever it is given."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> object:
        return self.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_variance": "full"}, r"decoder_variance .*'learned'.*'shared'.*'fixed'.*'full'"),
        ({"num_samples": 0}, r"num_samples .*at least 1.*0"),
        ({"beta": -1.0}, r"beta .*-1"),
        ({"beta": float("nan")}, r"beta .*nan"),
        ({"decoder_logvar_min": 21.0}, r"decoder_logvar_min .*20.*21"),
        ({"input_shape": 0}, r"input_shape .*0"),
        ({"input_shape": ()}, r"input_shape .*\(\)"),
        ({"latent_dim": -3}, r"latent_dim .*-3"),
        ({"latent_dim": (4, 0)}, r"latent_dim .*\(4, 0\)"),
        ({"hidden_dims": (0,)}, r"hidden_dims .*\(0,\)"),
    ],
)
def test_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedVAE(**({"input_shape": 12, "latent_dim": 3, "hidden_dims": (4,)} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1.5}, "num_samples must be an int; got float"),
        ({"num_samples": True}, "num_samples must be an int; got bool"),
        ({"beta": "1"}, "beta must be a number; got str"),
        ({"beta": True}, "beta must be a number; got bool"),
        ({"decoder_logvar_min": "low"}, "decoder_logvar_min must be a number; got str"),
        ({"input_shape": 12.0}, r"input_shape must be a positive int or a tuple of .*12\.0"),
        ({"latent_dim": (4, None)}, r"latent_dim .*\(4, None\)"),
        ({"latent_dim": True}, r"latent_dim .*True"),
        ({"hidden_dims": None}, r"hidden_dims .*None"),
        ({"objective": "iwae"}, "objective must be an Objective, .* got 'iwae'"),
    ],
)
def test_types_of_arguments(options: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FusedVAE(**({"input_shape": 12, "latent_dim": 3, "hidden_dims": (4,)} | options))


def test_setting_beta() -> None:
    model = FusedVAE(12, 3, (4,), beta=2.0)
    with pytest.raises(ValueError, match=r"beta .*-0\.5"):
        model.beta = -0.5
    assert model.beta == 2.0


@pytest.mark.parametrize("backend", ["tpu", "Cpu", ""])
def test_an_unknown_backend(backend: str) -> None:
    with pytest.raises(ValueError, match=rf"backend .*'reference'.*'{backend}'"):
        FusedVAE(12, 3, (4,), backend=backend)(torch.zeros(2, 12))


def test_an_unavailable_backend() -> None:
    with pytest.raises(BackendUnavailableError, match="cuda"):
        FusedVAE(12, 3, (4,), backend="cuda")(torch.zeros(2, 12))


@pytest.mark.parametrize("shape", [(12,), (5, 11), (5, 12, 1), (5, 3, 4)], ids=str)
def test_shapes_of_x(shape: tuple[int, ...]) -> None:
    model = FusedVAE(12, 3, (4,))
    for method in (model, model.encode, model.reconstruct):
        with pytest.raises(ValueError, match=r"x must .*N, 12.*" + str(tuple(shape))[1:-1]):
            method(torch.zeros(shape))


def test_x_must_be_a_tensor() -> None:
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor; got list"):
        FusedVAE(12, 3, (4,))([[0.0] * 12])


@pytest.mark.parametrize("shape", [(3,), (5, 4), (5, 3, 1)], ids=str)
def test_shapes_of_z(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"z must .*3.*got"):
        FusedVAE(12, 3, (4,)).decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("num", "error"), [(-1, ValueError), (2.5, TypeError), ("3", TypeError), (True, TypeError)]
)
def test_how_many_to_sample(num: object, error: type) -> None:
    with pytest.raises(error, match="num must be "):
        FusedVAE(12, 3, (4,)).sample(num)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(5, 5), r"encoder must .*N, 6.*\(5, 5\)"),
        (torch.zeros(6), r"encoder must .*N, 6.*\(6,\)"),
        ((torch.zeros(5, 3),) * 3, "encoder must"),
        ((torch.zeros(5, 3), torch.zeros(5, 4)), r"logvar of the encoder .*N, 3.*\(5, 4\)"),
        ((torch.zeros(5, 4), torch.zeros(5, 3)), r"mean of the encoder .*N, 3.*\(5, 4\)"),
        ((torch.zeros(5, 3), None), r"logvar of the encoder .*NoneType"),
        ("mean", r"encoder must .*str"),
    ],
)
def test_what_an_encoder_returns(value: object, message: str) -> None:
    model = FusedVAE(12, 3, (4,), encoder=Returns(value))
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(5, 12))


@pytest.mark.parametrize(
    ("variance", "value", "message"),
    [
        ("learned", torch.zeros(5, 12), r"decoder must .*N, 24.*\(5, 12\)"),
        ("learned", (torch.zeros(5, 12),), "decoder must"),
        ("fixed", torch.zeros(5, 24), r"mean of the decoder .*N, 12.*\(5, 24\)"),
        ("shared", (torch.zeros(5, 12),) * 2, "mean of the decoder"),
    ],
)
def test_what_a_decoder_returns(variance: str, value: object, message: str) -> None:
    model = FusedVAE(12, 3, (4,), decoder=Returns(value), decoder_variance=variance)
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(5, 12))


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"seed": -1}, r"seed .*-1"),
        ({"seed": 2**64}, r"seed .*18446744073709551616"),
        ({"eps": torch.zeros(5, 4)}, r"eps .*\(5, 3\).*\(5, 4\)"),
        ({"eps": torch.zeros(5, 3), "seed": 1}, r"eps.*seed"),
        ({"row_offset": -1}, r"row_offset .*-1"),
    ],
)
def test_noise(noise: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedVAE(12, 3, (4,))(torch.zeros(5, 12), **noise)
