"""Models made without memory, copied, averaged, parametrized, quantized, and of mixed dtypes."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vae_fast import FusedVAE, GaussianPrior
from vae_fast.objectives import ELBO, IWAE, Cosine, Cyclical, FreeBits, Linear

GROUPS = {"a": [3, 0], "b": [1], "c": [2]}
PRIORS = {
    "standard": lambda: None,
    "fixed": lambda: GaussianPrior(4, torch.tensor([0.5, 0.0, -0.5, 0.2]), 0.3, learned=False),
    "learned": lambda: GaussianPrior(4, torch.tensor([0.5, 0.0, -0.5, 0.2]), 0.3, learned=True),
}
OBJECTIVES = {
    "elbo": ELBO(2, beta=0.7),
    "dimension": ELBO(beta=Linear(0.5, 1, 9), free_bits=FreeBits(0.4)),
    "element": ELBO(free_bits=FreeBits(0.4, per="element")),
    "row": ELBO(free_bits=FreeBits(0.4, per="row")),
    "group": ELBO(free_bits=FreeBits(0.4, per="group", groups=GROUPS)),
    "capacity": ELBO(capacity=Cosine(0.5, 3, 9)),
    "score": ELBO(2, "score_function", baseline="running_mean"),
    "stl": ELBO(estimator="stl", beta=Cyclical(0.5, 1, 9)),
    "iwae": IWAE(3),
    "dreg": IWAE(3, "dreg"),
}
VARIANCES = ("learned", "per_feature", "shared", "fixed", "optimal")
COMBINED = [
    (objective, prior, variance)
    for objective in OBJECTIVES
    for prior in PRIORS
    for variance in VARIANCES
    if variance != "optimal" or objective not in ("score", "iwae", "dreg")
]


def make(objective: str = "elbo", prior: str = "standard", variance: str = "fixed") -> FusedVAE:
    """Weights that are another model's at each call."""
    return FusedVAE(
        6, 4, (8,), objective=OBJECTIVES[objective], prior=PRIORS[prior](),
        decoder_variance=variance,
    )  # fmt: skip


def trained(*options: str) -> FusedVAE:
    """After two steps, of which running means know."""
    model = make(*options)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(2):
        model.set_step(step)
        optimizer.zero_grad()
        model(torch.randn(5, 6), seed=step).loss.backward()
        optimizer.step()
    return model


def assert_alike(found: FusedVAE, want: FusedVAE) -> None:
    """Losses of two steps, with their gradients, and without training."""
    x = torch.randn(5, 6)
    for step in (1, 6):
        results = []
        for model in (found, want):
            model.set_step(step)
            loss = model(x, seed=step).loss
            gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
            results.append((loss, gradients, model.eval()(x, seed=step)[:4]))
            model.train()
        torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory has no values that could be right by chance: of bools and ints neither."""
    empty_like = torch.empty_like

    def filled(*given: object, **options: object) -> Tensor:
        made = empty_like(*given, **options)
        return made.fill_(float("nan") if made.is_floating_point() else 1)

    monkeypatch.setattr(torch, "empty_like", filled)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("objective", "prior", "variance"), COMBINED)
def test_made_without_memory(objective: str, prior: str, variance: str) -> None:
    """What is not in the state dict follows from the configuration."""
    want = trained(objective, prior, variance)
    for assign in (False, True):
        with torch.device("meta"):
            model = make(objective, prior, variance)
        if not assign:
            model.to_empty(device="cpu")
        model.load_state_dict(copy.deepcopy(want.state_dict()), assign=assign)
        assert_alike(model, copy.deepcopy(want))


@pytest.mark.usefixtures("poisoned")
def test_running_means_begin_anew_without_a_state() -> None:
    with torch.device("meta"):
        model = make("score", variance="fixed")
    model.to_empty(device="cpu")
    assert torch.equal(model.objective_state.running_mean.sums, torch.zeros(2).double())


def test_no_key_is_new_in_a_state_dict() -> None:
    """Files of the first version are read as they are."""
    names = set(make("group", "fixed", "shared").state_dict())
    layers = {
        f"{part}.{name}"
        for part in ("encoder", "decoder")
        for name in ("hidden.1.weight", "hidden.1.bias", "heads.0.weight", "heads.0.bias")
    }
    layers |= {"encoder.heads.1.weight", "encoder.heads.1.bias"}
    assert names == layers | {"decoder_logvar", "prior.mean", "prior.logvar"}
    assert set(make("score").state_dict()) == layers | {"objective_state.running_mean.sums"}


@pytest.mark.parametrize("assign", [False, True])
def test_a_shared_variance_of_before(assign: bool) -> None:
    """It was 0-dim, is of one element, and still serves as 0-dim."""
    model = make(variance="shared")
    assert model.decoder_logvar.shape == (1,)
    old = model.state_dict() | {"decoder_logvar": torch.tensor(-1.5)}
    model.load_state_dict(old, assign=assign)
    assert old["decoder_logvar"].shape == ()  # the caller's own
    logvar = model(torch.randn(5, 6)).logvar
    assert logvar.shape == () and logvar.item() == -1.5
    outer = nn.ModuleDict({"inner": make(variance="shared")})
    outer.load_state_dict({f"inner.{name}": value for name, value in old.items()})
    assert outer["inner"].decoder_logvar.item() == -1.5
    # Earlier versions have a 0-dim parameter, for which torch takes a tensor of one element.
    earlier = nn.Module()
    earlier.decoder_logvar = nn.Parameter(torch.zeros(()))
    earlier.load_state_dict({"decoder_logvar": model.decoder_logvar.detach()})
    assert earlier.decoder_logvar.item() == -1.5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_dtypes_and_back(objective: str) -> None:
    """To half and back only the weights are rounded."""
    want = trained(objective, "fixed", "shared")
    model = copy.deepcopy(want).half().float()
    with torch.no_grad():
        for tensor in (*want.parameters(), *want.prior.buffers()):
            tensor.copy_(tensor.half())
    assert_alike(model, want)


def deep(model: FusedVAE) -> FusedVAE:
    return copy.deepcopy(model)


def pickled(model: FusedVAE) -> FusedVAE:
    return pickle.loads(pickle.dumps(model))


def saved(model: FusedVAE) -> FusedVAE:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [deep, pickled, saved])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_copies(objective: str, way: Callable[[FusedVAE], FusedVAE]) -> None:
    for model in (make(objective, "learned", "shared"), trained(objective, "learned", "shared")):
        twin = way(model)
        assert twin.objective == model.objective and repr(twin) == repr(model)
        assert_alike(twin, copy.deepcopy(model))
        model.beta, value = 1.0, twin.beta
        twin.set_step(3)
        assert model.beta == 1.0 and model.objective_state.beta.tensor.item() == 1.0
        twin.objective_state.beta.tensor.fill_(value)
    assert pickle.loads(pickle.dumps(model.objective)) == model.objective


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)], ids=["swa", "ema"])
@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize(
    ("objective", "variance"),
    [("group", "optimal"), ("score", "shared"), ("capacity", "per_feature"), ("dreg", "learned")],
)
def test_averages(objective: str, variance: str, buffers: bool, average) -> None:
    """What is learned is averaged; what is scheduled is not, and is the average's own."""
    model = make(objective, "learned", variance)
    averaged = AveragedModel(model, use_buffers=buffers, multi_avg_fn=average)
    x = torch.randn(5, 6)
    for step in range(3):
        model.set_step(step)
        model(x, seed=step).loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        averaged.update_parameters(model)
    inner = averaged.module
    inner.set_step(2)
    assert inner.beta == model.beta == inner.objective_state.beta.tensor.item()
    out = averaged(x, seed=5)
    assert out.loss.isfinite() and not torch.equal(out.loss, model(x, seed=5).loss)
    want = make(objective, "learned", variance)
    want.load_state_dict(inner.state_dict())
    assert_alike(inner, want)


class Shifted(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value + 0.5


def test_parametrized() -> None:
    """Networks, the decoder's variance and the prior, with gradients that reach the originals."""
    for variance in ("shared", "per_feature"):
        model = make("group", "learned", variance)
        for layer in model.encoder.heads:
            parametrizations.weight_norm(layer)
        parametrizations.spectral_norm(model.decoder.heads[0])
        plain = copy.deepcopy(model)
        parametrize.register_parametrization(model, "decoder_logvar", Shifted())
        for name in ("mean", "logvar"):
            parametrize.register_parametrization(model.prior, name, Shifted())
        assert "learned=True" in repr(model.prior)
        with torch.no_grad():
            for tensor in (plain.decoder_logvar, plain.prior.mean, plain.prior.logvar):
                tensor.add_(0.5)
        x = torch.randn(5, 6)
        losses = [m.eval()(x, seed=3).loss for m in (model, plain)]
        assert torch.equal(*losses)
        losses[0].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert model.sample(3, seed=1, add_noise=True).shape == (3, 6)
        twin = copy.deepcopy(model)
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin(x, seed=3).loss, losses[0])


def test_an_old_shared_variance_for_a_parametrized_one() -> None:
    model = make(variance="shared")
    parametrize.register_parametrization(model, "decoder_logvar", Shifted())
    key = "parametrizations.decoder_logvar.original"
    model.load_state_dict(model.state_dict() | {key: torch.tensor(1.0)})
    assert model.decoder_logvar.tolist() == [1.5]


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_quantized(variance: str, prior: str) -> None:
    """Its layers have no parameters left."""
    model = make(prior=prior, variance=variance)
    x = torch.randn(5, 6)
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert not list(small.decoder.parameters())
    for method, given in (("sample", 50), ("reconstruct", x)):
        options = {"seed": 3} if method == "sample" else {}
        found, want = (getattr(m, method)(given, **options) for m in (small, model))
        assert found.dtype is torch.float32
        torch.testing.assert_close(found, want, rtol=0.1, atol=0.1)
    assert small.sample(3, add_noise=True).isfinite().all()
    torch.testing.assert_close(small(x, seed=3).loss, model(x, seed=3).loss, rtol=0.1, atol=0.5)
    assert small.log_likelihood(x, 3).shape == (5,)


class Same(nn.Module):
    """A network without parameters, and with a buffer of a dtype where one is asked for."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        if dtype is not None:
            self.register_buffer("scale", torch.ones((), dtype=dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.zeros_like(x)


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16], ids=str)
def test_networks_without_parameters(dtype: torch.dtype | None) -> None:
    model = FusedVAE(4, 4, encoder=Same(), decoder=Same(dtype))
    assert model.sample(3).dtype is (dtype or torch.float32)
    assert model.reconstruct(torch.ones(2, 4)).shape == (2, 4)
    if dtype is None:
        torch.set_default_dtype(torch.float64)
        try:
            assert model.sample(3).dtype is torch.float64
        finally:
            torch.set_default_dtype(torch.float32)


MIXTURES = [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16),
            (torch.float64, torch.float32), (torch.float16, torch.float64)]  # fmt: skip


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize(("of_encoder", "of_decoder"), MIXTURES, ids=str)
def test_mixed_dtypes(of_encoder: torch.dtype, of_decoder: torch.dtype, variance: str) -> None:
    """z goes to the decoder in its own dtype."""
    for objective in ("elbo", "iwae") if variance != "optimal" else ("elbo",):
        model = make(objective, "learned", variance)
        model.encoder.to(of_encoder)
        model.decoder.to(of_decoder)
        x = torch.randn(5, 6).to(of_encoder)
        out = model(x, seed=3)
        assert out.z.dtype is out.posterior_mean.dtype is of_encoder
        assert out.mean.dtype is of_decoder
        out.loss.backward()
        for parameter in model.parameters():
            assert parameter.grad.isfinite().all() and parameter.grad.dtype is parameter.dtype
        assert model.encoder.heads[0].weight.grad.abs().sum() > 0
        assert model.sample(3).dtype is model.reconstruct(x).dtype is of_decoder
        assert model.log_likelihood(x, 3).isfinite().all()


def test_mixed_dtypes_are_left_to_a_decoder_of_two_and_to_autocast() -> None:
    seen = []
    model = make()
    model.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    model.decoder.heads.double()
    with pytest.raises(RuntimeError, match="dtype"):
        model.decode(torch.ones(2, 4, dtype=torch.bfloat16))
    model = make()
    model.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(5, 6))
    assert seen == [torch.bfloat16] * 2


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_mixed_dtypes_compiled() -> None:
    torch._dynamo.reset()
    model = make("group", "learned", "shared")
    model.encoder.bfloat16()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, seed = torch.randn(5, 6).bfloat16(), torch.tensor(3)
    torch.testing.assert_close(compiled(x, seed=seed).loss, model(x, seed=seed).loss)
