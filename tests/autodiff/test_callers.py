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
from tinymaml.transforms import MODES

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
    "pickle": lambda *xs: pickle.dumps(xs),
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
    results = np.zeros(len(xs))
    for i, x in enumerate(xs):
        results[i] = x
    return results


@by_hand("slice of an array")
def _(*xs: Any) -> Any:
    results = np.zeros(3)
    for x in xs:
        results[:] = x
    return results


@by_hand("fill")
def _(*xs: Any) -> Any:
    results = np.zeros(3)
    results.fill(*xs)
    return results


@by_hand("in place")
def _(*xs: Any) -> Any:
    results = np.ones(3)
    for x in xs:
        results += x
        results *= x
    return results


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
    results: Any = 0.0
    for i, part in enumerate(leaves(result)):
        weight = 1.0 + 0.1 * i
        results = results + weight * (tm.sum(part) if isinstance(part, tm.Tensor) else float(np.sum(part)))
    return results


def slope(function: Callable[[Any], float], x: Any) -> Any:
    """By a central difference."""
    h, results = 1e-6, np.zeros_like(x)
    for k in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[k] = h
        results[k] = (function(np.asarray(x + step)) - function(np.asarray(x - step))) / (2 * h)
    return results


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
                    _, results = tm.value_and_grad(call)(x.copy())
                except Exception as error:
                    is_refused = "would lose the derivative" in f"{error} {error.__cause__}"
                    is_clear = is_refused or isinstance(error, TypeError) or name.startswith(OTHER_ERRORS)
                    assert is_clear, f"{where}: {type(error).__name__}: {error}"
                    outcomes["refused"] += is_refused
                else:
                    np.testing.assert_allclose(results, slope(call, x), rtol=1e-4, atol=1e-6, err_msg=where)
                    outcomes["right"] += 1
    if family == "numpy":
        assert outcomes["refused"] > 5000 and outcomes["right"] > 500, outcomes


# What is said, and the ways out.

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: np.exp(t), r"numpy\.exp would lose the derivative .*: use tinymaml\.exp; \.numpy\(\) and"),
        (lambda t: np.sum(t), r"numpy\.sum would lose .* use tinymaml\.sum;"),
        (lambda t: np.dot(t, t), r"numpy\.dot would lose .* use tinymaml\.matmul;"),
        (lambda t: np.linalg.norm(t), r"numpy\.linalg\.norm would lose .* use tinymaml\.norm;"),
        (lambda t: np.add.reduce(t), r"numpy\.add\.reduce would lose"),
        (lambda t: np.asarray(t), "making a NumPy array would lose"),
        (lambda t: float(t[0]), r"float\(\) would lose"),
        (lambda t: int(t[0]), r"int\(\) would lose"),
        (lambda t: complex(t[0]), r"complex\(\) would lose"),
        (lambda t: range(5)[t[0]], "taking an integer would lose"),
        (lambda t: 1 if t[0] else 2, r"bool\(\) would lose"),
        (lambda t: math.sin(t[0]), r"float\(\) would lose"),
        (lambda t: copy.copy(t), r"copy\(\) would lose"),
        (lambda t: copy.deepcopy([t]), r"deepcopy\(\) would lose"),
        (lambda t: pickle.dumps(t), r"a tensor is not pickled, .* pickle \.numpy\(\)"),
        (lambda t: t % 2, r"a tensor has no %, // and divmod\(\)"),
        (lambda t: 7 // t, r"a tensor has no %, // and divmod\(\)"),
        (lambda t: X % t, r"numpy\.remainder would lose"),
        (lambda t: t == None, "== compares a tensor's numbers, so not with None: write `is None`"),  # noqa: E711
        (lambda t: t != None, "!= compares a tensor's numbers, so not with None"),  # noqa: E711
        (lambda t: tm.optim.sgd(0.1).update(t, tm.optim.sgd(0.1).init(X), X), "an optimiser's step would lose"),
    ],
)  # fmt: skip
def test_what_is_said(function, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        tm.grad(lambda t: tm.sum(t) + (function(t) is None))(X)
    with pytest.raises(TypeError, match=f"^{message}"):
        function(tm.Tensor(X))  # a variable has history
    with pytest.raises(TypeError, match=f"^{message}"):
        tm.jvp(lambda t: tm.sum(t) + (function(t * 2.0) is None), (X,), (X,))


def test_the_ways_out():
    t = tm.Tensor(X) * 2.0
    np.testing.assert_array_equal(np.exp(t.numpy()), np.exp(2 * X))
    assert float(t[0].item()) == 2.0
    assert not t.numpy().flags.writeable
    assert np.shape(t) == (3,) and np.ndim(t) == 1 and np.size(t) == 3 and np.size(t, 0) == 3


def test_comparisons_decide():
    """They are locally constant: no derivative is lost with them."""
    assert tm.grad(lambda t: t[0] ** 2 if t[0] < t[1] else t[1])(X).tolist() == [2.0, 0.0, 0.0]
    assert tm.grad(lambda t: max(t) * min(t))(X).tolist() == [3.0, 0.0, 1.0]
    assert tm.grad(lambda t: tm.sum(t * np.where(np.logical_and(t > 1.0, t < 3.0), 1.0, 0.0)))(X).tolist() == [0, 1, 0]
    assert tm.grad(lambda t: tm.sum(t[np.asarray(t > 1.5)]))(X).tolist() == [0, 1, 1]


def test_constants_convert():
    t, n = tm.as_tensor(X), tm.as_tensor(2)
    assert np.dot(t, t) == 14.0 and np.exp(t).tolist() == np.exp(X).tolist() and np.add.reduce(t) == 6.0
    assert np.asarray(t).tolist() == np.concatenate([t, [t[0]]]).tolist()[:3] == X.tolist()
    assert (float(t[1]), int(t[1]), complex(t[1]), bool(t[1]), range(9)[n], math.sin(t[1])) == (
        2.0, 2, 2 + 0j, True, 2, math.sin(2.0))  # fmt: skip
    for made in (copy.copy(t), copy.deepcopy(t)):
        assert isinstance(made, tm.Tensor) and made.numpy().tolist() == X.tolist() and not made.has_history
    assert not np.shares_memory(copy.deepcopy(t).data, X)
    assert isinstance(X * t, tm.Tensor) and isinstance(np.float64(2.0) * t, tm.Tensor)
    with pytest.raises(TypeError, match="a tensor is not pickled"):
        pickle.dumps(t)


def test_an_array_on_the_left():
    assert tm.Tensor(X).__array_ufunc__ is None  # by which CuPy, among others, leaves `array * tensor` to the tensor

    def f(t: Any) -> Any:
        return tm.sum(X * t + np.float64(2.0) ** t - X / t) + X @ t + tm.sum((X[:, None] - t) * np.ones((3, 3)))

    np.testing.assert_allclose(tm.grad(f)(X), slope(lambda x: f(tm.as_tensor(x)).item(), X), rtol=1e-6)
    assert (tm.Tensor(X[::-1].copy()) > X).numpy().tolist() == [True, False, False]


# Lists of tensors.

LISTS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda t: tm.mean([t, t * t]),
    "sum of nested": lambda t: tm.sum([[t[0], 2.0], (t[1], t[2] * t[2])]),
    "a factor": lambda t: tm.sum(t * [t[0], t[1], t[2]]),
    "a factor on the left": lambda t: tm.sum([t[0], 1.0, t[2]] * t),
    "where": lambda t: tm.sum(tm.where(X > 1.5, [t[0], t[1] * 2.0, t[2]], [t[2], 0.0, 0.0])),
    "concatenate": lambda t: tm.sum(tm.concatenate([t, [t[0]], [t[1] * t[1], 3.0]]) ** 2),
    "stack": lambda t: tm.sum(tm.stack([[t[0], 1.0], t[1:], [2.0, 3.0]]) ** 2),
    "with arrays": lambda t: tm.sum([t, X.astype(t.dtype)]),
    "matmul": lambda t: tm.sum(tm.matmul([[t[0], t[1]], [t[2], 1.0]], [t[0], t[1]])),
    "power": lambda t: tm.sum(t ** [t[0], t[1], 2.0]),
    "maximum": lambda t: tm.sum(tm.maximum([t[0], t[1], t[2]], [2.5, t[0], t[1]])),
    "reshape": lambda t: tm.sum(tm.reshape([t, t * t], 6)[::2] * 3.0),
    "mse": lambda t: tm.sum(tm.mse([[t[0], t[1]]], [[t[2], 1.0]])),
    "scatter_add": lambda t: tm.sum(tm.scatter_add(t, [0, 1], [t[2], t[2] * t[0]]) ** 2),
    "as_tensor": lambda t: tm.sum(tm.as_tensor([t[1], t[1]]) ** 3),
    "ones_like": lambda t: tm.sum(tm.ones_like([t, t])) + t[0],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_tensors(name, dtype):
    function, x = LISTS[name], X.astype(dtype)
    expected = slope(lambda x: function(tm.as_tensor(x)).item(), X)
    for actual in (tm.grad(function)(x), tm.record(tm.grad(function), x)(x)):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-6)
    if dtype == np.float64:
        curved = slope(lambda x: float(tm.grad(function)(x) @ X), X)
        for mode in MODES[:3]:
            np.testing.assert_allclose(tm.hvp(function, X, X, mode=mode), curved, rtol=1e-6, atol=1e-6)


def test_lists_that_do_not_fit():
    t = tm.Tensor(X)
    with pytest.raises(ValueError, match=r"^mean: tensors of one shape are needed, got \(3,\) and \(2,\)"):
        tm.mean([t, t[:2]])
    with pytest.raises(TypeError, match=r"^sum: an input is float32 and another is float64"):
        tm.sum([t, t.astype(np.float32)])
    with pytest.raises(TypeError, match="would lose the derivative"):
        tm.Tensor([t[0], t[1]])


def test_a_number_is_asked_for():
    with pytest.raises(ValueError, match=r"one number, got shape \(1,\); a number has shape \(\): take sum\(\)"):
        tm.grad(lambda t: t[:1])(X)
    with pytest.raises(ValueError, match=r"must return one number, got shape \(3,\); take sum\(\) or mean\(\)"):
        tm.grad(lambda t: t)(X)
