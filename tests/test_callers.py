"""Other people's functions on tensors: either they are refused, or their derivative is right. It is never lost."""

import array
import builtins
import copy
import decimal
import fractions
import math
import operator
import pickle  # noqa: TID251  # that it is refused
import statistics
import struct
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinymaml as tm

RNG = np.random.default_rng(0)
# Where the functions are called, and other arrays of the same shapes.
POINTS = [np.array(0.6), np.array([0.3, 0.7, 0.5]), RNG.uniform(0.2, 0.8, (3, 3))]
OTHERS = [np.array(0.45), np.array([0.25, 0.55, 0.4]), RNG.uniform(0.2, 0.8, (3, 3))]

# In what places a tensor t comes in, beside an array c.
PLACES: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "f(t)": lambda t, c: (t,),
    "f(t, t)": lambda t, c: (t, t),
    "f(c, t)": lambda t, c: (c, t),
    "f(t, c)": lambda t, c: (t, c),
    "f(t, 1)": lambda t, c: (t, 1),
    "f(1, t)": lambda t, c: (1, t),
    "f([t])": lambda t, c: ([t],),
    "f((t, c))": lambda t, c: ((t, c),),
    "f([c, [t]])": lambda t, c: ([c, [t]],),
    "f(list(t))": lambda t, c: (list(t),),
    "f([t, c], 0)": lambda t, c: ([t, c], 0),
    "f(t, [t, c])": lambda t, c: (t, [t, c]),
    "f(t, c, c)": lambda t, c: (t, c, c),
    "f(c, t, c)": lambda t, c: (c, t, c),
    "f(c, c, t)": lambda t, c: (c, c, t),
}
# They write files, change settings, wait for somebody, or give memory as it was found.
LEFT_OUT = {
    "numpy.save", "numpy.savetxt", "numpy.savez", "numpy.savez_compressed", "numpy.load", "numpy.loadtxt",
    "numpy.genfromtxt", "numpy.fromfile", "numpy.memmap", "numpy.fromregex", "numpy.test", "numpy.linalg.test",
    "numpy.fft.test", "numpy.ma.test", "numpy.info", "numpy.show_config", "numpy.show_runtime",
    "numpy.set_printoptions", "numpy.printoptions", "numpy.errstate", "numpy.seterr", "numpy.seterrcall",
    "numpy.setbufsize", "numpy.empty", "numpy.empty_like", "numpy.ndarray", "numpy.recarray", "numpy.chararray",
    "numpy.ma.empty", "numpy.ma.empty_like", "numpy.ma.masked_all", "numpy.ma.masked_all_like", "builtins.breakpoint",
    "builtins.compile", "builtins.copyright", "builtins.credits", "builtins.eval", "builtins.exec", "builtins.exit",
    "builtins.help", "builtins.input", "builtins.license", "builtins.open", "builtins.print", "builtins.quit",
    "numpy.bmat",  # gives None for all but NumPy's own matrices, lists and texts
    "numpy.ma.maximum_fill_value", "numpy.ma.minimum_fill_value",  # infinity, by the dtype
}  # fmt: skip
# They look for something else first, or try other ways when they are refused, and fail in those.
OTHER_ERRORS = ("numpy.from_dlpack", "numpy.isfortran", "numpy.ma.", "operator.contains", "struct")


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    modules = {
        "numpy": np, "numpy.linalg": np.linalg, "numpy.fft": np.fft, "numpy.ma": np.ma, "math": math,
        "operator": operator, "statistics": statistics, "builtins": builtins,
    }  # fmt: skip
    for place, module in modules.items():
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if name.startswith("_") or isinstance(function, types.ModuleType) or not callable(function):
                continue
            if f"{place}.{name}" not in LEFT_OUT:
                yield f"{place}.{name}", function
            if isinstance(function, np.ufunc):
                for method in ("reduce", "accumulate", "outer", "reduceat", "at"):
                    yield f"{place}.{name}.{method}", getattr(function, method)


def by_hand(name: str) -> Callable[[Callable[..., Any]], None]:
    def add(function: Callable[..., Any]) -> None:
        OWN[name] = function

    return add


OWN: dict[str, Callable[..., Any]] = {
    "numpy.r_": lambda *xs: np.r_[xs],
    "numpy.c_": lambda *xs: np.c_[xs],
    "numpy.frompyfunc": lambda *xs: np.frompyfunc(lambda *ys: sum(ys), len(xs), 1)(*xs),
    "numpy.vectorize": lambda *xs: np.vectorize(lambda *ys: sum(ys))(*xs),
    "numpy.array of objects": lambda *xs: np.array(xs, dtype=object),
    "numpy.asarray of float32": lambda *xs: np.asarray(xs, dtype=np.float32),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda *xs: pickle.loads(pickle.dumps(xs)),
    "array.array": lambda *xs: list(array.array("d", *xs)),
    "struct": lambda *xs: struct.unpack(f"{len(xs)}d", struct.pack(f"{len(xs)}d", *xs)),
    "decimal": lambda *xs: [float(decimal.Decimal(x)) for x in xs],
    "fractions": lambda *xs: [float(fractions.Fraction(x)) for x in xs],
    "memoryview": lambda *xs: [np.asarray(memoryview(x)) for x in xs],
    "bytes": lambda *xs: [np.frombuffer(bytes(x)) for x in xs],
    "random.normal": lambda *xs: np.random.default_rng(0).normal(*xs),
    "random.choice": lambda *xs: np.random.default_rng(0).choice(*xs),
    "random.permutation": lambda *xs: np.random.default_rng(0).permutation(*xs),
    "random.multivariate_normal": lambda *xs: np.random.default_rng(0).multivariate_normal(*xs),
    **{f"ndarray.{name}": lambda *xs, name=name: getattr(np.ones(3), name)(*xs)
       for name in ("dot", "clip", "searchsorted", "__add__", "__rpow__", "__matmul__", "__divmod__", "__rmod__")},
}  # fmt: skip


@by_hand("item of an array")
def _(*xs: Any) -> Any:
    found = np.zeros(len(xs))
    for i, x in enumerate(xs):
        found[i] = x
    return found


@by_hand("slice of an array")
def _(*xs: Any) -> Any:
    found = np.zeros(3)
    for x in xs:
        found[:] = x
    return found


@by_hand("fill")
def _(*xs: Any) -> Any:
    found = np.zeros(3)
    found.fill(*xs)
    return found


@by_hand("in place")
def _(*xs: Any) -> Any:
    found = np.ones(3)
    for x in xs:
        found += x
        found *= x
    return found


def leaves(result: Any) -> Iterator[Any]:
    """The floating numbers in what a function returns."""
    if isinstance(result, tm.Tensor):
        if result.dtype.kind == "f":
            yield result
    elif isinstance(result, np.ndarray) and result.dtype == object:
        for part in result.ravel():
            yield from leaves(part)
    elif isinstance(result, np.ndarray | np.generic | float | complex):
        if np.asarray(result).dtype.kind in "fc":
            yield np.ma.filled(result, 0.0).real if isinstance(result, np.ma.MaskedArray) else np.real(result)
    elif isinstance(result, list | tuple):
        for part in result:
            yield from leaves(part)
    elif isinstance(result, dict):
        yield from leaves(list(result.values()))
    elif isinstance(result, Iterator):
        yield from leaves([part for part, _ in zip(result, range(20), strict=False)])


def total(result: Any) -> Any:
    """A number made of them."""
    found: Any = 0.0
    for i, part in enumerate(leaves(result)):
        weight = 1.0 + 0.1 * i
        found = found + weight * (tm.sum(part) if isinstance(part, tm.Tensor) else float(np.sum(part)))
    return found


def slope(function: Callable[[Any], float], x: Any) -> Any:
    """By a central difference."""
    h, found = 1e-6, np.zeros_like(x)
    for k in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[k] = h
        found[k] = (function(np.asarray(x + step)) - function(np.asarray(x - step))) / (2 * h)
    return found


CALLERS = {**dict(functions()), **OWN}
FAMILIES = sorted({name.split(".")[0] for name in CALLERS})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_derivative_is_right_or_refused(family):
    outcomes = {"refused": 0, "right": 0}
    for name, function in CALLERS.items():
        if name.split(".")[0] != family:
            continue
        for place, arguments in PLACES.items():
            for x, c in zip(POINTS, OTHERS, strict=True):

                def call(t: Any, function=function, arguments=arguments, c=c) -> Any:
                    return total(function(*arguments(t, c.copy())))

                try:
                    call(x.copy())
                except Exception:  # not what the function is for
                    continue
                where = f"{name} as {place} on {x.shape}"
                try:
                    _, found = tm.value_and_grad(call)(x.copy())
                except Exception as error:
                    is_refused = "would lose the derivative" in f"{error} {error.__cause__}"
                    is_clear = is_refused or isinstance(error, TypeError) or name.startswith(OTHER_ERRORS)
                    assert is_clear, f"{where}: {type(error).__name__}: {error}"
                    outcomes["refused"] += is_refused
                else:
                    np.testing.assert_allclose(found, slope(call, x), rtol=1e-4, atol=1e-6, err_msg=where)
                    outcomes["right"] += 1
    if family == "numpy":
        assert outcomes["refused"] > 5000 and outcomes["right"] > 500, outcomes
