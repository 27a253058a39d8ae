"""Random programs: what a recorded program computes for new inputs beside what the step computes, eagerly.

A case is data, a list of instructions on values with small axes whose lengths coincide, so that it can be drawn by
Hypothesis or by a seeded generator, sent to another process, and read in a report. Cases run in a process of their own
(`worker`), which a compiler that aborts may take with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import tinymaml as tm
from tinymaml.autodiff.tensor import constant

Case = dict[str, Any]
Pick = Callable[[Sequence[Any]], Any]  # one of several

ROOT = Path(__file__).parents[2]
MOST = 3000  # numbers in a value

UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": tm.exp,
    "tanh": tm.tanh,
    "relu": tm.relu,
    "sigmoid": tm.sigmoid,
    "softplus": tm.softplus,
    "sin": tm.sin,
    "negative": tm.negative,
    "abs": tm.abs,
    "square": lambda x: x * x,
    "root": lambda x: tm.sqrt(x * x + 1.0),
    "log": lambda x: tm.log(x * x + 0.5),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": tm.add,
    "subtract": tm.subtract,
    "multiply": tm.multiply,
    "divide": lambda x, y: x / (y * y + 1.0),
    "maximum": tm.maximum,
    "where": lambda x, y: tm.where(x > y, x, y * 0.5),
}
REDUCTIONS = {"sum": tm.sum, "mean": tm.mean, "max": tm.max, "logsumexp": tm.logsumexp}


def apply(instruction: Sequence[Any], values: Sequence[Any]) -> Any:
    """The value that an instruction makes of those before it."""
    name, *rest = instruction
    if name in UNARY:
        return UNARY[name](values[rest[0]])
    if name in BINARY:
        return BINARY[name](values[rest[0]], values[rest[1]])
    x = values[rest[0]]
    if name in REDUCTIONS:
        return REDUCTIONS[name](x, axis=tuple(rest[1]), keepdims=rest[2])
    if name == "transpose":
        return tm.transpose(x, rest[1])
    if name == "reshape":
        return tm.reshape(x, rest[1])
    if name == "broadcast":
        return tm.broadcast_to(x, rest[1])
    if name == "index":
        return x[tuple(slice(*part) if isinstance(part, list) else part for part in rest[1])]
    if name == "take":
        return tm.take(x, np.array(rest[1]), rest[2])
    if name == "matmul":
        return tm.matmul(x, values[rest[1]])
    if name == "concatenate":
        return tm.concatenate([x, values[rest[1]]], rest[2])
    if name == "softmax":
        return tm.softmax(x, rest[1])
    raise ValueError(name)


# Drawing a case.


def _unary(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    return [pick(list(UNARY)), pick(range(len(shapes)))]


def _binary(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    one = pick(range(len(shapes)))
    pairs = [pair for i, x in enumerate(shapes) if _broadcast(shapes[one], x) for pair in ([one, i], [i, one])]
    return [pick(list(BINARY)), *pick(pairs)] if pairs else None


def _broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(one, other))) <= MOST
    except ValueError:
        return False


def _reduction(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    axes = [axis for axis in range(len(shapes[i])) if pick([True, False])]
    kinds = ["sum"] if 0 in shapes[i] else list(REDUCTIONS)  # of nothing, the others are refused
    return [pick(kinds), i, axes, pick([True, False])] if axes else None


def _transpose(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    rest, order = list(range(len(shapes[i]))), []
    while rest:
        order.append(rest.pop(pick(range(len(rest)))))
    return ["transpose", i, order]


def _reshape(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    shape = shapes[i]
    if not shape or 0 in shape:
        return None
    if len(shape) > 1 and pick([True, False]):  # two neighbours as one
        at = pick(range(len(shape) - 1))
        return ["reshape", i, [*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]]]
    at = pick(range(len(shape)))
    factor = pick([n for n in range(1, shape[at] + 1) if shape[at] % n == 0])
    return ["reshape", i, [*shape[:at], factor, shape[at] // factor, *shape[at + 1 :]]]


def _broadcast_to(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    lengths = [n for shape in shapes for n in shape] or [2]
    shape = [pick(lengths) if n == 1 else n for n in shapes[i]]
    shape = [pick(lengths), *shape] if pick([True, False]) else shape
    return ["broadcast", i, shape] if np.prod(shape) <= MOST else None


def _index(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    index: list[Any] = []
    for n in shapes[i]:
        part = pick(["all", "all", "reversed", "odd", "rest", "new", "one"])
        if part == "new":
            index += [None, [None, None, None]]
        elif part == "one" and n:
            index.append(pick(range(-n, n)))
        else:
            index.append({"reversed": [None, None, -1], "odd": [1, None, 2], "rest": [1, None, None]}.get(part, [None]))
    return ["index", i, index]


def _take(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    axes = [axis for axis, n in enumerate(shapes[i]) if n]
    if not axes:
        return None
    axis = pick(axes)
    return ["take", i, [pick(range(shapes[i][axis])) for _ in range(pick(range(1, 4)))], axis]


def _matmul(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    pairs = [
        [i, j]
        for i, one in enumerate(shapes)
        for j, other in enumerate(shapes)
        if len(one) > 1 and len(other) > 1 and one[-1] == other[-2] and _broadcast(one[:-2], other[:-2])
    ]
    return ["matmul", *pick(pairs)] if pairs else None


def _concatenate(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    fits = [
        [i, j, axis]
        for i, one in enumerate(shapes)
        for j, other in enumerate(shapes)
        if len(one) == len(other)
        for axis in range(len(one))
        if all(n == m for k, (n, m) in enumerate(zip(one, other, strict=True)) if k != axis)
    ]
    return ["concatenate", *pick(fits)] if fits else None


def _softmax(pick: Pick, shapes: Sequence[tuple[int, ...]]) -> Any:
    i = pick(range(len(shapes)))
    return ["softmax", i, pick(range(len(shapes[i])))] if shapes[i] and 0 not in shapes[i] else None


KINDS = [
    _unary, _unary, _unary, _binary, _binary, _binary, _binary, _reduction, _reduction, _transpose, _reshape,
    _broadcast_to, _index, _index, _take, _matmul, _concatenate, _softmax,
]  # fmt: skip

MODES = ("value", "value", "gradient", "gradient", "hessian product")


def draw(pick: Pick) -> Case:
    """A random case."""
    lengths = pick([[2, 3], [3, 3, 1], [3, 4, 1], [5, 8], [8, 8, 2], [30, 31, 64], [1], [7, 7, 7, 1, 2]])
    inputs = [[pick(lengths) for _ in range(pick([1, 2, 2, 3]))] for _ in range(pick([1, 1, 2, 3]))]
    inputs = [shape for shape in inputs if np.prod(shape) <= MOST] or [[2]]
    case: Case = {
        "inputs": inputs,
        "closed over": [pick(lengths) for _ in range(pick([1, 2]))],
        "dtype": pick(["float64", "float64", "float32"]),
        "threads": pick([1, 2, 3, 4]),
        "cache": pick([64, 500, 4000, 1 << 20]),  # bytes that a shard of tasks may take
        "mode": pick(MODES),
        "instructions": [],
        "outputs": [],
    }
    values = [constant(np.zeros(shape)) for shape in (*inputs, case["closed over"])]
    for _ in range(pick(range(1, 12))):
        instruction = pick(KINDS)(pick, [x.shape for x in values])
        if instruction is None:
            continue
        value = apply(instruction, values)
        if value.size <= MOST and value.ndim <= 5:
            values.append(value)
            case["instructions"].append(instruction)
    last = len(values) - 1
    case["outputs"] = [last] + [i for i in range(len(inputs), last) if pick([False, False, False, True])]
    return case


# Running one.


def step_of(case: Case, closed_over: Any) -> Callable[..., Any]:
    """The step that a case stands for."""

    def outputs(*inputs: Any) -> list[Any]:
        values = [*inputs, constant(closed_over)]
        for instruction in case["instructions"]:
            values.append(apply(instruction, values))
        return [values[i] for i in case["outputs"]]

    def total(inputs: Sequence[Any]) -> Any:
        results = [tm.sum(x * x + x) for x in outputs(*inputs)]
        return sum(results[1:], results[0])

    def gradient(*inputs: Any) -> Any:
        return tm.grad(total)(list(inputs))

    def product(*inputs: Any) -> Any:
        return tm.hvp(total, list(inputs), [x * 0.5 for x in inputs])

    return {"value": outputs, "gradient": gradient, "hessian product": product}[case["mode"]]


def _arrays(case: Case, seed: int) -> tuple[list[Any], Any]:
    rng = np.random.default_rng(seed)
    dtype = case["dtype"]
    return [rng.normal(size=shape).astype(dtype) for shape in case["inputs"]], rng.normal(
        size=case["closed over"]
    ).astype(dtype)


def check(case: Case, device: str = "cpu") -> str | None:
    """What is wrong with the program that a case is recorded as; None if nothing."""
    from tinymaml.device import to_device, to_host

    examples, closed_over = _arrays(case, 0)
    step = step_of(case, closed_over)
    program = tm.record(step, *to_device(examples, device), threads=case["threads"])
    for seed in (1, 2):
        inputs, fresh = _arrays(case, seed)
        closed_over[...] = fresh  # it is read anew
        with np.errstate(all="ignore"):
            expected = tm.tree.leaves(step(*[constant(x) for x in inputs]))
            actual = to_host(tm.tree.leaves(program(*to_device(inputs, device))))
        for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
            wrong = _difference(one, other.numpy() if isinstance(other, tm.Tensor) else other, exact=device == "cpu")
            if wrong:
                return f"output {i}, inputs {seed}: {wrong}"
    return None


def _difference(actual: Any, expected: Any, exact: bool) -> str | None:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.shape} {actual.dtype} for {expected.shape} {expected.dtype}"
    if exact and np.array_equal(actual, expected, equal_nan=True):
        return None
    error = np.abs(actual.astype(np.float64) - expected)
    error = error[(actual != expected) & ~(np.isnan(actual) & np.isnan(expected))]
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    within = 0.0 if exact else {"float32": 1e-3, "float64": 1e-9}[actual.dtype.name] * scale
    return None if (error <= within).all() else f"off by {error.max():.3g}, of values up to {scale:.3g}"


# In a process of their own.


class Worker:
    """A process that checks cases, and is started anew when one has ended it."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._process: Any = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the worker

    def check(self, case: Case, seconds: float = 120) -> str | None:
        """See `check`; also how the process ended, if it did."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.fuzz.worker", self._device]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
            )
        try:
            self._process.stdin.write(json.dumps(case) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            results = json.loads(answer)
            return None if results is None else str(results)
        code = self._ended(seconds)
        self._errors.seek(0)
        said = self._errors.read()[-500:]
        return f"the process ended with {code}: {said}"

    def _ended(self, seconds: float | None = None) -> int:
        """The exit status of the process, which has ended or will when there are no more cases."""
        process, self._process = self._process, None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        return int(process.wait(seconds))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._ended()
        self._errors.close()


def picker(seed: int, index: int) -> Pick:
    """Picks by a seeded generator: case `index` of `seed` is always the same."""
    rng = np.random.default_rng([seed, index])
    return lambda several: several[int(rng.integers(len(several)))]


def run(seed: int, count: int, seconds: float, device: str = "cpu") -> tuple[int, list[str]]:
    """Check random programs, until there were `count` of them or the time is up. Returns how many, and what failed."""
    end, failures, done = time.monotonic() + seconds, [], 0
    worker = Worker(device)
    try:
        while done < count and time.monotonic() < end:
            case = draw(picker(seed, done))
            wrong = worker.check(case)
            if wrong:
                failures.append(f"program {done} of seed {seed}: {wrong}\n  {json.dumps(case)}")
            done += 1
    finally:
        worker.close()
    return done, failures
