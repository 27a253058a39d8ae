"""`check_derivatives` sees errors that are planted, says which, and passes what is right."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.autodiff.dispatch import kernel, view
from tinymaml.autodiff.primitive import REGISTRY, Primitive, each
from tinymaml.testing import DerivativeError, check_derivatives

X = np.array([[0.3, -0.7, 1.2], [0.4, 0.1, -0.2]])
ROW = np.array([0.5, 1.5, -0.25])
MODES = "planted: at order 2 reverse-over-(reverse|forward) and forward-over-reverse: differ"


@pytest.fixture
def plant():
    """Declares primitives that are gone after the test."""
    before = set(REGISTRY)
    yield Primitive
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


def frozen(x):
    """The value without its history, as a rule gets it wrong that takes a saved value for a constant."""
    return tm.stop_gradient(x)


def like(name):
    return {"kernel": REGISTRY[name].kernel, "specs": REGISTRY[name].specs}


def right(y):
    return 1.0 - y * y


def test_right_rules_pass(plant):
    tanh = plant(
        "planted", **like("tanh"), vjp=each(lambda g, y, x: g * right(y)), jvp=lambda ts, y, x: ts[0] * right(y)
    )
    check_derivatives(tanh, X)
    check_derivatives(tanh, X.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("vjp", "jvp", "message"),
    [
        (lambda g, y: -g * right(y), lambda t, y: t * right(y), r"planted: at order 1 the vjp and the jvp, by <g, Jv>"),
        (lambda g, y: g * right(y), lambda t, y: -t * right(y), r"planted: at order 1 the jvp and a central"),
        (lambda g, y: -g * right(y), lambda t, y: -t * right(y), r"at order 1 the jvp and a central difference"),
        (lambda g, y: g * right(frozen(y)), lambda t, y: t * right(y), MODES),
        (lambda g, y: g * right(y), lambda t, y: t * right(frozen(y)), MODES),
        (
            lambda g, y: g * right(frozen(y)),
            lambda t, y: t * right(frozen(y)),
            r"the vjp of planted: at order 2 the jvp and a central difference",
        ),
        (
            lambda g, y: g * (1.0 - y * frozen(y) * 2.0 + frozen(y) * frozen(y)),
            lambda t, y: t * (1.0 - y * frozen(y) * 2.0 + frozen(y) * frozen(y)),
            r"of the vjp of planted: at order 3 the jvp and a central difference",  # right to second order
        ),
        (lambda g, y: g * right(y) * np.nan, lambda t, y: t * right(y), r"at order 1 .*nan"),
        (lambda g, y: None, lambda t, y: t * right(y), r"at order 1 the vjp and the jvp"),
        (lambda g, y: tm.sum(g * right(y)), lambda t, y: t * right(y), r"at order 1 a vjp rule fails: a cotangent has"),
    ],
    ids=[
        "sign-vjp",
        "sign-jvp",
        "sign-both",
        "frozen-vjp",
        "frozen-jvp",
        "frozen-both",
        "frozen-third-order",
        "nan",
        "missing",
        "shape",
    ],
)
def test_planted_errors_are_caught(plant, vjp, jvp, message, dtype):
    wrong = plant("planted", **like("tanh"), vjp=each(lambda g, y, x: vjp(g, y)), jvp=lambda ts, y, x: jvp(ts[0], y))
    with pytest.raises(DerivativeError, match=message):
        check_derivatives(wrong, X.astype(dtype))


@pytest.mark.parametrize(
    "wrong_sum", [lambda g, b: g, lambda g, b: g[0], lambda g, b: tm.sum(g, 0) / 2.0], ids=["none", "first", "mean"]
)
def test_a_missing_broadcast_sum_is_caught(plant, wrong_sum):
    wrong = plant(
        "planted",
        **like("add"),
        vjp=each(lambda g, y, a, b: g, lambda g, y, a, b: wrong_sum(g, b)),
        jvp=lambda ts, y, a, b: tm.broadcast_to(sum(t for t in ts if t is not None), y.shape),
    )
    with pytest.raises(DerivativeError, match=r"at order 1 (the vjp and the jvp|a vjp rule fails)"):
        check_derivatives(wrong, X, ROW)


def test_a_tangent_missing_alone_is_checked(plant):
    """Rules that are wrong only when one of the tangents is None."""
    wrong = plant(
        "planted",
        **like("add"),
        vjp=each(lambda g, y, a, b: g, lambda g, y, a, b: g),
        jvp=lambda ts, y, a, b: ts[1] if ts[0] is None or ts[1] is None else ts[0] + ts[1],
    )
    with pytest.raises(DerivativeError, match="order 1 the jvp by input 0 and that by the rest"):
        check_derivatives(wrong, X, X)


def test_a_silent_zero_is_caught(plant):
    wrong = plant("planted", view("shape", "identity"), None, vjp=None, jvp=None)
    with pytest.raises(DerivativeError, match=r"planted: at order 1 the jvp and a central difference: differ by 0.93"):
        check_derivatives(wrong, X)


def test_an_error_of_float32_alone_is_caught(plant):
    def run(specs, ins, static):
        return (np.tanh(ins[0]) + (1e-3 if ins[0].dtype == np.float32 else 0),)

    wrong = plant("planted", run, None, vjp=each(lambda g, y, x: g * right(y)), jvp=lambda ts, y, x: ts[0] * right(y))
    check_derivatives(wrong, X)
    with pytest.raises(DerivativeError, match="planted: at order 1 the value in float32 and in float64"):
        check_derivatives(wrong, X.astype(np.float32))


def test_a_wide_result_of_float32_is_caught():
    with pytest.raises(DerivativeError, match="the value of float32 is float64"):
        check_derivatives(lambda x: tm.astype(x, np.float64), X.astype(np.float32))


def test_a_small_error_beside_large_ones_is_caught():
    """Errors are of each array by its own norm, not of all together."""

    def function(x, y):
        return {"large": 1e6 * x, "small": y + 1e-4 * tm.stop_gradient(y)}

    with pytest.raises(DerivativeError, match="array 1: differ by"):
        check_derivatives(function, X, X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_raises(bad):
    with pytest.raises(DerivativeError, match="not finite"):
        check_derivatives(lambda x: x * bad, X)
    with pytest.raises(DerivativeError, match=r"order 1 .*not finite"), np.errstate(divide="ignore", invalid="ignore"):
        check_derivatives(tm.sqrt, np.array([0.0, 1.0]))


def test_fourth_order_stencil():
    """Where the third derivative is large the usual difference is too coarse."""
    with pytest.raises(DerivativeError, match="central difference"):
        check_derivatives(lambda x: tm.sin(x * 2000.0), X, order=1)
    check_derivatives(lambda x: tm.sin(x * 2000.0), X, order=1, stencil=4, step=1e-6)
    check_derivatives(tm.tanh, X, stencil=4)


def test_functions_of_pytrees_with_integers():
    labels = np.array([[0, 2], [1, 1]])

    def function(params, labels, scale):
        logits = tm.dense(params["x"], params["layers"][0], params["layers"][1]) * scale
        return {"loss": tm.softmax_cross_entropy(logits, labels), "count": labels, "none": None}

    rng = np.random.default_rng(3)
    params = {"x": rng.normal(size=(2, 2, 3)), "layers": [rng.normal(size=(1, 3, 4)), rng.normal(size=(2, 1, 4))]}
    check_derivatives(function, params, labels, 2)
    check_derivatives(function, params, labels, 0.5)  # a float is differentiated by as well


@pytest.mark.parametrize("order", [1, 2, 3])
def test_third_order_terms_need_order_three(plant, order):
    wrong = plant(
        "planted",
        kernel("elementwise", "exp"),
        REGISTRY["exp"].specs,
        vjp=each(lambda g, y, x: g * (frozen(y) * (1.0 + x - frozen(x)))),
        jvp=lambda ts, y, x: ts[0] * (frozen(y) * (1.0 + x - frozen(x))),
    )
    if order < 3:
        check_derivatives(wrong, X, order=order)
    else:
        with pytest.raises(DerivativeError, match="order 3"):
            check_derivatives(wrong, X, order=order)


def test_bad_arguments():
    with pytest.raises(ValueError, match="order must be 1, 2 or 3, got 4"):
        check_derivatives(tm.tanh, X, order=4)
    with pytest.raises(ValueError, match="stencil must be 2 or 4, got 3"):
        check_derivatives(tm.tanh, X, stencil=3)
    with pytest.raises(TypeError, match="tanh: the floating arrays must be all float32 or all float64, got int64"):
        check_derivatives(tm.tanh, np.arange(3))
    with pytest.raises(TypeError, match="got float32, float64"):
        check_derivatives(tm.add, X, ROW.astype(np.float32))
    with pytest.raises(TypeError, match="greater: there is no floating output"):
        check_derivatives(tm.greater, X, ROW)
