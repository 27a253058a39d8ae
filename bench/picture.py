"""What the part frameworks found, as a picture: for each workload a panel, with a point for each implementation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.output import Row
from bench.workloads import WORKLOADS
from tinymaml.tasks.atomic_files import replacing

ORDERS = {1: "first order", 2: "second order"}
OURS, OTHERS = "#D55E00", "#0072B2"  # of Okabe and Ito's palette, which the colour-blind can tell apart
INCHES = 0.24  # a line of a panel


def draw(path: Path, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write the picture, in the format that the file's name ends with.

    Raises:
        SystemExit: the part frameworks found nothing, or matplotlib is not installed.
    """
    figure = picture(machine, rows)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png", dpi=120)


def picture(machine: dict[str, Any], rows: Sequence[Row]) -> Any:
    """The figure: a line of panels for each workload, its panels by order of the gradient and precision."""
    timed = [row for row in rows if row["part"] == "frameworks" and "median_ms" in row]
    if not timed:
        raise SystemExit("the picture is of the part frameworks, which did not run")
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise SystemExit(f"the picture needs matplotlib ({error}): pip install 'tinymaml[train]'") from None
    panels: dict[str, dict[Any, list[Row]]] = {}
    for row in timed:
        kind = (row["order"], row.get("precision"))
        panels.setdefault(row["workload"], {}).setdefault(kind, []).append(row)
    columns = max(map(len, panels.values()))
    most = [max(map(len, kinds.values())) for kinds in panels.values()]
    heights = [INCHES * (count + 1) for count in most]
    figure = Figure(figsize=(6.5 * columns, sum(heights) + 0.85 * len(panels) + 0.9), layout="constrained")
    grid = figure.subplots(len(panels), columns, squeeze=False, height_ratios=heights)
    for line, (workload, kinds) in zip(grid, panels.items(), strict=True):
        for axis, item in zip_longest(line, kinds.items()):
            if item is None:
                axis.set_visible(False)
                continue
            (order, precision), timings = item
            details = [ORDERS[order], *_steps(workload), *([] if precision is None else [precision.upper()])]
            axis.set_title(f"{_in_words(workload)}\n{', '.join(details)}", fontsize=9.5)
            _panel(axis, sorted(timings, key=lambda row: row["median_ms"]))
    figure.suptitle(f"A meta-step on {machine_name(machine)}", fontsize=11)
    marks = {"marker": "o", "markersize": 5, "linewidth": 1.2}
    handles = [
        Line2D([], [], color=OURS, label="tinymaml: median and middle 80 %", **marks),
        Line2D([], [], color=OTHERS, label="others", **marks),
        Line2D([], [], color="black", linestyle=":", linewidth=1, label="floor: the machine's own product of matrices"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def machine_name(machine: dict[str, Any]) -> str:
    """The GPU, or the processor and its cores."""
    return machine["gpu"] if "gpu" in machine else f"{machine['processor']}, {machine['cores']} cores"


def _in_words(workload: str) -> str:
    """A workload's title and how many tasks it has; its name if this version does not know it."""
    w = WORKLOADS.get(workload)
    return workload if w is None else f"{w.title[:1].upper()}{w.title[1:]}; {w.tasks} tasks"


def _steps(workload: str) -> list[str]:
    w = WORKLOADS.get(workload)
    return [] if w is None else [f"{w.steps} inner step{'s' * (w.steps > 1)}"]


def _panel(axis: Any, rows: Sequence[Row]) -> None:
    """The fastest above; medians, and how many times the fastest's they are, on the right."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        colour = OURS if row["implementation"].startswith("tinymaml") else OTHERS
        axis.plot([row["low_ms"], row["high_ms"]], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt")
        axis.plot(row["median_ms"], place, "o", color=colour, markersize=5)
    axis.axvline(rows[0]["floor_ms"], color="black", linestyle=":", linewidth=1)
    axis.set_xscale("log")
    axis.margins(x=0.06)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(places, [row["implementation"] for row in rows], fontsize=8.5)
    axis.set_xlabel("ms", fontsize=8.5)
    low, high = axis.get_xlim()
    # Three decades have room for 1, 2 and 5 of each, more only for powers of ten.
    axis.xaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(LogLocator(10, range(1, 10)) if high / low < 1e4 else NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=8.5)
    axis.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figures = axis.secondary_yaxis("right")
    fastest = rows[0]["median_ms"]
    figures.set_yticks(places, [_figures(row["median_ms"], fastest) for row in rows], fontsize=8.5)
    figures.tick_params(length=0)
    figures.spines["right"].set_visible(False)


def _figures(ms: float, fastest: float) -> str:
    return f"{_rounded(ms, 3)} ms   × {_rounded(ms / fastest, 2)}"


def _rounded(value: float, digits: int) -> str:
    """A number to so many digits, never with an exponent."""
    return f"{float(f'{value:.{digits}g}'):.10f}".rstrip("0").rstrip(".")
