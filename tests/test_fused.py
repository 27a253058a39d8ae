"""Kernels made for a program equal NumPy's, one by one and fused, to the bit wherever both round once."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinymaml.kernels import cpu

if not cpu.numba_is_used():
    pytest.skip("compiled kernels need numba, of the extra `fast`, and TINYMAML_NUMBA not 0", allow_module_level=True)

from tinymaml.kernels.cpu.compiled import fused, object_cache
from tinymaml.kernels.formulas import Group, Operand, Step, supported

DRAWN = settings(
    max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 1e-40, 700.0, -700.0, 1e30]
ONE = ["negative", "abs", "sqrt", "sign", "relu"]
ROUGH = ["exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "softplus"]
TWO = ["add", "subtract", "multiply", "divide", "gate"]
COMPARED = [
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "first_is_larger", "first_is_smaller",
]  # fmt: skip


def run(group, ins, first=0, last=None):
    """The results of a group on arrays of its shape."""
    (function,) = fused.compile([group])
    dtypes = [operand.dtype for operand in group.operands] + [step.dtype for step in group.steps]
    outs = [np.full(group.shape, 7).astype(dtypes[value]) for value in group.results]
    words = np.array([x.__array_interface__["data"][0] for x in (*ins, *outs)], np.int64)
    part = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(function)
    assert part(words.ctypes.data, first, group.shape[0] if last is None else last) == 0
    return outs


def one_step(name, ins, dtype, static=()):
    shape = np.broadcast_shapes(*[x.shape for x in ins])
    spread = [np.broadcast_to(x, shape) for x in ins]
    operands = tuple([Operand(x.dtype, x.strides) for x in spread])
    step = Step(name, tuple(range(len(ins))), np.dtype(dtype), static)
    return run(Group(shape, operands, (step,), (len(ins),)), ins)[0]


def expected(name, ins, dtype, **static):
    out = np.empty(np.broadcast_shapes(*[x.shape for x in ins]), dtype)
    with np.errstate(all="ignore"):
        cpu.numpy_kernel(f"elementwise.{name}")([out], ins, **static)
    return out


def special(dtype):
    """All pairs of special values, [n, n] each."""
    values = np.array(SPECIAL).astype(dtype)
    return [np.ascontiguousarray(x) for x in np.meshgrid(values, values, indexing="ij")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*ONE, *ROUGH, *TWO, *COMPARED, "power", "where", "descend", "copy"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_every_formula(name, dtype):
    x, y = special(dtype)
    ins = [x] if name in (*ONE, *ROUGH, "copy") else [x, y]
    if name == "where":
        ins = [x > y, x, y]
    if name == "descend":
        ins = [x, np.array(0.3, dtype), y]
    result = np.bool_ if name in COMPARED else dtype
    assert supported(name, [a.dtype for a in ins])
    found, wanted = one_step(name, ins, result), expected(name, ins, result)
    if name in (*ROUGH, "power"):
        np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    else:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("exponent", [2, -1, 0.5, 3, -2.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_powers(exponent, dtype):
    x = np.abs(special(dtype)[0])
    found, wanted = (
        one_step("power_of", [x], dtype, (("exponent", exponent),)),
        expected("power_of", [x], dtype, exponent=exponent),
    )
    np.testing.assert_allclose(found, wanted, rtol=0 if exponent in (2, -1, 0.5) else 4 * np.finfo(dtype).eps)


def test_casts_and_copies_of_other_kinds():
    x = np.array([1.5, 1e300, np.nan, -0.1])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(one_step("astype", [x], np.float32, (("dtype", np.float32),)), x.astype("f4"))
    single = x[:1].astype(np.float32)
    np.testing.assert_array_equal(one_step("astype", [single], np.float64, (("dtype", np.float64),)), x[:1])
    for dtype in (np.int64, np.int32, np.int8, np.uint8, np.bool_):
        ints = np.array([[1, 0, 3], [0, 5, 1]]).astype(dtype)
        np.testing.assert_array_equal(one_step("copy", [ints.T], dtype), ints.T)
    np.testing.assert_array_equal(one_step("where", [np.array([2, 0]), x[:2], x[:2] + 1], x.dtype), [1.5, 1e300])


def test_what_is_not_supported():
    f4, f8, i8 = (np.dtype(name) for name in ("f4", "f8", "i8"))
    assert not supported("add", [i8, i8])
    assert not supported("add", [f4, f8])
    assert not supported("nothing", [f4])
    assert not supported("exp", [np.dtype("f2")])


@pytest.mark.parametrize("shape", [(1,), (5,), (0,), (3, 0), (0, 4), (2, 3), (4, 1, 7), (2, 3, 4, 5)])
def test_shapes(shape):
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(one_step("add", [x, x], x.dtype), x + x)


def test_a_range_leaves_the_rest_alone():
    x = np.arange(12.0).reshape(4, 3)
    group = Group((4, 3), (Operand(x.dtype, x.strides),), (Step("negative", (0,), x.dtype),), (1,))
    (out,) = run(group, [x], 1, 3)
    assert out.tolist() == [[7] * 3, [-3, -4, -5], [-6, -7, -8], [7] * 3]


@st.composite
def groups(draw):
    """A group of several steps, its operands, and what NumPy makes of it step by step."""
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8"])))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    ins = []
    for _ in range(draw(st.integers(1, 4))):
        own = tuple([n if draw(st.booleans()) else 1 for n in shape])
        x = rng.normal(size=[2 * n for n in own]).astype(dtype)
        x = x[tuple([slice(None, None, 2) if draw(st.booleans()) else slice(n) for n in own])]
        x = x[..., ::-1] if draw(st.booleans()) else x
        ins.append(np.broadcast_to(x, shape))
    values, steps = list(ins), []
    for _ in range(draw(st.integers(1, 8))):
        name = draw(st.sampled_from(["add", "subtract", "multiply", "negative", "relu", "gate", "descend", "abs"]))
        count = {"negative": 1, "relu": 1, "abs": 1, "descend": 3}.get(name, 2)
        chosen = tuple([draw(st.integers(0, len(values) - 1)) for _ in range(count)])
        steps.append(Step(name, chosen, dtype))
        values.append(expected(name, [values[i] for i in chosen], dtype))
    results = tuple(sorted({len(values) - 1, draw(st.integers(len(ins), len(values) - 1))}))
    operands = tuple([Operand(dtype, x.strides) for x in ins])
    return Group(shape, operands, tuple(steps), results), ins, [values[i] for i in results]


@DRAWN
@given(drawn=groups())
def test_fused_is_one_by_one(drawn):
    group, ins, wanted = drawn
    for one, other in zip(run(group, ins), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


# What was compiled is kept on disk.

TEXT = """
define i64 @three(i64 %a, i64 %b, i64 %c) {
  ret i64 3
}
"""


def three():
    address = object_cache.load(TEXT, ["three"])["three"]
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(address)(0, 0, 0)


def test_the_next_process_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path / "cache"))
    compiled = []
    optimise = object_cache._optimise
    monkeypatch.setattr(object_cache, "_optimise", lambda *a: (compiled.append(1), optimise(*a)))
    assert [three(), three()] == [3, 3] and len(compiled) == 1
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".o" and (tmp_path / "cache").stat().st_mode & 0o77 == 0
    whole = file.read_bytes()
    for damaged in (b"", b"no object", whole[:-1], whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]):
        file.write_bytes(damaged)
        assert three() == 3
    assert len(compiled) == 5, "a damaged file is made anew"
    assert three() == 3 and len(compiled) == 5


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    assert three() == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path / "file" / "cache"))
    assert three() == 3


def test_the_folder_follows_the_usual_settings(tmp_path):
    code = "from tinymaml.kernels.cpu.compiled import object_cache; print(object_cache._folder())"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(tmp_path / "tinymaml")
