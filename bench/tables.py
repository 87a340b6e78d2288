"""The tables of ``docs/performance.md``, each from the results of one machine.

A table of what these results do not have says so in a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bench.floor import EMPTY
from bench.models import MODELS
from bench.peers import COMPILED, EAGER, OURS
from bench.results import Results, peers_in
from bench.results import rows as timed

Row = dict[str, Any]

NOT_MEASURED = "Not measured on this machine yet."
DIRECTIONS_AT = 2**22  # elements


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header, rows = list(header), list(rows)
    if not rows:
        return NOT_MEASURED
    align = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, align, *rows))


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


def ratios(rows: Iterable[Row]) -> str:
    """Ratios first, then the time of one call, its share of the limit, and what compiling took."""
    return table(
        ("work", "eager ÷ ours", "compiled ÷ ours", "others ÷ ours", "ours", "limit", "compiling"),
        (
            (
                work(row),
                *(_spread(row["ratios"].get(peer)) for peer in (EAGER, COMPILED)),
                _others(row),
                show_time(row["seconds"][OURS][1]),
                _share(row["of_limit"]),
                _compiling(row),
            )
            for row in rows
        ),
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


def target_table(results: Results) -> str:
    if results["machine"].get("accelerator") and not results["targets"]:
        return "These targets are a CPU's."
    return table(("work", "against", "at least", "got", "target"), results["targets"])


def _exponent(row: Row) -> int:
    return int(row["elements"]).bit_length() - 1


def curves(results: Results) -> str:
    """A column a size; for each op, how many times longer others take, and ours of the limit."""
    rows = [row for row in results.get("curves", ()) if row["direction"] != "backward"]
    rows = [row for row in rows if row["direction"] == "both" or row["op"] == "noise"]
    powers = sorted({_exponent(row) for row in rows})
    lines: dict[tuple[str, str, str], dict[int, str]] = {}
    for row in rows:
        cells = {peer: f"{ratio[1]:.2f}" for peer, ratio in row["ratios"].items()}
        cells = {peer: cells[peer] for peer in peers_in([row])} | {"limit": _share(row["of_limit"])}
        for what, cell in cells.items():
            lines.setdefault((row["op"], row["dtype"], what), {})[_exponent(row)] = cell
    return table(
        ("op", "dtype", "peer", *(f"2^{power}" for power in powers)),
        (
            (f"`{op}`", dtype, what, *(cells.get(power, "–") for power in powers))
            for (op, dtype, what), cells in lines.items()
        ),
    )


def directions(results: Results) -> str:
    rows = [row for row in results.get("curves", ()) if row["elements"] == DIRECTIONS_AT]
    return table(
        ("work", "pass", "eager ÷ ours", "compiled ÷ ours", "ours", "limit"),
        (
            (
                work(row),
                row["direction"],
                *(_spread(row["ratios"].get(peer)) for peer in (EAGER, COMPILED)),
                show_time(row["seconds"][OURS][1]),
                _share(row["of_limit"]),
            )
            for row in rows
        ),
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
    """Between which bandwidths a copy had beside what it is the limit of."""
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


# By the markers of the document.
TABLES: dict[str, Callable[[Results], str]] = {
    "targets": target_table,
    "all-threads": all_threads,
    "one-thread": one_thread,
    "steps": steps,
    "curves": curves,
    "directions": directions,
    "memory": memory,
    "counts": counts,
    "floor": floors,
    "compiling": compiling,
    "noise": noise,
}
