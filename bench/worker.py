"""An object in a process of its own: it is asked by a line on stdin for one of its methods, and answers with a line.

XLA's flags, malloc's settings and numbers of threads are read once, when a process starts; so implementations that
want different ones are timed in the same rounds only from processes of their own, of which one runs at a time.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Failed(SystemExit):
    """A process failed; the text says where and why."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """`with Worker("bench.metastep:MetaStep", arguments, environment) as worker` makes one; `worker.ask("first")`."""

    def __init__(self, target: str, arguments: Sequence[Any], environment: dict[str, str]) -> None:
        self._target = target
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", target, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            cwd=Path(__file__).parents[1],
        )

    def ask(self, method: str, *arguments: Any, limit: float | None = None) -> Any:
        """The method's result. Raises Failed if it raised, its process has ended, or it took more than `limit` seconds,
        which ends the process.
        """
        try:
            self._process.stdin.write(json.dumps([method, *arguments]) + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # it ended before it read this: there is no answer either
        if limit is not None and not select.select([self._process.stdout], [], [], limit)[0]:
            self._process.kill()
            raise Failed(f"{self._target} {method}: not done after {limit:.0f} seconds")
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise Failed(f"{self._target} {method}: its process ended with exit status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self._target} {method}: {answer['error']}")
        return answer["result"]

    def kill(self) -> None:
        """End its process without waiting for it."""
        self._process.kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()  # at the end of its input it ends


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        module, name = sys.argv[1].split(":")
        target = getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            answers.write(json.dumps({"result": getattr(target, method)(*arguments)}) + "\n")
    except Exception as error:
        traceback.print_exc()
        reason = str(error).strip().splitlines() or [""]
        answers.write(json.dumps({"error": f"{type(error).__name__}: {reason[0]}"}) + "\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
