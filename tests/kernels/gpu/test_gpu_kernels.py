"""Every kernel is there for the GPU too, and gives there what the reference gives for what primitives ask of it."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cases import gpu_cases
from tests.cases.primitive_cases import CASES, Source
from tinymaml.autodiff.primitive import REGISTRY
from tinymaml.kernels import cpu, gpu
from tinymaml.kernels.names import KernelName

pytestmark = pytest.mark.usefixtures("gpu")

DRAWN = settings(
    max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
# Not families of kernels: how they are launched and planned, and what a recorded program needs besides.
INFRASTRUCTURE = {"cpu": {"threads"}, "gpu": {"launch", "many", "support"}}


def names(side, package):
    """family.kernel of the public functions of a package's families."""
    results = set()
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg or module.name in INFRASTRUCTURE[side]:
            continue
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        for name, function in vars(loaded).items():
            public = inspect.isfunction(function) and not name.startswith("_")
            parameters = list(inspect.signature(function).parameters) if public else []
            if "outs" in parameters or parameters[:1] == ["x"]:
                results.add(KernelName(module.name, name))
    return results


def test_the_same_kernels_on_both_sides():
    both = names("cpu", cpu)
    assert len(both) > 50
    assert both == names("gpu", gpu)


def on_gpu(primitive):
    """A stand-in for the primitive's kernel: it runs where it did, and on the GPU, and compares."""
    original, name = primitive.kernel, NAMES[primitive.name]

    def both(specs, ins, static):
        results = original(specs, ins, static)
        if primitive.specs is None:
            y = gpu.planner(*name)(gpu_cases.put(ins[0]), **static)
            np.testing.assert_array_equal(y.get(), results[0])
        else:
            tolerance = 1e-4 if results[0].dtype == np.float32 and primitive.name in LOOSE else None
            gpu_cases.check(name, specs, ins, static, tolerance)
        return results

    return both


# The library's exp, log and power differ from NumPy's by units in the last place, which their arguments magnify.
LOOSE = {"power", "power_of"}
FAMILIES = {name.name: name for name in names("cpu", cpu)}
NAMES = {name: FAMILIES[name] for name in REGISTRY if name in FAMILIES}


# Those without derivatives, which test_gpu_elementwise.py compares, and the last test here.
CONSTANT = {
    "equal", "first_is_larger", "first_is_smaller", "greater", "greater_equal", "less", "less_equal", "not_equal",
    "sign", "stop_gradient", "top_last",
}  # fmt: skip


OF_OTHERS = {"split"}  # its kernel is those of slices


def test_every_primitive_is_compared():
    assert set(NAMES) | CONSTANT | OF_OTHERS == set(CASES) | CONSTANT == set(REGISTRY)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(CASES) - OF_OTHERS))
@DRAWN
@given(data=st.data())
def test_a_primitive_on_the_gpu(name, dtype, data):
    primitive = REGISTRY[name]
    case = CASES[name](Source(data, dtype, sides=(1, 2, 3, 0, 5, 17, 50)))
    original = primitive.kernel
    object.__setattr__(primitive, "kernel", on_gpu(primitive))
    try:
        case.function(*case.arrays)
    finally:
        object.__setattr__(primitive, "kernel", original)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "length", "count"), [(3, 7, 7), (2, 300, 5), (1, 1, 1), (4, 3, 0), (0, 3, 2)])
def test_the_places_of_the_largest_on_the_gpu(rows, length, count, dtype):
    x = np.random.default_rng(0).integers(-4, 4, (rows, length)).astype(dtype)  # with many that are equal
    x[..., 2::5] = np.nan
    x[..., 1::6] = np.inf
    for laid in (x, np.asfortranarray(x), x[:, ::-1]):
        gpu_cases.check(("reduce", "top_last"), [((rows, count), np.int64)], [laid], {"count": count})
