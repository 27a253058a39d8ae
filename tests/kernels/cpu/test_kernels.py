"""Every compiled kernel equals its reference in NumPy, and the reference is NumPy's own function (test_primitives)."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tests.cases.primitive_cases import CASES, Source
from tinymaml.autodiff.primitive import REGISTRY
from tinymaml.kernels import cpu
from tinymaml.kernels.names import KernelName

if not cpu.numba_is_used():
    pytest.skip("compiled kernels need numba, of the extra `fast`, and TINYMAML_NUMBA not 0", allow_module_level=True)

from tinymaml.kernels.cpu import compiled

DRAWN = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
# No primitive has these: tests below have the optimisers', test_peephole.py the others.
ELSEWHERE = {"top_last", "adam", "bias_correction", "next_iteration"} | {
    *[f"batch_norm{part}_pool" for part in ("", "_tangent", "_gradient", "_hessian")]
}


def kernels() -> list[KernelName]:
    """The kernels of compiled/: public functions of `outs`."""
    results = []
    for module in pkgutil.iter_modules(compiled.__path__):
        loaded = importlib.import_module(f"{compiled.__name__}.{module.name}")
        for name, function in vars(loaded).items():
            public = inspect.isfunction(function) and not name.startswith("_")
            if public and "outs" in inspect.signature(function).parameters:
                results.append(KernelName(module.name, name))
    return results


def check(name, outs, ins, static, dtype):
    """Both kernels on the same arrays; leaves the reference's answer in `outs`."""
    ours = [np.full_like(out, 7) for out in outs]
    before = [np.array(x) for x in ins]
    cpu.numba_kernel(*name)(ours, ins, **static)
    cpu.numpy_kernel(*name)(outs, ins, **static)
    for x, old in zip(ins, before, strict=True):
        np.testing.assert_array_equal(x, old, err_msg=f"{name} changed an input")
    for one, other in zip(ours, outs, strict=True):
        assert np.linalg.norm((one - other).ravel()) <= TOLERANCE[dtype] * max(1, np.linalg.norm(other.ravel())), name


def test_every_compiled_kernel_is_compared():
    assert len(kernels()) >= 5
    assert {name.name for name in kernels()} <= set(CASES) | ELSEWHERE, "a new kernel needs a case"
    for name in kernels():
        assert cpu.numpy_kernel(*name) is not cpu.numba_kernel(*name) is cpu.find(*name)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name in kernels() if name.name in CASES])
@DRAWN
@given(data=st.data())
def test_compiled_equals_reference(name, dtype, data):
    """The primitive's case, with a kernel in between that runs and compares both."""
    primitive = REGISTRY[name.name]
    case = CASES[primitive.name](Source(data, dtype, sides=(1, 2, 3, 0, 5, 17, 50)))
    calls = 0

    def both(specs, ins, static):
        nonlocal calls
        calls += 1
        outs = tuple(np.empty(shape, kind) for shape, kind in specs)
        check(name, outs, ins, static, dtype)
        return outs

    original = primitive.kernel
    object.__setattr__(primitive, "kernel", both)
    try:
        case.function(*case.arrays)
        assert calls == 1
    finally:
        object.__setattr__(primitive, "kernel", original)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "length", "count"), [(3, 7, 7), (2, 300, 20), (1, 1, 1), (4, 3, 0), (0, 3, 2)])
def test_the_places_of_the_largest(rows, length, count, dtype):
    x = np.random.default_rng(0).integers(-4, 4, (rows, length)).astype(dtype)  # with many that are equal
    for special in (None, np.nan, np.inf):
        if special is not None:
            x[..., 2::5] = special
        for laid in (x, np.asfortranarray(x), x[:, ::-1]):
            places = [np.full((rows, count), -1) for _ in range(2)]
            cpu.numpy_kernel("reduce", "top_last")(places[:1], [laid], count=count)
            cpu.numba_kernel("reduce", "top_last")(places[1:], [laid], count=count)
            np.testing.assert_array_equal(*places)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize(
    "sizes", [(3, 31, 40, 97), (2, 64, 256, 33), (1, 5, 300, 7), (25, 10, 40, 40), (2, 13, 1, 48), (2, 9, 700, 50)]
)
def test_products_of_all_tile_sizes(sizes, ta, tb, dtype):
    tasks, n, k, o = sizes
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    a, shared = normal(tasks, *((k, n) if ta else (n, k))), normal(1, *((o, k) if tb else (k, o)))
    for b in (shared, np.repeat(shared, tasks, 0), np.broadcast_to(shared, (tasks, *shared.shape[1:]))):
        for c in ([], [normal(tasks, 1, o)], [normal(1, n, o)]):
            check(("linear", "linear"), [np.empty((tasks, n, o), dtype)], [a, b, *c], {"ta": ta, "tb": tb}, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4, 5), (0, 3)])
def test_adam(shape, dtype):
    rng = np.random.default_rng(0)
    x, g, m = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    v = np.abs(rng.standard_normal(shape)).astype(dtype)
    outs = [np.empty(shape, dtype) for _ in range(3)]
    settings = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    scales = np.array([0.01, 1.5])
    for layout in (np.asarray, np.asfortranarray):
        ins = [layout(y).reshape(shape) for y in (x, g, m, v)]
        check(("optim", "adam"), outs, [*ins, scales], settings, dtype)


@pytest.mark.parametrize("iteration", [0, 1, 5000, 10**6])
def test_what_depends_on_the_iteration(iteration):
    at = np.zeros(())
    after = np.zeros((), np.int64)
    check(("optim", "next_iteration"), [after, at], [np.array(iteration)], {}, np.float64)
    assert (after, at) == (iteration + 1, iteration)
    check(("optim", "bias_correction"), [np.zeros(2)], [at, np.array(0.01)], {"beta1": 0.9, "beta2": 0.999}, np.float64)


def test_numpy_is_used_when_asked(monkeypatch):
    monkeypatch.setenv("TINYMAML_NUMBA", "0")
    for cached in (cpu.find, cpu.numba_kernel, cpu.launch_builder, cpu.numba_is_used):
        cached.cache_clear()
    try:
        assert cpu.find("elementwise", "gate") is cpu.numpy_kernel("elementwise", "gate")
    finally:
        monkeypatch.undo()
        for cached in (cpu.find, cpu.numba_kernel, cpu.launch_builder, cpu.numba_is_used):
            cached.cache_clear()
    assert cpu.find("elementwise", "gate") is cpu.numba_kernel("elementwise", "gate")
    with pytest.raises(KeyError, match="no kernel 'nothing' in the family 'elementwise'"):
        cpu.find("elementwise", "nothing")
    assert tm.relu(tm.Tensor(1.0)).item() == 1
