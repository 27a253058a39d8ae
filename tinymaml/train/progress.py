"""How far training is: a bar with loss and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tinymaml.tasks.extras import require

_QUIET = 15.0  # seconds between two lines when there is no terminal

# Figures of a line of metrics: as the progress names and formats them.
_FIGURES = {
    "loss": ("loss", "{:.4f}"),
    "accuracy": ("accuracy", "{:.1%}"),
    "validation_accuracy": ("validation", "{:.1%}"),
    "images_per_second": ("images/s", "{:.0f}"),
    **{f"return_{k}": (f"return after {k}", "{:.1f}") for k in range(10)},
    **{f"seconds_{part}": (f"s {part}", "{:.2f}") for part in ("sampling", "adaptation", "outer")},
}


class Progress:
    """Progress of one method, shown below that of others by `position`."""

    def __init__(self, name: str, iterations: int, position: int = 0, unit: str = "iteration") -> None:
        self.name, self.iterations, self.unit = name, iterations, unit
        self._bar: Any = None
        self._last = time.monotonic()
        if sys.stderr.isatty():
            tqdm = require("tqdm", "train")
            self._bar = tqdm.tqdm(
                total=iterations,
                desc=f"{name:10}",
                position=position,
                dynamic_ncols=True,
                unit="it" if unit == "iteration" else unit,
                smoothing=0.1,
            )

    def update(self, iteration: int, seconds: float, **figures: float) -> None:
        """Called with every line of metrics."""
        shown = {name: text.format(figures[key]) for key, (name, text) in _FIGURES.items() if key in figures}
        if self._bar is not None:
            self._bar.set_postfix(**shown, refresh=False)
            self._bar.update(iteration - self._bar.n)
        elif time.monotonic() - self._last > _QUIET or iteration == self.iterations:
            self._last = time.monotonic()
            left = (self.iterations - iteration) * seconds / iteration
            print(
                f"{self.name}: {self.unit} {iteration} of {self.iterations}, "
                + "".join(f"{name} {text}, " for name, text in shown.items())
                + f"{seconds:.0f} s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
