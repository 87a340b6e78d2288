"""The pictures of a machine's results: time against size, ratios, memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import machine, tables
from bench.models import MODELS
from bench.peers import COMPILED, EAGER, OURS
from bench.results import Results, peers_in

LEGEND_HANDLE, LEGEND_LETTER = 0.7, 0.085  # inches: with its gaps, and of a name
DPI = 90
DECIDES = "decides"  # the one of them that docs/performance.md shows
FLOOR = "at a copy's speed"
COLOURS_OF_A_PICTURE = 128
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
# Where ratios are close to 1.
FINE_TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2)
COLOURS = {OURS: "#d62728", EAGER: "#1f77b4", COMPILED: "#2ca02c"}
OTHERS = (
    "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f", "#ff7f0e", "#aec7e8",
    "#ffbb78", "#98df8a", "#c5b0d5",
)  # fmt: skip
Row = dict[str, Any]


def _colours(names: list[str]) -> dict[str, str]:
    """One for each peer, the same in every picture for those that are in all."""
    others = [name for name in names if name not in COLOURS]
    return COLOURS | dict(zip(others, OTHERS, strict=False))


def _axes(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot, which keeps every figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _curve(axes: Any, rows: list[Row], colours: dict[str, str]) -> None:
    """Microseconds of a call of each peer, with quartiles, and of a copy."""
    rows = sorted(rows, key=lambda row: row["elements"])
    for peer in [OURS, *peers_in(rows)]:
        mine = [row for row in rows if peer in row["seconds"]]
        sizes = [row["elements"] for row in mine]
        low, middle, high = (
            [1e6 * row["seconds"][peer][quartile] for row in mine] for quartile in range(3)
        )
        width = 2.2 if peer == OURS else 1.2
        axes.plot(sizes, middle, "o-", ms=3, lw=width, color=colours[peer], label=peer)
        axes.fill_between(sizes, low, high, color=colours[peer], alpha=0.2, lw=0)
    limited = [row for row in rows if row["limit_seconds"] is not None]
    if limited:
        limits = [1e6 * row["limit_seconds"] for row in limited]
        axes.plot([row["elements"] for row in limited], limits, "k--", lw=1, label=FLOOR)
    axes.set(xscale="log", yscale="log", title=rows[0]["op"])
    axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)


def curves(results: Results) -> Any:
    """A panel an op, float32, forward and backward together."""
    wanted = [row for row in results.get("curves", ()) if row["dtype"] == "float32"]
    wanted = [row for row in wanted if row["direction"] == "both" or row["op"] == "noise"]
    ops = list(dict.fromkeys(row["op"] for row in wanted))
    if not ops:
        return None
    columns = min(4, len(ops))
    lines = -(-len(ops) // columns)
    figure, grid = _axes(lines, columns, 3.4 * columns, 3.0 * lines + 0.6)
    colours = _colours(peers_in(wanted))
    handles: dict[str, Any] = {}
    for panel, op in zip(grid.flat, ops, strict=False):
        _curve(panel, [row for row in wanted if row["op"] == op], colours)
        handles |= {
            name: handle for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)
        }
    for panel in grid.flat[len(ops) :]:
        panel.set_axis_off()
    for panel in grid[:, 0]:
        panel.set_ylabel("µs a call")
    for panel in grid[-1]:
        panel.set_xlabel("elements")
    about = f"forward and backward, float32 ({machine.title(results['machine'])})"
    figure.suptitle(f"Time against size: {about}")
    _legend(figure, handles)
    return figure


def ratios(results: Results) -> Any:
    """Bars of how many times longer each peer takes, with quartiles; ours is the line at 1."""
    cores = results["machine"]["cores"]
    rows = [row for row in results["comparisons"] if row["threads"] == cores]
    if not rows:
        return None
    names = peers_in(rows)
    colours = _colours(names)
    parts = [[row for row in rows if (row["op"] in MODELS) is steps] for steps in (False, True)]
    parts = [part for part in parts if part]
    lengths = [len(part) + 1.5 for part in parts]
    figure, grid = _axes(len(parts), 1, 9.0, 1.2 + 0.34 * sum(lengths), height_ratios=lengths)
    for panel, part in zip(grid[:, 0], parts, strict=True):
        for y, height, peer, (low, middle, high) in _bars([row["ratios"] for row in part]):
            # From 1 outwards: a bar to the left is a peer that is faster.
            panel.barh(y, middle - 1, height, left=1, color=colours[peer])
            panel.plot([low, high], [y, y], color="black", lw=0.8)
        panel.set(xscale="log", xlabel="times as long as vae_fast", ylim=(-0.6, len(part) - 0.4))
        _label(panel, part)
        panel.axvline(1, color=colours[OURS], lw=1.5)
        low, high = panel.get_xlim()
        low, high = min(low, 0.85), max(high, 1.25)
        panel.set_xlim(low, high)
        wanted = FINE_TICKS if high < FINE_TICKS[-1] else TICKS
        ticks = [tick for tick in wanted if low <= tick <= high]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
    where = "" if results["machine"]["accelerator"] else f", {cores} threads"
    figure.suptitle(f"Ratios{where} ({machine.title(results['machine'])})")
    _patches(figure, names, colours)
    return figure


def _label(panel: Any, rows: list[Row]) -> None:
    """From the first down."""
    names = [tables.work(row).replace("`", "").replace("bfloat16", "bf16") for row in rows]
    panel.set_yticks(range(len(rows)), names, fontsize=8)
    panel.grid(axis="x", alpha=0.3)
    panel.invert_yaxis()


def _legend(figure: Any, handles: dict[str, Any]) -> None:
    """Beneath the panels, in as many columns as there is room for."""
    widest = LEGEND_HANDLE + LEGEND_LETTER * max(map(len, handles))
    columns = max(1, min(len(handles), int(figure.get_figwidth() / widest)))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def _patches(figure: Any, names: list[str], colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    _legend(figure, {name: Patch(color=colours[name]) for name in names})


def _bars(rows: list[dict[str, Any]]) -> Iterator[tuple[float, float, str, Any]]:
    """Where a peer's bar is in its row, how wide, and the peer and what it shows."""
    for place, found in enumerate(rows):
        height = 0.84 / len(found)
        for number, (peer, value) in enumerate(found.items()):
            yield place - 0.42 + height * (number + 0.5), height, peer, value


def memory(results: Results) -> Any:
    """Bars of peak memory above the inputs, as a share of eager's."""
    rows = [row for row in results.get("memory", []) if row["bytes"].get(EAGER)]
    if not rows:
        return None
    names = [OURS, *peers_in([{"seconds": row["bytes"]} for row in rows])]
    colours = _colours(names)
    figure, grid = _axes(1, 1, 9.0, 1.6 + 0.5 * len(rows))
    panel = grid[0][0]
    counts = [{peer: n for peer, n in row["bytes"].items() if n is not None} for row in rows]
    for y, height, peer, (count, eager) in _bars(
        [{peer: (n, found[EAGER]) for peer, n in found.items()} for found in counts]
    ):
        panel.barh(y, count / eager, height, color=colours[peer])
        panel.text(count / eager, y, f" {count / 2**20:.0f} MiB", va="center", fontsize=6)
    panel.set(xlabel="share of eager's, forward and backward")
    panel.margins(x=0.1)
    _label(panel, rows)
    figure.suptitle(f"Peak memory above the inputs ({machine.title(results['machine'])})")
    _patches(figure, names, colours)
    return figure


def decides(results: Results) -> Any:
    return ratios(results | {"comparisons": tables.deciding(results)})


PICTURES: dict[str, tuple[str, Callable[[Results], Any]]] = {
    "ratios": ("How many times longer each peer takes", ratios),
    "curves": ("Time against size, with a copy's (or an empty Function's) beside it", curves),
    "memory": ("Peak memory above the inputs", memory),
    DECIDES: ("The cases that decide", decides),
}


def _save(figure: Any, path: Path) -> None:
    """As a PNG of few colours, which a repository can carry: a third of the size."""
    from PIL import Image

    whole = io.BytesIO()
    figure.savefig(whole, dpi=DPI)
    Image.open(whole).convert("RGB").quantize(COLOURS_OF_A_PICTURE).save(path, optimize=True)


def draw(results: Results, stem: str, folder: Path) -> dict[str, Path]:
    """PNG files ``<stem>-<picture>.png`` in the folder, by picture; none without data."""
    drawn = {}
    for name, (_, make) in PICTURES.items():
        figure = make(results)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{stem}-{name}.png"
            _save(figure, path)
            drawn[name] = path
    return drawn
