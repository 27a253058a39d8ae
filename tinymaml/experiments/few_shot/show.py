"""A picture of one task: what a network sees of an experiment on images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tinymaml.methods.method import Batch
from tinymaml.tasks.extras import require
from tinymaml.train.files import atomic_write

_MOST = 10  # images of a class and kind in the picture


def draw(path: Path, support: Batch, query: Batch, title: str) -> Path:
    """Draw the first task: one row a class, its support images left, its query images right (the first ten of each).

    Args:
        path: of the PNG file; its folder is made if need be.
        support, query: {"x": [T, N, H, W, C] in [0, 1], "y": [T, N]}, the examples class by class.

    Returns:
        The path.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "train")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot", "train")
    ways = int(support["y"].max()) + 1
    parts = [np.reshape(part["x"][0], (ways, -1, *part["x"].shape[2:]))[:, :_MOST] for part in (support, query)]
    columns = [part.shape[1] for part in parts]
    figure, cells = plt.subplots(
        ways,
        sum(columns) + 1,
        figsize=(0.62 * (sum(columns) + 1) + 0.8, 0.62 * ways + 0.7),
        squeeze=False,
        gridspec_kw={"width_ratios": [1] * columns[0] + [0.35] + [1] * columns[1], "wspace": 0.06, "hspace": 0.06},
    )
    for axes in cells.ravel():
        axes.set_axis_off()
    for row in range(ways):
        for start, part in zip((0, columns[0] + 1), parts, strict=True):
            for column, image in enumerate(part[row], start):
                # Ink is 1, and dark on paper.
                shown = 1 - image[..., 0] if image.shape[2] == 1 else image
                cells[row][column].imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        cells[row][0].text(-0.25, 0.5, str(row), transform=cells[row][0].transAxes, ha="right", va="center", fontsize=9)
    for start, name in ((0, "support"), (columns[0] + 1, "query")):
        cells[0][start].set_title(name, loc="left", fontsize=9)
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, bbox_inches="tight")
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())
    return path
