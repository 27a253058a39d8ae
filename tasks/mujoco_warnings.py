"""MuJoCo without its warnings, which it prints and appends to MUJOCO_LOG.TXT in the folder it happens to run in."""

from __future__ import annotations

from typing import Any

from tinymaml.kernels.locks import Lock
from tinymaml.tasks.extras import require

require("mujoco", "rl")

import mujoco  # noqa: E402


class _Suppressed:
    """While one or more threads are inside, warnings go nowhere: what they tell of is seen by the environments, which
    end the episode and say so."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(lambda message: None)
            self._inside += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                mujoco.set_mju_user_warning(self._before)


suppressed = _Suppressed()
