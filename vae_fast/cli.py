"""The `vae-fast` command: reads its arguments, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, NoReturn

from vae_fast._version import __version__
from vae_fast.errors import BackendUnavailableError
from vae_fast.training import config as settings
from vae_fast.training.errors import Interrupted, UserError, require_extra

USER_ERROR = 2
LONGEST = 4000  # characters of an error's line

TRAIN_TEXT = """\
Train a variational autoencoder and report its held-out ELBO beside probabilistic PCA.

The run folder gets config.json, checkpoint.safetensors, metrics.csv, results.json,
curves.png, reconstructions.png, samples.png and, for 2 latents, latent_map.png.
Ctrl-C saves the state; `vae-fast train --resume --out DIR` goes on from there, to the
same weights as without the interruption.
"""


class Parser(argparse.ArgumentParser):
    """Its errors take the same one line as all others of this command."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number; got {text!r}") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number; got {text!r}") from None


def widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected widths as in 512,256; got {text!r}") from None


# Each a field of RunConfig: (how it is read, its name in the help, the help).
DATA = {
    "data": (str, "DATA", "digits (scikit-learn's), an .npy or .npz file, or a folder of images"),
    "validation_fraction": (number, "F", "part of the rows to hold out"),
}
MODEL = {
    "latent_dim": (whole, "D", "latents a row"),
    "hidden_dims": (widths, "W,W", "hidden widths of the encoder; the decoder has them reversed"),
    "decoder_variance": (
        str,
        "KIND",
        "variance of p(x|z): " + ", ".join(settings.VARIANCES),
    ),
    "decoder_logvar_min": (number, "V", "lower bound of the decoder's log-variance"),
    "prior": (str, "KIND", "of z: " + ", ".join(settings.PRIORS)),
}
OBJECTIVE = {
    "objective": (str, "NAME", "bound on ln p(x): " + ", ".join(settings.OBJECTIVES)),
    "num_samples": (whole, "L", "samples of z a row in each step"),
    "estimator": (
        str,
        "NAME",
        "of the encoder's gradient: " + ", ".join(settings.ESTIMATORS) + "; score_function is "
        "for elbo, dreg for iwae",
    ),
    "baseline": (str, "NAME", "of the score function: " + ", ".join(settings.BASELINE_NAMES)),
    "beta": (number, "B", "weight of the KL in the loss; the ELBO is reported without it"),
    "beta_schedule": (
        str,
        "NAME",
        "how beta rises from 0: constant (not at all), " + ", ".join(settings.BETA_SCHEDULES),
    ),
    "beta_steps": (whole, "N", "steps that it rises for; for cyclical, those of a cycle"),
    "free_bits": (number, "NATS", "of KL that cost nothing"),
    "free_bits_per": (str, "PART", "for each " + ", ".join(settings.FREE_BITS_PER)),
    "capacity": (number, "NATS", "of KL, from which the distance is weighted"),
    "capacity_steps": (whole, "N", "steps in which the capacity rises from 0; 0: at once"),
    "balance": (number, "A", "part of the KL's gradient that a learned prior gets, from 0 to 1"),
}
OPTIMISATION = {
    "epochs": (whole, "N", "passes over the training rows"),
    "batch_size": (whole, "N", "rows a step, over all processes"),
    "learning_rate": (number, "RATE", "Adam's at the start; it falls to 0 along a cosine"),
    "seed": (whole, "SEED", "decides the weights, what is held out, the order and the noise"),
}
MACHINE = {
    "backend": (str, "NAME", "kernels: " + ", ".join(settings.BACKENDS) + "; default the best"),
    "accelerator": (str, "NAME", "device: " + ", ".join(settings.ACCELERATORS)),
    "devices": (whole, "N", "how many devices, each with a process of its own"),
    "precision": (str, "NAME", "arithmetic: " + ", ".join(settings.PRECISIONS)),
    "threads": (whole, "N", "CPU threads a process; default torch's choice"),
}


def add_options(parser: argparse.ArgumentParser, title: str, options: dict[str, Any]) -> None:
    defaults = {field.name: field.default for field in fields(settings.RunConfig)}
    group = parser.add_argument_group(title)
    for name, (kind, metavar, text) in options.items():
        default: Any = defaults[name]
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        shown = "" if default is None else f" (default {default})"
        # The default is the config's: what is not given must not contradict a resumed run.
        group.add_argument(
            settings.option(name),
            type=kind,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=text + shown,
        )


def make_parser() -> Parser:
    parser = Parser(
        prog="vae-fast",
        description="Train, evaluate and sample variational autoencoders with fused kernels.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vae-fast {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )

    def add(name: str, text: str, **more: Any) -> argparse.ArgumentParser:
        more.setdefault("description", text)
        return commands.add_parser(name, help=text, allow_abbrev=False, **more)

    train = add(
        "train",
        "train a model and report its held-out ELBO",
        description=TRAIN_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("--out", required=True, metavar="DIR", help="the run's folder")
    existing = train.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in --out")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    add_options(train, "data", DATA)
    add_options(train, "model", MODEL)
    add_options(train, "objective", OBJECTIVE)
    add_options(train, "optimisation", OPTIMISATION)
    add_options(train, "machine", MACHINE)

    evaluate = add("evaluate", "report a run's held-out ELBO beside probabilistic PCA")
    evaluate.add_argument("run", metavar="RUN", help="the run's folder")
    evaluate.add_argument("--data", metavar="DATA", help="where the run's data is now, if moved")
    evaluate.add_argument(
        "--num-samples", type=whole, default=32, metavar="L", help="samples of z a row (default 32)"
    )
    evaluate.add_argument(
        "--likelihood-samples",
        type=whole,
        default=0,
        metavar="K",
        help="estimate ln p(x) too, by so many samples of z a row (default 0: do not)",
    )
    evaluate.add_argument("--json", action="store_true", help="print the report as JSON")

    sample = add("sample", "draw new rows from a run's model")
    sample.add_argument("run", metavar="RUN", help="the run's folder")
    sample.add_argument("-n", type=whole, default=64, metavar="N", help="how many (default 64)")
    sample.add_argument(
        "--out", default="samples.png", metavar="FILE", help=".png or .npy (default samples.png)"
    )
    sample.add_argument("--seed", type=whole, metavar="SEED", help="default: the run's own")
    for command in evaluate, sample:
        add_options(command, "machine", {key: MACHINE[key] for key in ("backend", "accelerator")})

    add("doctor", "say what is installed here, and which backends run and why the others do not")
    return parser


def say(text: str) -> None:
    """Print to stdout; a full disk behind it is an error of this command, not of Python's exit."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write to stdout: {error.strerror}") from error


def run(arguments: dict[str, Any]) -> None:
    """Do what the parsed arguments ask."""
    command = arguments.pop("command")
    if command == "doctor":
        from vae_fast.doctor import report

        say(report())
        return
    require_extra()
    if command == "train":
        from vae_fast.training.run import train

        out, resume, overwrite = (arguments.pop(name) for name in ("out", "resume", "overwrite"))
        result = train(arguments, out, resume=resume, overwrite=overwrite)
        if result is not None:
            say(f"{result.text()}\nwritten to {out}")
    elif command == "evaluate":
        from vae_fast.training.commands import evaluate

        as_json = arguments.pop("json")
        result = evaluate(arguments.pop("run"), **arguments)
        say(json.dumps(asdict(result)) if as_json else result.text())
    else:
        from vae_fast.training.commands import sample

        out = arguments.pop("out")
        sample(arguments.pop("run"), out, num=arguments.pop("n"), **arguments)
        say(f"written to {out}")


def one_line(error: BaseException) -> str:
    """What ``error`` says, in one line."""
    if isinstance(error, MemoryError) and not str(error):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    # What a file says must not move the cursor.
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get the memory that a model or a batch needs."""
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's) and return its exit status.

    0: done. 2: an error that the user can put right, in one line on stderr. 128 plus the number
    of the signal: interrupted.
    """
    try:
        run(vars(make_parser().parse_args(argv)))
        return 0
    except (Interrupted, KeyboardInterrupt) as error:
        if argv is None:
            # This process ends here; one more Ctrl-C must not break into Python's own exit.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if isinstance(error, Interrupted):
            print(f"vae-fast: {error}", file=sys.stderr)
            return 128 + error.signal
        print("vae-fast: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read the output has seen enough
        return 128 + signal.SIGPIPE
    except (UserError, BackendUnavailableError, OSError, MemoryError) as error:
        message = one_line(error)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = f"not enough memory: {one_line(error)}"
    print(f"vae-fast: error: {message}", file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
