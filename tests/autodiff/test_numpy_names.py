"""Functions that bear NumPy's names do what NumPy's do: on what is not a number, infinities and zeros of both signs,
at once and recorded, and with integers of any kind as axes and lengths. What they refuse they refuse in their own name.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinymaml as tm

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan]
DTYPES = (np.float32, np.float64)
NAMES = sorted(name for name in tm.ops.__all__ if hasattr(np, name))

Function = Callable[..., Any]
ONE = ["abs", "cos", "exp", "expm1", "log", "log1p", "negative", "sign", "sin", "sqrt", "tanh"]
TWO = [
    "add", "subtract", "multiply", "divide", "power", "maximum", "minimum",
    "equal", "greater", "greater_equal", "less", "less_equal", "not_equal",
]  # fmt: skip
# What is called alike in both, with m for tm or np, of x and y, all pairs of special numbers, [n, n].
CASES: dict[str, list[Function]] = {
    **{name: [lambda m, x, y, name=name: getattr(m, name)(x)] for name in ONE},
    **{name: [lambda m, x, y, name=name: getattr(m, name)(x, y)] for name in TWO},
    "clip": [
        lambda m, x, y, b=b: m.clip(x, *b)
        for b in ((-1.0, 1.0), (None, 0.5), (0.0, None), (-np.inf, np.inf), (np.nan, 1.0))
    ]
    + [lambda m, x, y: m.clip(x, y, y * 0.5 + 1.0)],
    "sum": [lambda m, x, y, a=a: m.sum(x, a) for a in (None, 0, (0, 1))],
    "mean": [lambda m, x, y, a=a: m.mean(x, a) for a in (None, 1, -2)],
    "max": [lambda m, x, y, a=a: m.max(x, a) for a in (None, 0, 1)] + [lambda m, x, y: m.max(x[:, :-1], 1)],
    "min": [lambda m, x, y, a=a: m.min(x, a) for a in (None, 0, 1)] + [lambda m, x, y: m.min(x[:, :-1], 1)],
    "var": [lambda m, x, y, a=a: m.var(x, a) for a in (None, 1, -2)],
    "argmax": [lambda m, x, y, a=a: m.argmax(x, a) for a in (None, 0, 1)],
    "cumsum": [lambda m, x, y, a=a: m.cumsum(x, a) for a in (None, 0, 1)],
    "einsum": [lambda m, x, y: m.einsum("ij,ik->jk", x[:2, :3], y[:2, :3])],
    "matmul": [lambda m, x, y: m.matmul(x, y), lambda m, x, y: m.matmul(x[:2, :3], y[:3, 5])],
    "where": [lambda m, x, y: m.where(x > y, x, y)],
    "astype": [lambda m, x, y: m.astype(x, np.float32), lambda m, x, y: m.astype(x, np.float64)],
    "broadcast_to": [lambda m, x, y: m.broadcast_to(x[0], y.shape)],
    "concatenate": [lambda m, x, y: m.concatenate([x, y], 1)],
    "stack": [lambda m, x, y: m.stack([x, y], 1)],
    "expand_dims": [lambda m, x, y: m.expand_dims(x, 1)],
    "split": [lambda m, x, y, k=k: m.split(x, 5, 1)[k] for k in (0, 4)] + [lambda m, x, y: m.split(x, [3, 3], -1)[2]],
    "squeeze": [lambda m, x, y: m.squeeze(x[:1])],
    "reshape": [lambda m, x, y: m.reshape(x, (-1, 2))],
    "swapaxes": [lambda m, x, y: m.swapaxes(x, 0, 1)],
    "transpose": [lambda m, x, y: m.transpose(x)],
    "matrix_transpose": [lambda m, x, y: m.matrix_transpose(x)],
    "ones_like": [lambda m, x, y: m.ones_like(x)],
    "zeros_like": [lambda m, x, y: m.zeros_like(x)],
    "pad": [lambda m, x, y: m.pad(x, ((1, 0), (2, 1)))],
    "take": [lambda m, x, y: m.take(x, np.array([0, 9, 9]), 1)],
    "take_along_axis": [lambda m, x, y: m.take_along_axis(x, np.arange(10)[:, None], 1)],
}
POWERS = (0, 1, 2, 3, -1, 0.5, -2.5, 1.0)
CASES["power"] += [lambda m, x, y, n=n: m.power(x, n) for n in POWERS]
# Which of two zeros comes out is not said by NumPy: it adds in an order of its own, and takes either for the larger.
EITHER_ZERO = {"sum", "mean", "max", "min", "var", "cumsum", "einsum", "maximum", "minimum", "clip", "matmul"}


def special(dtype: Any) -> list[Any]:
    return [np.ascontiguousarray(x) for x in np.meshgrid(*[np.array(SPECIAL, dtype)] * 2, indexing="ij")]


def same(name: str, ours: Any, theirs: Any, dtype: Any) -> None:
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=1e-5 if dtype is np.float32 else 1e-12, err_msg=name)
    if name not in EITHER_ZERO:
        zero = np.equal(theirs, 0) & np.equal(ours, 0)
        np.testing.assert_array_equal(np.signbit(ours[zero]), np.signbit(theirs[zero]), err_msg=name)


def test_every_name_of_numpy_is_compared():
    assert set(CASES) == set(NAMES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_special_numbers(dtype):
    x, y = special(dtype)
    for name, functions in CASES.items():
        for function in functions:
            same(name, function(tm, tm.as_tensor(x), tm.as_tensor(y)).numpy(), np.asarray(function(np, x, y)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_special_numbers_recorded(dtype):
    every = [(name, function) for name, functions in CASES.items() for function in functions]
    x, y = special(dtype)
    program = tm.record(lambda x, y: [function(tm, x, y) for _, function in every], np.ones_like(x), np.ones_like(y))
    for (name, function), ours in zip(every, program(x, y), strict=True):
        same(name, ours, np.asarray(function(np, x, y)), dtype)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_the_derivative_goes_to_what_is_not_a_number(is_recorded):
    a, b = np.array([np.nan, 1.0, np.nan, 2.0, 3.0]), np.array([1.0, np.nan, np.nan, 2.0, 4.0])
    for function, by_first in ((tm.maximum, [1, 0, 1, 1, 0]), (tm.minimum, [1, 0, 1, 1, 1])):
        slope = tm.grad(lambda a, b, function=function: tm.sum(function(a, b)), (0, 1))
        first, second = tm.record(slope, a, b)(a, b) if is_recorded else slope(a, b)
        np.testing.assert_array_equal(first, by_first)
        np.testing.assert_array_equal(second, 1 - np.array(by_first))
    np.testing.assert_array_equal(tm.grad(lambda a: tm.sum(tm.clip(a, -1.0, 1.0)))(a), [1, 1, 1, 0, 0])


# Integers of any kind.

X = np.arange(1.0, 7.0).reshape(2, 3)


class Own:
    """An integer of somebody else's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, lambda n: np.array(n), Own, lambda n: tm.as_tensor(n)])
def test_axes_and_lengths(kind):
    one, six, x = kind(1), kind(6), tm.as_tensor(X)
    for name in ("sum", "mean", "max"):
        np.testing.assert_array_equal(getattr(tm, name)(x, axis=one).numpy(), getattr(np, name)(X, axis=1))
        np.testing.assert_array_equal(getattr(x, name)(axis=(kind(0), one)).numpy(), getattr(np, name)(X))
    for name in ("logsumexp", "softmax", "log_softmax"):
        np.testing.assert_array_equal(getattr(tm, name)(x, one).numpy(), getattr(tm, name)(x, 1).numpy())
    for shape in (six, (six,), (kind(3), -1)):
        expected = X.reshape(6) if shape is six or len(shape) == 1 else X.reshape(3, 2)
        np.testing.assert_array_equal(tm.reshape(x, shape).numpy(), expected)
        np.testing.assert_array_equal(x.reshape(shape).numpy(), expected)
    assert all(type(n) is int for n in tm.reshape(x, six).node.static["shape"])
    np.testing.assert_array_equal(x.reshape(kind(3), kind(2)).numpy(), X.reshape(3, 2))
    np.testing.assert_array_equal(x.transpose(one, kind(0)).numpy(), X.T)
    np.testing.assert_array_equal(tm.transpose(x, [one, kind(0)]).numpy(), X.T)
    np.testing.assert_array_equal(tm.swapaxes(x, one, kind(0)).numpy(), X.T)
    np.testing.assert_array_equal(tm.broadcast_to(x[0], (kind(4), kind(3))).numpy(), np.broadcast_to(X[0], (4, 3)))
    np.testing.assert_array_equal(tm.broadcast_to(1.0, six).numpy(), np.ones(6))
    np.testing.assert_array_equal(tm.expand_dims(x, one).numpy(), X[:, None])
    np.testing.assert_array_equal(tm.squeeze(x[:1], kind(0)).numpy(), X[0])
    np.testing.assert_array_equal(tm.concatenate([x, x], one).numpy(), np.concatenate([X, X], 1))
    np.testing.assert_array_equal(tm.stack([x, x], one).numpy(), np.stack([X, X], 1))
    np.testing.assert_array_equal(tm.take(x, [0], one).numpy(), X[:, :1])
    np.testing.assert_array_equal(tm.take_along_axis(x, [[0], [2]], one).numpy(), [[1], [6]])
    np.testing.assert_array_equal(tm.pad(x, [(one, one), (kind(0), six)]).numpy(), np.pad(X, [(1, 1), (0, 6)]))
    if kind is np.int64:
        np.testing.assert_array_equal(tm.grad(lambda a, b: tm.sum(a * b), one)(X, X), X)


@pytest.mark.parametrize("bad", [True, np.True_, 1.0, "a", X])
def test_what_is_no_axis(bad):
    for call, name in (
        (lambda: tm.sum(X, bad), "sum: axis"),
        (lambda: tm.mean(X, axis=(0, bad)), "mean: axis"),
        (lambda: tm.softmax(X, bad), "softmax: axis"),
        (lambda: tm.reshape(X, (bad, -1)), "reshape: shape"),
        (lambda: tm.transpose(X, (0, bad)), "transpose: axes"),
        (lambda: tm.grad(tm.sum, bad), "grad: argnums"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be of whole numbers, got "):
            call()


# Errors speak of the function that was called.

IMAGE, KERNEL, LABELS = np.ones((1, 1, 4, 4, 2)), np.ones((1, 3, 3, 2, 2)), np.arange(6).reshape(2, 3)
OTHERS: dict[str, tuple[Any, ...]] = {  # what the functions take beside their first argument, or others than X
    "astype": (np.float32,), "broadcast_to": ((4, 2, 3),), "clip": (0.0, 1.0), "expand_dims": (0,), "getitem": (0,),
    "pad": ([(0, 1), (0, 1)],), "power": (2,), "reshape": (6,), "swapaxes": (0, 1), "take": ([0], 0),
    "take_along_axis": ([[0], [0]], 1), "where": (X, X), "scatter_add": (0, X[0]), "softmax_cross_entropy": ([0, 0],),
    "conv2d": (KERNEL,), "dense": (np.ones((1, 3, 2)),), "matmul": (X.T,), "linear": (X.T,), "mse": (X,),
    "attention": (X, X), "conv_transpose2d": (KERNEL,), "cosine_similarity": (X,), "dropout": (X, 0.5),
    "one_hot": (7,), "pairwise_squared_distances": (X,), "sigmoid_cross_entropy": (X,), "top_k": (1,), "split": (2,),
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), (X,)),
}  # fmt: skip
FIRST: dict[str, Any] = {
    **dict.fromkeys(("conv2d", "conv_transpose2d", "avg_pool2d", "max_pool2d", "spatial_mean", "batch_norm",
                     "batch_norm_relu", "batch_statistics"), IMAGE),
    "dense": X[None], "squeeze": X[None], "one_hot": LABELS,
}  # fmt: skip
LISTS = ("concatenate", "stack")
# They take integers, or anything that there is.
ANY = {"as_tensor", "astype", "ones_like", "zeros_like", "sign", "stop_gradient", "where", "one_hot",
       "concatenate", "take", "take_along_axis", "top_k",
       "equal", "greater", "greater_equal", "less", "less_equal", "not_equal"}  # fmt: skip
MIXED = [
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "matmul", "mse", "concatenate", "stack", "dense",
    "scatter_add", "conv2d", "linear", "power", "batch_norm", "batch_norm_relu", "layer_norm",
]  # fmt: skip


def call(name: str, change: Callable[[Any], Any], others: Callable[[Any], Any] = lambda x: x) -> Any:
    first = change(FIRST.get(name, X))
    if name in LISTS:
        return getattr(tm, name)([first, others(X)])
    if name == "einsum":
        return tm.einsum("ij->ji", first)
    return getattr(tm, name)(first, *[others(x) if isinstance(x, np.ndarray) else x for x in OTHERS.get(name, ())])


def test_the_calls_are_right():
    for name in set(tm.ops.__all__) - {"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"}:
        assert isinstance(call(name, np.copy), tm.Tensor | tuple | list)


@pytest.mark.parametrize("name", sorted(set(tm.ops.__all__) - ANY))
def test_integers_are_refused_by_the_name_that_was_called(name):
    def whole(x: Any) -> Any:
        return x.astype(np.int64)

    with pytest.raises(TypeError, match=f"^{name}: .*int64"):
        call(name, whole, whole)


@pytest.mark.parametrize("name", MIXED)
def test_other_dtypes_are_refused_by_the_name_that_was_called(name):
    single = np.float32
    calls = {
        "power": lambda: tm.power(X, np.ones_like(X, single)),
        "batch_norm": lambda: tm.batch_norm(IMAGE, np.ones((1, 2), single)),
        "batch_norm_relu": lambda: tm.batch_norm_relu(IMAGE, np.ones((1, 2), single)),
        "layer_norm": lambda: tm.layer_norm(X, np.ones((1, 3), single)),
    }
    with pytest.raises(TypeError, match=f"^{name}: (an input|input \\d) is float(32|64) and another is float(32|64)"):
        calls.get(name, lambda: call(name, np.copy, lambda x: x.astype(single)))()


@pytest.mark.parametrize("name", sorted(set(tm.ops.__all__) - {"getitem"}))
def test_what_is_no_number_is_refused_by_the_name_that_was_called(name):
    with pytest.raises(TypeError, match=f"^{name}: "):
        call(name, lambda x: "text") if name not in LISTS else getattr(tm, name)(["text", X])


@pytest.mark.parametrize(
    "name", ["add", "maximum", "minimum", "where", "matmul", "stack", "concatenate", "scatter_add", "power", "mse"]
)
def test_shapes_are_refused_by_the_name_that_was_called(name):
    wide = np.ones((2, 5))
    arguments = {
        "where": (X > 0, X, wide),
        "scatter_add": (X, 0, wide),
        "stack": ([X, wide],),
        "concatenate": ([X, wide],),
    }
    expected = "matrix product" if name == "matmul" else name
    with pytest.raises(ValueError, match=f"^{expected}: "):
        getattr(tm, name)(*arguments.get(name, (X, wide)))


@pytest.mark.parametrize(
    "name",
    [
        "sum",
        "mean",
        "max",
        "min",
        "var",
        "norm",
        "cumsum",
        "argmax",
        "logsumexp",
        "softmax",
        "log_softmax",
        "squeeze",
        "expand_dims",
    ],
)
def test_axes_are_refused_by_the_name_that_was_called(name):
    with pytest.raises(ValueError, match=f"^{name}: axis 7 is out of range"):
        getattr(tm, name)(X, axis=7)


def test_numpy_functions_name_ours():
    for name in set(NAMES) - {"where"}:
        if "x" in inspect.signature(getattr(tm, name)).parameters:
            arguments = OTHERS.get(name, ())
        else:
            arguments = (X,) if name in TWO else ()
        if (
            name in ("add", "subtract", "multiply", "divide", "power", "matmul", "equal", "not_equal")
            or name in TWO[7:]
        ):
            continue  # array * tensor is one of these
        with pytest.raises(TypeError, match=rf"^numpy\.(absolute|a?max|{name}) would lose .*: use tinymaml\.{name};"):
            tm.grad(
                lambda t, name=name, arguments=arguments: getattr(np, name)(
                    *([[t]] if name in LISTS else [t]), *arguments
                )
            )(X)


# Kinds of array with rules of their own.


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ma.array([1.0, 2.0], mask=[0, 1]), r"a masked array's mask would be lost: give \.filled\(value\)"),
        (np.ma.array([1.0, 2.0]), r"a masked array's mask would be lost"),
        (np.ones((1, 2)).view(np.matrix), r"a numpy\.matrix has rules of its own.* give numpy\.array\(x\)"),
    ],
    ids=str,
)
def test_arrays_with_rules_of_their_own_are_refused(bad, message):
    x = np.ones(np.shape(bad))
    optimiser = tm.optim.sgd(0.1)
    program = tm.record(lambda x: x * 2.0, x)
    calls = [
        lambda: tm.Tensor(bad), lambda: tm.as_tensor(bad), lambda: tm.as_tensor([bad, bad]), lambda: tm.Tensor([bad]),
        lambda: tm.exp(bad), lambda: tm.Tensor(x) * bad, lambda: tm.sum(bad), lambda: tm.sum([tm.sum(x), bad]),
        lambda: tm.grad(tm.sum)(bad), lambda: tm.grad(lambda t: tm.sum(t * bad))(x), lambda: tm.vjp(tm.exp, bad),
        lambda: tm.vjp(tm.exp, x)[1](bad), lambda: tm.jvp(tm.exp, (x,), (bad,)), lambda: tm.hvp(tm.sum, x, bad),
        lambda: tm.adapt(lambda p, b: p * b, bad, x, 0.1, 1), lambda: tm.adapt(lambda p, b: p * b, x, x, bad, 1),
        lambda: tm.meta_value_and_grad(lambda p, b: tm.sum(p * b, 1), x[None][:, 0], x, bad, 0.1, 0),
        lambda: optimiser.init(bad), lambda: optimiser.update(bad, optimiser.init(x), x),
        lambda: optimiser.update(x, optimiser.init(x), bad), lambda: program(bad),
        lambda: tm.where(x > 0, bad, 0.0), lambda: tm.mse(x[None], bad), lambda: tm.concatenate([x, bad]),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match=message):
            call()
    whole = np.ma.array([0, 1], mask=[0, 1])
    for index in (
        lambda: tm.as_tensor(np.ma.masked),
        lambda: tm.as_tensor(np.ones(2))[whole],
        lambda: tm.take(np.ones(2), whole, 0),
        lambda: tm.softmax_cross_entropy(np.ones((1, 2, 2)), whole[None]),
    ):
        with pytest.raises(TypeError, match="a masked array"):
            index()


def test_plain_arrays_of_any_kind_are_taken(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(x * mapped))(mapped), X)
