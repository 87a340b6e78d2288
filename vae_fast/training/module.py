"""The VAE as Lightning trains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from vae_fast import FusedVAE, GaussianPrior
from vae_fast.training.config import RunConfig
from vae_fast.training.errors import UserError
from vae_fast.training.loader import Batch
from vae_fast.training.seeds import HELD_OUT, INITIAL, STEP, derive

# Adam moves a parameter by about its rate a step. The logarithm of the decoder's variance, where
# that is no output of a network, has several units to go, a weight a fraction of one: at the
# weights' rate a run would end long before.
LOGVAR_RATE = 30


class Terms(NamedTuple):
    """The ELBO, log_likelihood - kl with no beta, and its terms: means over rows, in nats."""

    elbo: float
    log_likelihood: float
    kl: float


def build_model(config: RunConfig, input_shape: Sequence[int]) -> FusedVAE:
    """The model of a run with its initial weights, which the run's seed alone decides."""
    learned = config.prior == "learned"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, INITIAL))
        return FusedVAE(
            input_shape,
            config.latent_dim,
            config.hidden_dims,
            decoder_variance=config.decoder_variance,
            decoder_logvar_min=config.decoder_logvar_min,
            objective=config.make_objective(),
            prior=GaussianPrior(config.latent_dim, learned=True) if learned else None,
            backend=config.backend,
        )


class VAEModule(LightningModule):
    """One optimiser step a batch, with noise that the run's seed and the step decide.

    Args:
        model: what is trained.
        config: the run's options.
        total_steps: of the whole run, after which the learning rate is 0.
    """

    def __init__(self, model: FusedVAE, config: RunConfig, total_steps: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        # Not asked of Lightning: to count them it would make the loaders before it has read the
        # checkpoint, and a resumed epoch would then begin with its first batch.
        self.total_steps = total_steps
        self.train_terms = self.held_out_terms = Terms(math.nan, math.nan, math.nan)
        # Sums over this process's rows since the epoch began: log-likelihood, KL, rows. Not a
        # buffer: data-parallel training would overwrite it with that of the first process.
        self.sums = torch.zeros(3, dtype=torch.float64)

    def on_fit_start(self) -> None:
        self.sums = self.sums.to(self.device)

    def _add(self, log_likelihood: Tensor, kl: Tensor) -> None:
        self.sums += torch.stack(
            [
                log_likelihood.sum(dtype=torch.float64),
                kl.sum(dtype=torch.float64),
                self.sums.new_tensor(len(kl)),
            ]
        )

    def _total(self) -> Tensor:
        """``sums`` over all processes."""
        # A copy, since the reduction writes into its argument.
        total = self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def _take_terms(self) -> Terms:
        log_likelihood, kl, rows = self._total().tolist()
        self.sums.zero_()
        return Terms((log_likelihood - kl) / rows, log_likelihood / rows, kl / rows)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, row_offset = batch
        seed = derive(self.config.seed, STEP, self.global_step)
        self.model.set_step(self.global_step)
        out = self.model(x, seed=seed, row_offset=row_offset)
        self._add(out.log_likelihood, out.kl)
        means = {"log_likelihood": out.log_likelihood.mean(), "kl": out.kl.mean()}
        self.log_dict(means, prog_bar=True, logger=False, batch_size=len(x))
        return out.loss

    def on_validation_epoch_start(self) -> None:
        # Validation comes after an epoch's last batch: what is summed so far is the epoch's.
        self.train_terms = self._take_terms()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        x, row_offset = batch
        # The same noise after every epoch, so that the curve shows the model and not the noise.
        out = self.model(x, seed=derive(self.config.seed, HELD_OUT), row_offset=row_offset)
        self._add(out.log_likelihood, out.kl)

    def on_validation_epoch_end(self) -> None:
        self.held_out_terms = self._take_terms()

    def on_train_epoch_end(self) -> None:
        if not math.isfinite(self.train_terms.elbo):
            raise UserError(
                f"training diverged in epoch {self.current_epoch + 1}: the ELBO is "
                f"{self.train_terms.elbo}; try a smaller --learning-rate than "
                f"{self.config.learning_rate:g}"
            )

    def configure_optimizers(self) -> Any:
        rate = self.config.learning_rate
        logvar = getattr(self.model, "decoder_logvar", None)
        groups = [
            {"params": [p for p in self.parameters() if p is not logvar], "lr": rate},
            {"params": [] if logvar is None else [logvar], "lr": LOGVAR_RATE * rate},
        ]
        # Fused: one pass over the parameters, where the default makes a dozen.
        optimizer = torch.optim.Adam([group for group in groups if group["params"]], fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: 0.5 * (1 + math.cos(math.pi * min(step / self.total_steps, 1.0))),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sums"] = self._total()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The whole epoch so far, counted once.
        self.sums = checkpoint["sums"] * (self.global_rank == 0)
