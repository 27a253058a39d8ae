"""exp and its like as our own arithmetic: units in the last place, the ends, the same bits wherever a number lies."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.kernels import cpu

pytestmark = [
    pytest.mark.skipif(not cpu.numba_is_used(), reason="without numba they are NumPy's; needs numba"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
EXACT = np.finfo(np.longdouble).nmant > 60

# function: (ours, what it is in more digits, units in the last place that it may be off)
FUNCTIONS = {
    "exp": (tm.exp, np.exp, 1.1),
    "expm1": (tm.expm1, np.expm1, 2.1),
    "tanh": (tm.tanh, np.tanh, 2.6),
    "log": (tm.log, np.log, 1.1),
    "log1p": (tm.log1p, np.log1p, 1.1),
    "sigmoid": (tm.sigmoid, lambda x: np.where(x >= 0, 1, np.exp(x)) / (1 + np.exp(-np.abs(x))), 2.6),
    "softplus": (tm.softplus, lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), 2.1),
}


def numbers(dtype):
    """Of all sizes: random bits, the ranges where something happens, the ends."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    words = np.dtype(f"u{info.bits // 8}")
    ends = [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, 2, info.tiny, info.smallest_subnormal, info.max, -info.max]
    parts = [
        rng.integers(0, np.iinfo(words).max, 100_000, words, endpoint=True).view(dtype),
        rng.normal(size=100_000),
        rng.normal(size=100_000) * 20,
        rng.uniform(-104, 89, 50_000),
        rng.uniform(-746, 710, 50_000),
        rng.normal(size=50_000) * 1e-3,
        10.0 ** rng.uniform(-30, 2, 50_000),
        ends,
    ]
    return np.concatenate([np.asarray(part, dtype) for part in parts])


@pytest.mark.skipif(not EXACT, reason="needs a longer floating type than float64 to compare with")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_units_in_the_last_place(name, dtype):
    function, exact, units = FUNCTIONS[name]
    x = numbers(dtype)
    actual = tm.record(function, x)(x)
    expected = exact(x.astype(np.longdouble))
    rounded = expected.astype(dtype)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    off = np.abs((actual.astype(np.longdouble) - expected) / np.spacing(np.abs(rounded)))
    assert (same | (off <= units)).all(), f"{off[~same].max()} units at {x[~same][off[~same].argmax()]}"
    zero = (x == 0) & (rounded == 0)
    np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(rounded[zero]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_result_depends_on_its_number_alone(name, dtype):
    x = numbers(dtype)[::97].copy()
    function = FUNCTIONS[name][0]
    expected = tm.record(function, x)(x)
    for change in (lambda x: x[:37], lambda x: x[::-1], lambda x: x[::3], lambda x: x[:35].reshape(5, 7).T):
        np.testing.assert_array_equal(tm.record(function, change(x))(change(x)), change(expected))
    column = x[:, None]
    np.testing.assert_array_equal(tm.record(lambda x: function(x) * 1.0, column)(column), expected[:, None])
