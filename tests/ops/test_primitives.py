"""Every primitive and every public function made of them: values are NumPy's, derivatives are right to third order."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tests.cases.composite_cases import COMPOSITES
from tests.cases.primitive_cases import CASES, CONSTANT, Source
from tinymaml import tree
from tinymaml.autodiff.primitive import REGISTRY, Primitive
from tinymaml.testing import check_derivatives

DRAWN = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
DTYPES = (np.float32, np.float64)
ALL = {**CASES, **{f"{name} (composite)": case for name, case in COMPOSITES.items()}}


def test_every_primitive_has_a_case():
    assert set(REGISTRY) == set(CASES) | set(CONSTANT), "a new primitive needs a case in primitive_cases.py"
    assert not set(CASES) & set(CONSTANT)
    for name, primitive in REGISTRY.items():
        assert isinstance(primitive, Primitive)
        assert (name in CONSTANT) == (primitive.jvp is None) == (primitive.vjp is None)


def test_every_public_function_has_a_case():
    named = {name.replace("_by_number", "") for name in CASES | COMPOSITES | CONSTANT}
    trivial = {"as_tensor", "ones_like", "zeros_like", "getitem", "matrix_transpose", "scatter_add",
               "argmax", "one_hot"}  # fmt: skip
    assert set(tm.ops.__all__) - named == trivial


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
@DRAWN
@given(data=st.data())
def test_values(name, dtype, data):
    case = ALL[name](Source(data, dtype))
    actual = tree.leaves(case.function(*[tm.as_tensor(x) for x in case.arrays]))
    expected = case.reference(*case.arrays)
    expected = list(expected) if isinstance(expected, tuple) else [expected]
    for ours, theirs in zip(actual, expected, strict=True):
        assert isinstance(ours, tm.Tensor)
        assert ours.shape == np.shape(theirs)
        assert ours.dtype == dtype or ours.dtype.kind == "i"
        np.testing.assert_allclose(ours.data, theirs, rtol=2e-5 if dtype is np.float32 else 1e-13, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
@DRAWN
@given(data=st.data())
def test_derivatives(name, dtype, data):
    case = ALL[name](Source(data, dtype))
    check_derivatives(case.function, *case.arrays, order=case.order)


# What passes no derivative.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONSTANT)
def test_locally_constant(name, dtype):
    primitive, reference = REGISTRY[name], CONSTANT[name]
    x, y = np.array([[0.5, -1, 0], [2, 0, 3]], dtype), np.array([0.5, 0, 3], dtype)
    arrays = (x, y) if name not in ("sign", "stop_gradient", "top_last") else (x,)
    static = {"count": 2} if name == "top_last" else {}
    variables = [tm.Tensor(a) for a in arrays]
    actual = primitive(*variables, **static)
    np.testing.assert_array_equal(actual.data, reference(*arrays))
    assert actual.dtype == reference(*arrays).dtype
    assert actual.node.inputs == ()
    assert tm.push([actual], variables, [tm.ones_like(a) for a in variables]) == [None]
    assert tm.pull([actual], variables, [actual]) == [None] * len(arrays)
    if actual.dtype == dtype:
        np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(x * primitive(x)))(x), actual.data)


# Ties go to the first.


def adjoint(function, *arrays):
    """<g, Jv> and <Jᵀg, v> at a kink."""
    rng = np.random.default_rng(0)
    vs = [rng.standard_normal(x.shape) for x in arrays]
    y, slope = tm.jvp(function, arrays, vs)
    g = rng.standard_normal(y.shape)
    results = tm.vjp(function, *arrays)[1](g)
    return np.vdot(g, slope), sum(np.vdot(a, v) for a, v in zip(results, vs, strict=True))


def test_ties_of_max():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, -1.0, 0.0]])
    first = [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.max(x, 1)))(x), first)
    np.testing.assert_array_equal(tm.grad(tm.max)(x), [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.max(x, 0)))(x), [[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    for axis in (None, 0, 1, (0, 1)):
        one, other = adjoint(lambda x, axis=axis: tm.max(x, axis), x)
        assert one == pytest.approx(other, rel=1e-12)


@pytest.mark.parametrize("function", [tm.maximum, tm.minimum])
def test_ties_of_two(function):
    a, b = np.array([1.0, 2.0, 3.0]), np.array([[1.0, 2.0, 0.0], [1.0, 5.0, 3.0]])
    da, db = tm.grad(lambda a, b: tm.sum(function(a, b)), (0, 1))(a, b)
    wins = np.equal(a, b) | (np.greater(a, b) if function is tm.maximum else np.less(a, b))
    np.testing.assert_array_equal(da, wins.sum(0))
    np.testing.assert_array_equal(db, ~wins)
    one, other = adjoint(function, a, b)
    assert one == pytest.approx(other, rel=1e-12)


def test_kinks():
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.clip(x, -1.0, 1.0)))(x), [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.relu(x)))(x), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.abs(x)))(x), [-1, -1, 0, 1, 1])
    for function in (tm.relu, tm.abs, lambda x: tm.clip(x, -1.0, 1.0)):
        one, other = adjoint(function, x)
        assert one == pytest.approx(other, rel=1e-12)


def test_powers_at_zero():
    for exponent, first, second in ((0, 0, 0), (1, 1, 0), (2, 0, 2), (3, 0, 0), (0.0, 0, 0), (1.0, 1, 0), (2.0, 0, 2)):
        slope = tm.grad(lambda x, exponent=exponent: x**exponent)
        assert slope(0.0) == first
        assert tm.grad(slope)(0.0) == second
    for n in (1.0, 2.0):  # an exponent that is a tensor
        assert tm.grad(lambda x, n: x**n, (0, 1))(0.0, n) == (n == 1, 0)


# Extremes.


EXTREME = {
    "logsumexp": (lambda x: tm.logsumexp(x, -1), lambda x: x.max(-1)),
    "softmax": (tm.softmax, lambda x: np.equal(x, x.max(-1, keepdims=True))),
    "softplus": (tm.softplus, lambda x: np.maximum(x, 0)),
    "sigmoid": (tm.sigmoid, lambda x: np.greater(x, 0)),
    "tanh": (tm.tanh, np.sign),
    "cross-entropy": (
        lambda x: tm.softmax_cross_entropy(x, np.array([[1, 1]])),
        lambda x: (x.max(-1) - x[..., 1]).mean(1),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e3, 1e4])
@pytest.mark.parametrize("name", EXTREME)
def test_extremes_are_finite(name, size, dtype):
    function, limit = EXTREME[name]
    x = np.array([[[-1, 1, 0.5], [0.25, -0.25, -1]]], dtype) * dtype(size)
    results = function(tm.Tensor(x))
    np.testing.assert_allclose(results.data, limit(x), rtol=1e-6, atol=1e-30)

    def total(x):
        return tm.sum(function(x))

    v = np.ones_like(x)
    first = tm.grad(total)(x)
    second = tm.hvp(total, x, v)
    third = tm.grad(lambda x: tm.sum(tm.hvp(total, x, v) * v))(x)
    for derivative in (first, second, third):
        assert derivative.dtype == dtype
        assert np.isfinite(derivative).all()


def test_masked_logits():
    """-inf is a logit that is never chosen."""
    x = np.array([[[0.5, -np.inf, 1.0]]])
    loss = lambda x: tm.sum(tm.softmax_cross_entropy(x, np.array([[2]])))  # noqa: E731
    value, first = tm.value_and_grad(loss)(x)
    assert value == pytest.approx(np.log1p(np.exp(-0.5)))
    assert first[0, 0, 1] == 0
    assert np.isfinite(first).all()
    assert np.isfinite(tm.hvp(loss, x, np.ones_like(x))).all()
    assert tm.logsumexp(np.full(3, -np.inf)).item() == -np.inf


# Residuals, and what a sweep costs.


def test_floating_residuals_raise():
    """Used by an ordinary op, a saved value would lose its derivative: it raises instead."""
    kernel = lambda specs, ins, static: (ins[0] * 2, ins[0] + 1)  # noqa: E731
    vjp = lambda wanted, g, y, x: [g * 2.0]  # noqa: E731
    try:
        twice = Primitive("twice", kernel, None, vjp, lambda ts, y, x: ts[0] * 2.0)
        total = Primitive(
            "total", lambda specs, ins, static: (ins[0] + ins[1],), None, None, lambda *_: None, residual_inputs=(1,)
        )
        y, saved = twice(tm.Tensor(np.ones(3)))
        with pytest.raises(TypeError, match="multiply: input 1 is a residual of twice, whose deriv"):
            tm.multiply(y, saved)
        with pytest.raises(TypeError, match="add: input 0 is a residual of twice"):
            saved + 1.0
        np.testing.assert_array_equal(total(y, saved).data, [4, 4, 4])
        check_derivatives(twice, np.ones(3))
    finally:
        for name in ("twice", "total"):
            REGISTRY.pop(name, None)


def test_integer_residuals_are_free():
    _, index = REGISTRY["max_last"](tm.Tensor([[1.0, 4.0, 2.0]]))
    assert index.data.dtype == np.intp
    assert tm.take(tm.Tensor([5.0, 6.0, 7.0]), index, 0).item() == 6.0


def test_the_modes_of_a_hessian_vector_product_differ(applied):
    """Counted: what each runs. None recomputes the loss but the finite difference, which runs it three times."""

    def loss(ws):
        return tm.sum(tm.tanh(tm.dense(tm.tanh(tm.dense(x, ws[0])), ws[1])) ** 2)

    x, ws = np.ones((1, 4, 3)), [np.full((1, 3, 2), 0.1), np.full((1, 2, 2), 0.1)]
    results = {}
    for mode in ("forward-over-reverse", "reverse-over-reverse", "reverse-over-forward", "finite-difference"):
        applied.clear()
        tm.hvp(loss, ws, ws, mode=mode)
        results[mode] = list(applied)
    assert [results[mode].count("tanh") for mode in results] == [2, 2, 2, 6]
    assert len({tuple(names) for names in results.values()}) == 4
    products = {mode: names.count("linear") for mode, names in results.items()}
    assert products["reverse-over-forward"] < products["forward-over-reverse"]  # one slope instead of every gradient's
    assert products["finite-difference"] > 0
    for mode in ("reverse-over-reverse", "reverse-over-forward", "finite-difference"):
        assert len(results["forward-over-reverse"]) < len(results[mode])


def test_names_are_taken_once():
    with pytest.raises(ValueError, match="'add' is declared twice"):
        Primitive("add", None, None, None, None)
