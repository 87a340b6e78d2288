"""The options of a run: their defaults, their bounds, and their JSON."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields

from vae_fast.model import DECODER_VARIANCES
from vae_fast.objectives import (
    ELBO,
    IWAE,
    Constant,
    Cosine,
    Cyclical,
    FreeBits,
    Linear,
    Schedule,
)
from vae_fast.objectives.baselines import BASELINES
from vae_fast.training.errors import UserError
from vae_fast.training.reading import is_number, is_whole, shown

VARIANCES = DECODER_VARIANCES
OBJECTIVES = ("elbo", "iwae")
ESTIMATORS = ("reparameterization", "score_function", "stl", "dreg")
BASELINE_NAMES = (*BASELINES, "none")
FREE_BITS_PER = ("dimension", "element", "row")
BETA_SCHEDULES = {"linear": Linear, "cyclical": Cyclical, "cosine": Cosine}
PRIORS = ("standard", "learned")
BACKENDS = ("cuda", "triton", "cpu", "reference")
ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")

# How long and on what a run goes on, not what it computes: these may change at --resume. So may
# the path of the data, which must hold the same rows.
CHANGEABLE = ("data", "epochs", "backend", "accelerator", "devices", "precision", "threads")

# Options that configs of earlier versions lack; their runs have the defaults.
ADDED = (
    "objective", "estimator", "baseline", "free_bits", "free_bits_per", "capacity",
    "capacity_steps", "balance", "beta_schedule", "beta_steps", "prior",
)  # fmt: skip


MOST_LAYERS = 1000


def option(name: str) -> str:
    """The command-line spelling of a field: ``latent_dim`` is ``--latent-dim``."""
    return "--" + name.replace("_", "-")


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """UserError, naming the option, where ``value`` is no int from ``low`` to ``high``."""
    if not is_whole(value, low, high):
        raise UserError(
            f"{option(name)} must be a whole number from {low} to {high}; got {shown(value)}"
        )


def _number(name: str, value: object, low: float, high: float, low_open: bool = False) -> None:
    inside = is_number(value) and low <= value <= high  # type: ignore[operator]
    if not inside or (low_open and value == low):
        start = f"above {low:g}" if low_open else f"from {low:g}"
        raise UserError(f"{option(name)} must be a number {start} to {high:g}; got {shown(value)}")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{option(name)} must be one of {', '.join(choices)}; got {shown(value)}")


def _is_path(text: str) -> bool:
    """Whether the system can be asked for a file of that name."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a character, which JSON can hold
        return False


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and how it is run.

    Raises:
        UserError: a value is out of its bounds, or two of them do not go together.
    """

    data: str = "digits"
    validation_fraction: float = 0.2
    latent_dim: int = 16
    hidden_dims: tuple[int, ...] = (512, 256)
    decoder_variance: str = "learned"
    decoder_logvar_min: float = -6.0
    prior: str = "standard"
    objective: str = "elbo"
    num_samples: int = 1
    estimator: str = "reparameterization"
    baseline: str = "auto"
    beta: float = 1.0
    beta_schedule: str = "constant"
    beta_steps: int = 0
    free_bits: float = 0.0
    free_bits_per: str = "dimension"
    capacity: float = 0.0
    capacity_steps: int = 0
    balance: float | None = None
    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    backend: str | None = None
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.data, str) or not self.data or not _is_path(self.data):
            raise UserError(f"--data must name a data set or a path; got {self.data!r:.200}")
        _number("validation_fraction", self.validation_fraction, 0, 0.9, low_open=True)
        check_whole("latent_dim", self.latent_dim, 1, 10**6)
        if not isinstance(self.hidden_dims, tuple) or not self.hidden_dims:
            raise UserError(
                f"--hidden-dims must be widths such as 512,256; got {shown(self.hidden_dims)}"
            )
        if len(self.hidden_dims) > MOST_LAYERS:
            raise UserError(
                f"--hidden-dims must be at most {MOST_LAYERS} widths; got {len(self.hidden_dims)}"
            )
        for width in self.hidden_dims:
            check_whole("hidden_dims", width, 1, 10**6)
        _one_of("decoder_variance", self.decoder_variance, VARIANCES)
        _number("decoder_logvar_min", self.decoder_logvar_min, -30, 20)
        _one_of("prior", self.prior, PRIORS)
        self._check_objective()
        check_whole("epochs", self.epochs, 1, 10**9)
        check_whole("batch_size", self.batch_size, 1, 10**9)
        _number("learning_rate", self.learning_rate, 0, 100, low_open=True)
        check_whole("seed", self.seed, 0, 2**64 - 1)
        if self.backend is not None:
            _one_of("backend", self.backend, BACKENDS)
        _one_of("accelerator", self.accelerator, ACCELERATORS)
        check_whole("devices", self.devices, 1, 256)
        _one_of("precision", self.precision, PRECISIONS)
        if self.threads is not None:
            check_whole("threads", self.threads, 1, 1024)
        if self.batch_size % self.devices:
            raise UserError(
                f"--batch-size must be a multiple of --devices, {self.devices}, "
                f"since each process takes an equal part; got {self.batch_size}"
            )

    def _check_objective(self) -> None:
        _one_of("objective", self.objective, OBJECTIVES)
        check_whole("num_samples", self.num_samples, 1, 10**4)
        _one_of("estimator", self.estimator, ESTIMATORS)
        _one_of("baseline", self.baseline, BASELINE_NAMES)
        _number("beta", self.beta, 0, 1e6)
        _one_of("beta_schedule", self.beta_schedule, ("constant", *BETA_SCHEDULES))
        check_whole("beta_steps", self.beta_steps, 0, 10**9)
        if (self.beta_steps > 0) != (self.beta_schedule != "constant"):
            raise UserError(
                "--beta-steps must be above 0 for a --beta-schedule that is not constant, and 0 "
                f"for one that is; got {self.beta_steps} for {self.beta_schedule}"
            )
        _number("free_bits", self.free_bits, 0, 1e6)
        _one_of("free_bits_per", self.free_bits_per, FREE_BITS_PER)
        _number("capacity", self.capacity, 0, 1e6)
        check_whole("capacity_steps", self.capacity_steps, 0, 10**9)
        if self.capacity_steps and not self.capacity:
            raise UserError(
                f"--capacity-steps needs a --capacity above 0; got {self.capacity_steps} steps"
            )
        if self.balance is not None:
            _number("balance", self.balance, 0, 1)
        try:
            objective = self.make_objective()
            objective.check_model(
                (self.latent_dim,), self.prior == "learned", self.decoder_variance
            )
        except ValueError as error:
            raise UserError(f"--objective {self.objective}: {error}") from error

    def make_objective(self) -> ELBO | IWAE:
        """What the options ask for; ValueError where two of them do not go together."""
        beta: float | Schedule = self.beta
        if self.beta_schedule != "constant":
            beta = BETA_SCHEDULES[self.beta_schedule](0.0, self.beta, self.beta_steps)
        # 0 nats of either change nothing.
        free_bits = FreeBits(self.free_bits, self.free_bits_per) if self.free_bits else None
        capacity: Schedule | None = None
        if self.capacity:
            steps, nats = self.capacity_steps, self.capacity
            capacity = Linear(0.0, nats, steps) if steps else Constant(nats)
        if self.objective == "elbo":
            baseline = None if self.baseline == "none" else self.baseline
            return ELBO(
                self.num_samples, self.estimator, beta, free_bits, capacity, self.balance, baseline
            )
        if self.baseline != "auto":
            raise ValueError(f"it has no baseline; got {self.baseline!r}")
        controls = {"free_bits": free_bits, "capacity": capacity, "balance": self.balance}
        return IWAE(self.num_samples, self.estimator, beta, **controls)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return {**asdict(self), "hidden_dims": list(self.hidden_dims)}

    @classmethod
    def from_json(cls, values: object) -> RunConfig:
        """The config that ``to_json`` gave; UserError where ``values`` cannot be one."""
        if not isinstance(values, dict):
            raise UserError(f"the options must be an object; got {shown(values)}")
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise UserError(f"unknown options: {shown(', '.join(unknown))}")
        if missing := sorted(names - set(values) - set(ADDED)):
            raise UserError(f"missing options: {', '.join(missing)}")
        hidden_dims = values["hidden_dims"]
        if isinstance(hidden_dims, list):
            values = {**values, "hidden_dims": tuple(hidden_dims)}
        return cls(**values)
