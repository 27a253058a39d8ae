"""How far training is: a bar with loss and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tinymaml.train.extras import require

_QUIET = 15.0  # seconds between two lines when there is no terminal


class Progress:
    """Progress of one method, shown below that of others by `position`."""

    def __init__(self, name: str, iterations: int, position: int = 0) -> None:
        self.name, self.iterations = name, iterations
        self._bar: Any = None
        self._last = time.monotonic()
        if sys.stderr.isatty():
            tqdm = require("tqdm", "train")
            self._bar = tqdm.tqdm(
                total=iterations, desc=f"{name:10}", position=position, dynamic_ncols=True, unit="it", smoothing=0.1
            )

    def update(self, iteration: int, loss: float, seconds: float) -> None:
        """Called with every line of metrics."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update(iteration - self._bar.n)
        elif time.monotonic() - self._last > _QUIET or iteration == self.iterations:
            self._last = time.monotonic()
            left = (self.iterations - iteration) * seconds / iteration
            print(
                f"{self.name}: iteration {iteration} of {self.iterations}, loss {loss:.4f}, "
                f"{seconds:.0f} s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
