"""Kernels made for a program equal NumPy's, one by one and fused, to the bit wherever both round once."""

import ctypes
import gc
import os
import subprocess
import sys
import tempfile
import threading
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tests.conftest import ROOT
from tinymaml.kernels import cpu

if not cpu.numba_is_used():
    pytest.skip("compiled kernels need numba, of the extra `fast`, and TINYMAML_NUMBA not 0", allow_module_level=True)

from tinymaml.kernels.cpu.compiled import folders, fused, object_cache
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
    part = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(function.address)
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
        cpu.numpy_kernel("elementwise", name)([out], ins, **static)
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
    actual, wanted = one_step(name, ins, result), expected(name, ins, result)
    if name in (*ROUGH, "power"):
        np.testing.assert_allclose(actual, wanted, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    else:
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("exponent", [2, -1, 0.5, 3, -2.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_powers(exponent, dtype):
    x = np.abs(special(dtype)[0])
    actual, wanted = (
        one_step("power_of", [x], dtype, (("exponent", exponent),)),
        expected("power_of", [x], dtype, exponent=exponent),
    )
    np.testing.assert_allclose(actual, wanted, rtol=0 if exponent in (2, -1, 0.5) else 4 * np.finfo(dtype).eps)


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
        lengths = tuple([n if draw(st.booleans()) else 1 for n in shape])
        x = rng.normal(size=[2 * n for n in lengths]).astype(dtype)
        x = x[tuple([slice(None, None, 2) if draw(st.booleans()) else slice(n) for n in lengths])]
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


# What was compiled is in memory for as long as something uses it.


def program(columns=5, rows=4):
    x = np.ones((rows, columns))
    return tm.record(lambda x: tm.tanh(x) * x + tm.sum(x, axis=1, keepdims=True), x), x


def test_the_same_step_is_in_memory_once_and_goes_with_its_last_program():
    gc.collect()
    before = set(object_cache._codes)
    (one, x), (other, _) = program(), program()
    (new,) = set(object_cache._codes) - before
    code = weakref.ref(object_cache._codes[new])
    del one
    gc.collect()
    assert code() is not None and np.array_equal(other(x), np.tanh(x) * x + 5)
    del other
    gc.collect()
    assert code() is None


def test_many_recordings_leave_nothing_in_memory():
    gc.collect()
    before = set(object_cache._codes)
    programs = [program(columns)[0] for columns in (5, 6, 7)]
    assert len(set(object_cache._codes) - before) == 3
    for _ in range(10):
        program(8)
    programs.clear()
    gc.collect()
    assert set(object_cache._codes) <= before


def test_code_that_goes_while_another_thread_computes():
    """Addresses do not outlive their code: programs are made, called and dropped on three threads."""
    wrong = []

    def work(rows):
        for columns in range(1, 25):
            recorded, x = program(columns, rows)
            if not np.allclose(recorded(x), np.tanh(1) + columns):
                wrong.append((rows, columns))

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# What was compiled is kept on disk.


def text(number):
    return f"define i64 @number(i64 %a, i64 %b, i64 %c) {{\n  ret i64 {number}\n}}\n"


def results(number):
    """What a function that is to return a number returns."""
    code = object_cache.load(text(number), ["number"])
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(code.addresses["number"])(0, 0, 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch):
    """An entry for each module that is compiled."""
    compiled = []
    optimise = object_cache._optimise
    monkeypatch.setattr(object_cache, "_optimise", lambda *a: (compiled.append(1), optimise(*a)))
    return compiled


def test_the_next_process_compiles_nothing(folder, compiled):
    assert [results(3), results(3)] == [3, 3] and len(compiled) == 1
    (file,) = folder.iterdir()
    assert file.suffix == ".o" and folder.stat().st_mode & 0o77 == file.stat().st_mode & 0o77 == 0
    whole = file.read_bytes()
    for damaged in (b"", b"no object", whole[:-1], whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]):
        file.write_bytes(damaged)
        assert results(3) == 3
    assert len(compiled) == 5, "a damaged file is made anew"
    assert results(3) == 3 and len(compiled) == 5


def _another_owner(file, planted):
    if os.getuid():
        pytest.skip("only root can give a file away")
    os.chown(file, 12345, 12345)


def _linked(file, planted):
    file.unlink()
    file.symlink_to(planted)


def _a_pipe(file, planted):
    file.unlink()
    os.mkfifo(file)


FOREIGN = {
    "writable by all": lambda file, planted: file.chmod(0o602),
    "writable by its group": lambda file, planted: file.chmod(0o620),
    "of another user": _another_owner,
    "a link": _linked,
    "a pipe": _a_pipe,
}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners and modes")
@pytest.mark.parametrize("how", [None, *FOREIGN])
def test_a_file_that_somebody_else_may_have_written_is_not_executed(folder, compiled, how):
    assert results(3) == 3
    (file,) = folder.iterdir()
    assert results(4) == 4
    (planted,) = set(folder.iterdir()) - {file}
    file.write_bytes(planted.read_bytes())
    if how:
        FOREIGN[how](file, planted)
    compiled.clear()
    assert results(3) == (3 if how else 4)  # one's own file is taken for what it says it is
    assert len(compiled) == bool(how)
    if how:
        assert results(3) == 3 and len(compiled) == 1, "it was replaced"


def test_the_folder_holds_so_much_and_what_was_not_used_for_longest_goes(folder, compiled, monkeypatch):
    results(0)
    (first,) = folder.iterdir()
    size = first.stat().st_size
    monkeypatch.setattr(object_cache, "limit", lambda: 16 * size)
    monkeypatch.setattr(object_cache, "_unlisted", 0)
    (folder / "notes.o").write_bytes(b"x" * 99 * size)  # not ours: neither counted nor thrown away
    for number in range(1, 60):
        for file in folder.glob("*.o"):  # as if it had been long ago
            os.utime(file, (file.stat().st_mtime - 10,) * 2)
        results(number)
        results(0)
        assert len(list(folder.glob("*.o"))) <= 1 + 16 + 2  # the folder is looked at once in a while
    assert first.exists() and (folder / "notes.o").exists()
    compiled.clear()
    assert [results(number) for number in (0, 59, 58, 50)] == [0, 59, 58, 50] and not compiled
    assert results(1) == 1 and compiled


def test_processes_that_share_a_small_folder(folder):
    code = (
        "import sys; sys.path[:] = eval(sys.argv[1])\n"
        "from tests.kernels.cpu.test_fused import results, object_cache\n"
        "object_cache.limit = lambda: 20_000\n"
        "assert all(results(i % 40) == i % 40 for i in range(200))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, repr(["", *sys.path])], cwd=ROOT) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 30_000
    assert not [file for file in folder.iterdir() if file.suffix != ".o"]


def test_a_folder_of_size_0_is_not_used(folder, monkeypatch):
    monkeypatch.setenv("TINYMAML_CACHE_SIZE", "0")
    assert results(3) == 3
    assert not list(folder.iterdir())


@pytest.mark.parametrize("asked", ["-1", "1.5", "1 GB", "9" * 30])
def test_a_size_that_is_no_number(folder, monkeypatch, asked):
    monkeypatch.setenv("TINYMAML_CACHE_SIZE", asked)
    with pytest.raises(ValueError, match="TINYMAML_CACHE_SIZE must be a whole number of megabytes"):
        results(3)


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    assert results(3) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path / "file" / "cache"))
    assert results(3) == 3


def test_where_the_folder_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMAML_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folders.folder() == tmp_path / "xdg" / "tinymaml"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.folder() == tmp_path / ".cache" / "tinymaml"
    (tmp_path / ".cache" / "tinymaml").rmdir()
    (tmp_path / ".cache" / "tinymaml").write_text("in the way")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary = folders.folder()
    assert temporary.parent == tmp_path and temporary.stat().st_mode & 0o777 == 0o700
    temporary.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    temporary.symlink_to(tmp_path / "elsewhere")
    assert folders.folder() is None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert folders.folder() is None
