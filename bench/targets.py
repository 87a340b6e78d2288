"""How many times faster than its peers each op is to be, in one run on all cores."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.peers import COMPILED, EAGER, UNCONTROLLED


class Target(NamedTuple):
    op: str
    size: str  # its label
    dtype: str
    direction: str
    at_least: dict[str, float]  # ratio to each peer
    of_limit: float | None = None  # share of the limit


TARGETS = (
    Target("sample_kl", "4096x128", "float32", "both", {EAGER: 7.0, COMPILED: 7.0}),
    Target("sample_kl", "128x20", "float32", "both", {EAGER: 3.0, COMPILED: 4.0}),
    Target("negative_elbo", "256x12288", "float32", "both", {EAGER: 8.0, COMPILED: 2.5}, 0.8),
    Target("negative_elbo", "1024x20000", "float32", "both", {EAGER: 10.0, COMPILED: 3.0}, 0.7),
    Target("negative_elbo", "1024x20000", "bfloat16", "both", {EAGER: 10.0, COMPILED: 3.0}),
    Target("free_bits_sample_kl", "4096x128", "float32", "both", {UNCONTROLLED: 0.91}),
    Target("iwae", "128x32", "float32", "both", {EAGER: 4.0, COMPILED: 1.0}),
    Target("score_function", "128x32", "float32", "both", {EAGER: 3.0}),
    Target("mlp784", "128x784", "float32", "step", {EAGER: 1.15, COMPILED: 1.0}),
    Target("tabular20000", "1024x20000", "float32", "step", {EAGER: 1.5, COMPILED: 1.1}),
)
MEMORY_SHARE = 0.5  # of eager's peak, for a whole loss
OUTSIDE_MATRIX_PRODUCTS = 0.1  # of the time of a step of mlp784
NOISE_NANOSECONDS = 1.3  # a normal a core

LIMIT, MEMORY, SHARE, NOISE = "limit", "eager's memory", "outside matrix products", "a normal"


class Verdict(NamedTuple):
    """A line of the table of targets; also how it stands in a file of results."""

    work: str
    peer: str  # or what else it is measured against
    wanted: str
    got: str
    outcome: str


def _verdict(work: str, peer: str, wanted: str, got: str, reached: bool) -> Verdict:
    return Verdict(work, peer, wanted, got, "reached" if reached else "not reached")


def _at_most(work: str, peer: str, most: float, got: float, percent: bool = True) -> Verdict:
    show = "{:.0%}" if percent else "{:.2f} ns"
    return _verdict(work, peer, f"≤ {show.format(most)}", show.format(got), got <= most)


def judge(row: dict[str, Any]) -> list[Verdict]:
    """The verdicts on one comparison; none where there is no target for it."""
    key = tuple(row[part] for part in ("op", "size", "dtype", "direction"))
    verdicts = []
    for target in TARGETS:
        if target[:4] != key:
            continue
        work = " ".join(key)
        for peer, wanted in target.at_least.items():
            if peer in row["ratios"]:
                got = row["ratios"][peer][1]
                verdicts.append(_verdict(work, peer, f"{wanted:g}x", f"{got:.2f}x", got >= wanted))
        share = row.get("of_limit")
        if target.of_limit is not None and share is not None:
            reached = share >= target.of_limit
            shown = f"{target.of_limit:.0%}", f"{share:.0%}"
            verdicts.append(_verdict(work, LIMIT, *shown, reached))
    return verdicts


def judge_all(results: dict[str, Any]) -> list[Verdict]:
    """Of what was measured with all threads, and of memory, counts and noise where they were."""
    verdicts = [
        verdict
        for row in results["comparisons"]
        if row["threads"] == results["machine"]["cores"]
        and results["machine"]["accelerator"] is None  # they are of a CPU; those of a GPU, gpu.py's
        for verdict in judge(row)
    ]
    for row in results.get("memory", ()):
        peaks = row["bytes"]
        if row["op"] == "elbo" and EAGER in peaks and peaks[EAGER]:
            work = f"elbo {row['size']} {row['dtype']} peak"
            verdicts.append(_at_most(work, MEMORY, MEMORY_SHARE, peaks["vae_fast"] / peaks[EAGER]))
    for row in results.get("counts", ()):
        shares = row["shares"].get("vae_fast")
        if row["op"] == "mlp784" and shares is not None:
            work, got = f"mlp784 {row['size']} step", shares["outside_matrix_products"]
            verdicts.append(_at_most(work, SHARE, OUTSIDE_MATRIX_PRODUCTS, got))
    noise = results.get("noise_ns") or {}
    if results["machine"]["instruction_set"] in noise:
        got = noise[results["machine"]["instruction_set"]]
        verdicts.append(_at_most("noise, one core", NOISE, NOISE_NANOSECONDS, got, percent=False))
    return verdicts
