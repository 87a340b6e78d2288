"""The tables of what a machine's results have; of what they do not have, an empty text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bench.floor import EMPTY
from bench.models import MODELS
from bench.peers import COMPILED, EAGER, OURS
from bench.results import Results, peers_in
from bench.results import rows as timed
from bench.targets import LIMIT

Row = dict[str, Any]

DIRECTIONS_AT = 2**22  # elements
OF_COPY = "share of a copy's speed"
# A small, a middle and a large call.
DECIDING = {
    "sample_kl": ("128x20", "4096x128", "64x16384"),
    "negative_elbo": ("128x784", "256x12288", "1024x20000"),
    "elbo": ("128x20+784", "256x64+12288", "1024x32+20000"),
}
GRAPH = f"{COMPILED} reduce-overhead"  # in a CUDA graph
WAYS = (EAGER, COMPILED, GRAPH, OURS, f"{OURS} {COMPILED}", f"{OURS} {GRAPH}")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header, rows = list(header), list(rows)
    if not rows:
        return ""
    align = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, align, *rows))


def pivot(
    header: tuple[str, ...], lines: dict[tuple[str, ...], dict[Any, str]], columns: dict[Any, str]
) -> str:
    """A row a key of ``lines``, with its cells in the columns."""
    rows = ((*key, *(cells.get(at, "–") for at in columns)) for key, cells in lines.items())
    return table((*header, *columns.values()), rows)


def show_time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def show_bytes(count: float | None) -> str:
    return "–" if count is None else f"{count / 2**20:.1f} MiB"


def _spread(values: list[float] | None) -> str:
    if values is None:
        return "–"
    low, middle, high = values
    return f"**{middle:.2f}** ({low:.2f} to {high:.2f})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def work(row: Row) -> str:
    dtype = "" if row.get("dtype", "float32") == "float32" else f" {row['dtype']}"
    return f"`{row['op']}` {row['size']}{dtype}"


def _others(row: Row) -> str:
    """Of the peers that have no column of their own."""
    found = {peer: ratio for peer, ratio in row["ratios"].items() if peer not in (EAGER, COMPILED)}
    return ", ".join(f"{peer} {ratio[1]:.2f}" for peer, ratio in found.items()) or "–"


def _compiling(row: Row) -> str:
    return ", ".join(f"{s:.1f} s" for s in row["compile_seconds"].values()) or "–"


def _spreads(row: Row, peers: Iterable[str] = (EAGER, COMPILED)) -> list[str]:
    return [_spread(row["ratios"].get(peer)) for peer in peers]


def _ours(row: Row) -> tuple[str, str]:
    return show_time(row["seconds"][OURS][1]), _share(row["of_limit"])


def ratios(rows: Iterable[Row]) -> str:
    """Ratios first, then the time of one call, its share of a copy's, and what compiling took."""
    return table(
        ("work", "eager ÷ ours", "compiled ÷ ours", "others ÷ ours", "ours", OF_COPY, "compiling"),
        ((work(row), *_spreads(row), _others(row), *_ours(row), _compiling(row)) for row in rows),
    )


def _threads(results: Results, count: int) -> list[Row]:
    return [row for row in results["comparisons"] if row["threads"] == count]


def all_threads(results: Results) -> str:
    rows = _threads(results, results["machine"]["cores"])
    return ratios(row for row in rows if row["op"] not in MODELS)


def one_thread(results: Results) -> str:
    return ratios(_threads(results, 1))


def steps(results: Results) -> str:
    rows = _threads(results, results["machine"]["cores"])
    return ratios(row for row in rows if row["op"] in MODELS)


def deciding(results: Results) -> list[Row]:
    """What a person decides by: a few calls in float32 and all training steps, by few peers."""
    return [
        row | {part: {name: row[part][name] for name in WAYS if name in row[part]}
               for part in ("ratios", "seconds")}
        for row in _threads(results, results["machine"]["cores"])
        if row["op"] in MODELS
        or (row["dtype"] == "float32" and row["size"] in DECIDING.get(row["op"], ()))
    ]  # fmt: skip


def decides(results: Results) -> str:
    rows = deciding(results)
    peers = peers_in(rows)
    header = "work", *(f"{peer} ÷ ours" for peer in peers), "ours"
    return table(header, ((work(row), *_spreads(row, peers), _ours(row)[0]) for row in rows))


def target_table(results: Results) -> str:
    rows = ([OF_COPY if cell == LIMIT else cell for cell in row] for row in results["targets"])
    return table(("work", "against", "at least", "got", "target"), rows)


def _exponent(row: Row) -> int:
    return int(row["elements"]).bit_length() - 1


def curves(results: Results) -> str:
    """A column a size; for each op, how many times longer others take, and ours beside a copy."""
    rows = [row for row in results.get("curves", ()) if row["direction"] != "backward"]
    rows = [row for row in rows if row["direction"] == "both" or row["op"] == "noise"]
    powers = sorted({_exponent(row) for row in rows})
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for row in rows:
        cells = {peer: f"{ratio[1]:.2f}" for peer, ratio in row["ratios"].items()}
        cells = {peer: cells[peer] for peer in peers_in([row])} | {OF_COPY: _share(row["of_limit"])}
        for what, cell in cells.items():
            lines.setdefault((f"`{row['op']}`", row["dtype"], what), {})[_exponent(row)] = cell
    return pivot(("op", "dtype", "peer"), lines, {power: f"2^{power}" for power in powers})


def directions(results: Results) -> str:
    rows = [row for row in results.get("curves", ()) if row["elements"] == DIRECTIONS_AT]
    return table(
        ("work", "pass", "eager ÷ ours", "compiled ÷ ours", "ours", OF_COPY),
        ((work(row), row["direction"], *_spreads(row), *_ours(row)) for row in rows),
    )


def memory(results: Results) -> str:
    rows = results.get("memory", ())
    names = [OURS, *peers_in([{"seconds": row["bytes"]} for row in rows])]
    return table(
        ("work", "eager ÷ ours", *names),
        (
            (
                work(row),
                _times(row["bytes"].get(EAGER), row["bytes"].get(OURS)),
                *(show_bytes(row["bytes"].get(name)) for name in names),
            )
            for row in rows
        ),
    )


def _times(theirs: float | None, mine: float | None) -> str:
    return f"**{theirs / mine:.2f}**" if theirs and mine else "–"


def counts(results: Results) -> str:
    """Of a CPU with the shares of a step, of an accelerator with what its kernels take together."""
    rows = results.get("counts", ())
    names = [OURS, *peers_in([{"seconds": row["calls"]} for row in rows])]
    shares = {"outside_matrix_products": "ours outside matrix products",
              "optimiser": "of it the optimiser"}  # fmt: skip
    if any("kernel_seconds" in row for row in rows):
        shares = {}

    def cell(row: Row, name: str) -> str:
        seconds = row.get("kernel_seconds", {}).get(name)
        calls = str(row["calls"].get(name, "–"))
        return calls if seconds is None else f"{calls}, {show_time(seconds)}"

    return table(
        ("work", *names, *shares.values()),
        (
            (
                work(row),
                *(cell(row, name) for name in names),
                *(_share((row["shares"].get(OURS) or {}).get(what)) for what in shares),
            )
            for row in rows
        ),
    )


def floors(results: Results) -> str:
    """What an empty Function takes, and how much of a ratio that leaves to any op."""
    others = {
        (row["op"], row["size"], row["direction"]): row["seconds"]
        for row in _threads(results, results["machine"]["cores"])
        if row["dtype"] == "float32"
    }
    lines = []
    for row in results["floors"]:
        key = row["op"], row["size"], row["direction"]
        if key not in others:
            continue
        empty, theirs = row["seconds"][EMPTY][1], others[key]
        bounds = (f"{theirs[peer][1] / empty:.1f}" for peer in (EAGER, COMPILED))
        times = show_time(empty), show_time(row["seconds"][OURS][1])
        lines.append((work(row), *times, *bounds))
    return table(("work", EMPTY, "ours", f"{EAGER} ÷ empty", f"{COMPILED} ÷ empty"), lines)


def noise(results: Results) -> str:
    times = results.get("noise_ns", {})
    return table(
        ("", "ns a normal", "times as fast as `torch.randn`"),
        ((name, f"{ns:.2f}", f"{times['torch.randn'] / ns:.1f}") for name, ns in times.items()),
    )


def compiling(results: Results) -> str:
    seconds = results["first_compilation_seconds"]
    return f"The first compilation of a process takes {seconds:.0f} s more, whatever is compiled."


def _left_out(results: Results) -> list[str]:
    """Why a peer was not there, or was wrong and so not timed."""
    wrong = (row.get("wrong", {}) for row in timed(results))
    return [*results["skipped"].values(), *(why for each in wrong for why in each.values())]


def _later(results: Results, threads: int) -> str:
    """Between which bandwidths a copy had that took its turn among the peers."""
    found = [
        row["copy_bandwidth"] / 1e9
        for row in timed(results)
        if row["threads"] == threads and row.get("copy_bandwidth")
    ]
    return f" at first, {min(found):.1f} to {max(found):.1f} later" if found else ""


def machine(results: Results, source: str) -> str:
    about = results["machine"]
    bandwidth = ", ".join(
        f"{value / 1e9:.1f} GB/s on {count} thread{'s' if count != '1' else ''}"
        f"{_later(results, int(count))}"
        for count, value in results["copy_bandwidth"].items()
    )
    versions = {"vae_fast": about["vae_fast"], "torch": about["torch"], **results["peers"]}
    return table(
        ("", "measured on"),
        (
            ("processor", f"{about['device']}, {about['cores']} cores"),
            ("accelerator", about["accelerator"] or "none"),
            ("backend", about["backend"]),
            ("C++ kernels", f"{about['instruction_set']}, {about['compiler']}"),
            ("compiler flags", f"`{about['flags']}`"),
            ("a large copy", bandwidth or "not measured"),
            ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
            ("peers left out", "; ".join(_left_out(results)) or "none"),
            ("Python", f"{about['python']}, {about['system']}"),
            ("date", results["date"]),
            ("load before the run", f"{results['load_at_start']:.1f}"),
            ("results", f"`{source}`"),
        ),
    )


MEASURES = (
    f"All times are medians. The {OF_COPY} is the time of a large copy for the bytes that an op "
    "must move, over the op's time. Where an empty Function takes longer than that copy, its time "
    "stands in the copy's place. [The method](method.md) has the rest."
)


class Section(NamedTuple):
    """Of a machine's page."""

    title: str
    table: Callable[[dict[str, Any]], str]
    says: str
    of_cpu: bool = False  # a GPU does not have it


SECTIONS = (
    Section("Targets", target_table, "What had to be reached, forward and backward together, on "
            "all cores, and what was.", of_cpu=True),
    Section("Ops", all_threads, "How many times as long as `vae_fast` each peer takes for a "
            "forward and a backward pass, on a CPU on all cores: the median, and in brackets the "
            "quartiles. A size is rows × event elements: of the latents, the data, or both."),
    Section("Training steps", steps, "The same of whole training steps; bfloat16 means autocast. "
            "\"vae_fast compiled\" is the step of `FusedVAE` itself under `torch.compile`."),
    Section("On one core", one_thread, "The same ratios with one thread.", of_cpu=True),
    Section("How it grows", curves, "How many times as long as `vae_fast` each peer takes at each "
            "number of elements, forward and backward together."),
    Section("The passes apart", directions, "Forward, backward and both at 2^22 elements. A loss "
            "of this package makes its gradients in the forward pass."),
    Section("Peak memory", memory, "What a forward and a backward pass take above the inputs; a "
            "step, above the model, its gradients and the optimiser."),
    Section("Calls", counts, "Calls of aten operators, nested ones included; on a GPU, kernels and "
            "what they take together. On a CPU the last columns are the share of a step's time "
            "outside matrix products and convolutions, and what the optimiser has of it."),
    Section("The floor of a small call", floors, "What an `autograd.Function` takes that has the "
            "op's tensors and computes nothing. The last two columns are the most that any op made "
            "of one could reach."),
    Section("Noise on one core", noise, "Half a megabyte of float32 normals, by the instruction "
            "set that `VAE_FAST_CPU` picks.", of_cpu=True),
    Section("Compiling", compiling, "The column \"compiling\" above is what each compiled peer "
            "took until its first pass was done, with empty caches."),
)  # fmt: skip
