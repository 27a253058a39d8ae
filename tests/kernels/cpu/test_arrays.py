"""Operands of launches that run later: what is a view of one moves with it, what only came from one does not."""

import numpy as np
import pytest

from tinymaml.kernels import cpu

if not cpu.numba_is_used():
    pytest.skip("launches are of compiled kernels: they need numba, of the extra `fast`", allow_module_level=True)

from tinymaml.kernels.cpu.compiled.arrays import Operand, plain, whole
from tinymaml.kernels.cpu.compiled.thread_pool import PackedLaunch


def test_views_of_an_operand_move_with_it():
    x = Operand.of(np.zeros((4, 3, 2)), 48)
    views = [x.reshape(-1), x.ravel(), x[:1], x[None], x.reshape(4, 6)[:, :3], x.T, whole(x), plain(x)]
    assert all(view.source is x.source for view in views)


def test_what_has_other_memory_does_not():
    x = Operand.of(np.zeros((4, 3, 2)), 48)
    others = [np.zeros_like(x), x + 1, x.copy(), x.T.reshape(-1)]
    assert all(other.source is None for other in others)


def test_a_copy_that_would_be_out_of_date_is_noted():
    x = Operand.of(np.zeros((4, 3, 2)).transpose(0, 2, 1), 48)
    assert not x.source.must_be_copied
    stand_in = whole(x)
    assert stand_in.flags.c_contiguous and stand_in.shape == x.shape and x.source.must_be_copied
    shared = Operand.of(np.broadcast_to(np.zeros((1, 3, 2)), (4, 3, 2)))
    assert plain(shared).shape == (1, 3, 2) and not shared.source.must_be_copied, "one entry for all needs no copy"


def test_a_packed_launch_says_which_addresses_move():
    a, b, out = (np.zeros(shape) for shape in ((4, 3, 5), (1, 5, 2), (4, 3, 2)))
    launch = cpu.launch_builder("linear", "linear")(
        [Operand.of(out, out.strides[0])], [Operand.of(a, a.strides[0]), Operand.of(b)], ta=False, tb=False
    )
    packed = PackedLaunch.of(launch)
    addresses = [int(packed.arguments[word]) for word in packed.pointers]
    moving = dict(zip(addresses, packed.strides, strict=True))
    assert moving[a.ctypes.data] == 120 and moving[b.ctypes.data] == 0 and moving[out.ctypes.data] == 48
    assert sum(stride != 0 for stride in packed.strides) == 2
