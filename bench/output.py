"""What the parts found, as a file of JSON and as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinymaml.tasks.atomic_files import replacing

Row = dict[str, Any]


def write_json(path: Path, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Under a temporary name first, so that there is never half a file."""
    content = {"command": " ".join(["python -m bench", *sys.argv[1:]]), "machine": machine, "rows": rows}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Each workload and order in a panel of its own: medians with the middle 80 %, the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    timed = [row for row in rows if row["part"] == "frameworks"]
    panels = list(dict.fromkeys([(row["workload"], row["order"]) for row in timed]))
    if not panels:
        raise SystemExit("--picture draws the part frameworks, which did not run")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(7 * columns, 3.2 * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (workload, order) in zip(axes.flat, panels, strict=False):
        own = [row for row in timed if (row["workload"], row["order"]) == (workload, order)]
        medians = [row["median_ms"] for row in own]
        beyond = [
            [median - row["low_ms"] for median, row in zip(medians, own, strict=True)],
            [row["high_ms"] - median for median, row in zip(medians, own, strict=True)],
        ]
        names = [row["implementation"] for row in own]
        colours = ["tab:orange" if name.startswith("tinymaml") else "tab:blue" for name in names]
        bars = axis.barh(names, medians, xerr=beyond, color=colours)
        axis.bar_label(bars, [f"{median:.3g}" for median in medians], padding=4, fontsize=8)
        axis.axvline(own[0]["floor_ms"], color="black", linestyle=":", linewidth=1)
        axis.set(xscale="log", title=f"{workload}, order {order}", xlabel="ms a meta-step (dotted: the floor)")
        axis.margins(x=0.15)
        axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
