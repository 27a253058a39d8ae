"""With Numba a step gives the same bits recorded and not: every primitive, and every elementwise one on hard values."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tests.cases.primitive_cases import CASES, LAYOUTS, Source
from tinymaml import tree
from tinymaml.autodiff.primitive import REGISTRY
from tinymaml.autodiff.tensor import Tensor
from tinymaml.kernels import cpu
from tinymaml.kernels.formulas import FORMULAS

if not cpu.numba_is_used():
    pytest.skip("needs numba, of the extra `fast`, and TINYMAML_NUMBA not 0", allow_module_level=True)

DTYPES = [np.float32, np.float64]
OPERANDS = {"add": 2, "subtract": 2, "multiply": 2, "divide": 2, "power": 2, "gate": 2, "descend": 3}
COMPARED = {
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "first_is_larger", "first_is_smaller"
}  # fmt: skip
STATIC = {"power_of": [{"exponent": e} for e in (2, -1, 0.5, 3, -2.5, 0)], "astype": [{"dtype": t} for t in DTYPES]}
ELEMENTWISE = sorted(set(FORMULAS) & set(REGISTRY) - {"where"})


def bits(array):
    """Its bits; all that are not numbers are the same."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        return array
    return np.where(np.isnan(array), np.nan, array).view(f"u{array.itemsize}")


def assert_same_bits(step, *arrays, threads=None):
    with np.errstate(all="ignore"):
        eager = tree.leaves(step(*arrays))
        recorded = tree.leaves(tm.record(step, *arrays, threads=threads)(*arrays))
    for one, other in zip(eager, recorded, strict=True):
        one = one.numpy() if isinstance(one, Tensor) else np.asarray(one)
        assert one.shape == other.shape and one.dtype == other.dtype
        same = bits(one) == bits(other)
        assert same.all(), (one[~same][:3], other[~same][:3])


def hard(dtype, count, seed=0):
    """Numbers of all exponents and signs, subnormal ones, infinities, ones that are none, and those of everyday use."""
    rng = np.random.default_rng(seed)
    size = np.dtype(dtype).itemsize
    results = rng.integers(0, 2 ** (8 * size), count, np.uint64, endpoint=False) if size < 8 else rng.bytes(8 * count)
    results = np.frombuffer(results, np.uint64).astype(f"u{size}").view(dtype).copy()
    results[::3] = rng.standard_normal(len(results[::3])) * 10.0 ** rng.integers(-8, 4, len(results[::3]))
    tiny, eps = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).eps
    special = [0, 1, 0.5, 2, np.inf, np.nan, tiny, 3 * tiny, np.finfo(dtype).tiny, np.finfo(dtype).max, eps, 1 + eps,
               1 - eps / 2, np.log(2), 88.7, 89, 104, 709.7, 710, 746, 17, 20, 22]  # fmt: skip
    results[: 2 * len(special)] = [*special, *[-x for x in special]]
    return results


def laid(x, layout):
    """The same numbers in another layout of memory."""
    if layout == "Fortran":
        return np.asfortranarray(x)
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return x[::-1].copy()[::-1]
    return np.broadcast_to(x[:1], x.shape) if layout == "stride-0" else x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, dtype):
    primitive, count = REGISTRY[name], OPERANDS.get(name, 2 if name in COMPARED else 1)
    arrays = [np.random.default_rng(i).permutation(hard(dtype, 2310)).reshape(10, 11, 21) for i in range(count)]
    for static in STATIC.get(name, [{}]):
        for layout in LAYOUTS:
            assert_same_bits(lambda *xs: primitive(*xs, **static), *[laid(x, layout) for x in arrays])  # noqa: B023
    if count > 1:
        for shapes in (((), (11, 21)), ((10, 11, 21), (21,)), ((1, 11, 1), (10, 1, 21)), ((10, 11, 21), (1, 1, 1))):
            few = [arrays[i].ravel()[: np.prod(shape, dtype=int)].reshape(shape) for i, shape in enumerate(shapes)]
            assert_same_bits(lambda *xs: primitive(*xs), *few, *arrays[2:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_choices(dtype):
    x, y = hard(dtype, 2310), hard(dtype, 2310, 1)
    assert_same_bits(lambda x, y: tm.where(x > y, x, y), x, y)
    assert_same_bits(lambda x, y, c: tm.where(c, x, y), x, y, x > 0)


@pytest.mark.parametrize("name", ["exp", "tanh", "power", "softplus"])
def test_large_arrays_on_several_threads(name, use_threads):
    use_threads(3)
    count = OPERANDS.get(name, 1)
    arrays = [hard(np.float32, 300_001, i) for i in range(count)]
    for threads in (1, 3):
        assert_same_bits(REGISTRY[name], *arrays, threads=threads)


def settings_of(examples):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def check_primitive(name, dtype, data, sides):
    case = CASES[name](Source(data, dtype, sides=sides))
    assert_same_bits(case.function, *case.arrays, threads=data.draw(st.integers(1, 3)))


@pytest.mark.parametrize("name", CASES)
@settings_of(4)
@given(data=st.data())
def test_a_primitive(name, data):
    check_primitive(name, np.float32, data, (1, 2, 3, 5, 17))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
@settings_of(60)
@given(data=st.data())
def test_a_primitive_at_length(name, dtype, data):
    check_primitive(name, dtype, data, (1, 2, 3, 0, 5, 17, 50))
