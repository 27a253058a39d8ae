"""Arrays without values: nothing but this package can do anything with one, and only in the recording that made it."""

import array
import builtins
import copy
import hashlib
import io
import json
import math
import operator
import pickle  # noqa: TID251  # to see it refused
import struct
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.autodiff.tracing import RecordingError

NUMPY = [
    np.asarray, np.array, np.ascontiguousarray, np.asanyarray, np.asfortranarray, np.require, np.copy, np.from_dlpack,
    np.frombuffer, np.atleast_1d, np.ravel, np.squeeze, np.sum, np.mean, np.max, np.argmax, np.sort, np.unique,
    np.array_str, np.array_repr, np.array2string, np.ndim, np.shape, np.size, np.linalg.norm, np.linalg.det,
    np.exp, np.negative, np.add.reduce, np.isfinite, np.isnan, np.all, np.any, np.nonzero, np.float64, np.float32,
    np.bool_, np.int64, np.stack, np.concatenate, np.vstack, np.r_.__getitem__, np.c_.__getitem__, np.where, np.diff,
    np.cumsum, np.fft.fft, np.fromiter, np.lib.stride_tricks.as_strided, np.ndarray.view, np.ndarray.__array__,
    np.ma.masked_array, np.matrix, np.nditer, np.empty_like, np.broadcast_to, np.transpose, np.savetxt,
]  # fmt: skip

PYTHON = [
    float, int, complex, bool, bytes, list, tuple, set, iter, len, hash, reversed, sorted, builtins.sum, builtins.max,
    builtins.abs, round, memoryview, bytearray, enumerate, range, divmod, math.floor, math.sqrt, operator.index,
    operator.neg, copy.copy, copy.deepcopy, pickle.dumps, json.dumps, hashlib.sha256, io.BytesIO,
    array.array, math.fsum, struct.Struct("d").pack, "{:.3f}".format, "%f".__mod__,
]  # fmt: skip

OWN = {
    "item": lambda t: t.item(),
    "tolist": lambda t: t.tolist(),
    "tobytes": lambda t: t.tobytes(),
    "data": lambda t: t.data,
    "ctypes": lambda t: t.ctypes,
    "base": lambda t: t.base,
    "view": lambda t: t.view(),
    "T": lambda t: t.T,
    "ravel": lambda t: t.ravel(),
    "flat": lambda t: t.flat,
    "dot": lambda t: t.dot(t),
    "sum": lambda t: t.sum(),
    "real": lambda t: t.real,
    "astype": lambda t: t.astype(np.float32),
    "copy": lambda t: t.copy(),
    "reshape": lambda t: t.reshape(-1),
    "setattr": lambda t: setattr(t, "shape", (1,)),
    "interface": lambda t: t.__array_interface__,
    "struct": lambda t: t.__array_struct__,
    "dlpack": lambda t: t.__dlpack__(),
    "getitem": lambda t: t[0],
    "setitem": lambda t: operator.setitem(t, 0, 1),
    "delitem": lambda t: operator.delitem(t, 0),
    "contains": lambda t: 1 in t,
    "is one of": lambda t: t in [np.ones(3)],
    "key": lambda t: {t: 1},
    "equal": lambda t: t == t,
    "differs": lambda t: t != 0,
    "less": lambda t: t < 1,
    "add": lambda t: t + 1,
    "array +": lambda t: np.ones(3) + t,
    "number *": lambda t: 2 * t,
    "iadd": lambda t: operator.iadd(np.ones(3), t),
    "power": lambda t: t**2,
    "mod": lambda t: t % 2,
    "floor divide": lambda t: t // 2,
    "matmul": lambda t: t @ t,
    "array @": lambda t: np.ones(3) @ t,
    "not": lambda t: not t,
    "and": lambda t: t and 1,
    "fill": lambda t: np.ones(3).fill(t),
    "assign": lambda t: operator.setitem(np.ones(3), slice(None), t),
    "assign a list": lambda t: operator.setitem(np.ones((1, 3)), slice(None), [t]),
    "copyto": lambda t: np.copyto(np.ones(3), t),
    "out": lambda t: np.exp(np.ones(3), out=t),
    "a list": lambda t: np.array([t, t]),
    "objects": lambda t: np.array([t], dtype=object),
    "index": lambda t: np.ones(3)[t],
    "save": lambda t: np.save(io.BytesIO(), t),
    "savez": lambda t: np.savez(io.BytesIO(), t=t),
    "tofile": lambda t: t.tofile("/dev/null"),
    "pack": lambda t: struct.pack("3d", *t),
    "unpack": lambda t: [*t],
    "assert": lambda t: np.testing.assert_array_equal(t, t),
}
WAYS = {**{f.__name__ if hasattr(f, "__name__") else str(f): f for f in (*NUMPY, *PYTHON)}, **OWN}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_nothing_else_can_do_anything_with_it(way):
    def step(x):
        with pytest.raises(Exception) as caught:
            WAYS[way](x.data)
        raised.append(caught.value)
        return x

    raised: list[BaseException] = []
    tm.record(step, np.ones(3))
    assert raised and not isinstance(raised[0], SystemError)


def test_what_only_asks_how_it_lies_is_told():
    def step(x):
        t = tm.transpose(x)[::-1].data
        assert (t.shape, t.ndim, t.size, t.dtype, t.nbytes) == ((4, 3), 2, 12, np.float64, 96)
        assert repr(t) == "Traced((4, 3), dtype=float64)"
        assert t.strides == (-8, 32) and t.offset == 24 and not t.flags.c_contiguous
        return x

    tm.record(step, np.ones((3, 4)))


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 0), (1, 3), (4, 1, 2), (2, 3, 4)])
def test_views_lie_as_numpys(shape):
    looks = [lambda x: x, lambda x: x[None], lambda x: x.T, lambda x: x[..., ::-1], lambda x: x[::2].T, lambda x: x[1:]]

    def step(x):
        for look in looks:
            try:
                expected = look(example)
            except IndexError:
                continue
            actual = look(x).data
            assert actual.shape == expected.shape and actual.flags.c_contiguous == expected.flags.c_contiguous
            if expected.size:
                assert actual.strides == expected.strides
                assert actual.offset == expected.ctypes.data - example.ctypes.data
        return x

    example = np.ones(shape)
    tm.record(step, example)


# Only in the recording that made it.


def test_a_tensor_kept_from_one_recording_to_the_next():
    kept = []

    def loss(x):
        kept.append(tm.exp(x))
        return tm.sum(kept[0] * x)  # the memo of the first call

    tm.record(loss, np.ones(3))
    with pytest.raises(RecordingError, match="of one recording is used in another"):
        tm.record(loss, np.ones(3))
    with pytest.raises(RecordingError, match="of one recording is used in another"):
        tm.record(lambda x: tm.sum(kept[0][:2].T) * x, np.ones(3))


def test_a_tensor_kept_after_its_recording():
    kept = []
    tm.record(lambda x: kept.append(x * 2) or x, np.ones(3))
    for use in (
        lambda x: x + 1,
        lambda x: x[0],
        lambda x: x.reshape(3, 1),
        lambda x: tm.sum(x),
        lambda x: tm.grad(lambda y: tm.sum(y * y))(x),
        lambda x: tm.adapt(lambda p, b: tm.mse(p, b), x, x, 0.1, 1),
        lambda x: tm.optim.sgd(0.1).update(x, tm.optim.sgd(0.1).init(np.ones(3)), np.ones(3)),
        lambda x: x.numpy(),
        lambda x: x.item(),
        lambda x: tm.record(lambda y: y, x),
        lambda x: tm.record(lambda y: y, np.ones(3))(x.data),
    ):
        with pytest.raises(TypeError):
            use(kept[0])


def test_a_pool_of_threads_inside_a_step():
    def step(x, run):
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(run, [lambda: tm.sum(tm.exp(x)), lambda: tm.sum(x * x)]))

    with pytest.raises(RecordingError, match="where no step is recorded"):
        tm.record(lambda x: step(x, lambda part: part()), np.ones(3))
    # Who hands the recording on to the thread is understood.
    program = tm.record(lambda x: step(x, copy_context().run), np.ones(3))
    x = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(program(x), np.exp(x).sum() + (x * x).sum(), rtol=1e-12)
