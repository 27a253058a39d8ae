"""Checks random programs, one JSON line each from standard input: `python -m tests.fuzz.worker cpu|gpu`."""

import json
import sys

import numpy as np

from tests.fuzz import programs
from tinymaml.compile import memory_plan

if __name__ == "__main__":
    device = sys.argv[1]
    if device == "gpu":
        from tests.simulated import cupy

        sys.modules.setdefault("cupy", cupy)
    np.seterr(all="ignore")
    for line in sys.stdin:
        case = json.loads(line)
        memory_plan.CACHE = case["cache"]
        try:
            answer = programs.check(case, device)
        except Exception as error:  # whatever it is, it is what the case found
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)
