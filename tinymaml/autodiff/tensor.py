"""The recorded graph: applying a primitive to a `Tensor` records a `Node`.

A node holds the primitive, its inputs, its static settings and its output arrays; a tensor is a pair (node, index of
the output). Edges point from results to what they were made of and nowhere back, so that there are no reference
cycles: a graph is freed the moment its last result is dropped.

Every node has two numbers that the sweeps go by. Its `serial` says when it was made; inputs are always older than
outputs, so sorting by it sorts the graph. Its `root` is the serial of the oldest variable that it depends on
(`CONSTANT` when it depends on none); a node that depends on no variable keeps no inputs, so plain arithmetic on
constants grows no graph. A third, its `order`, is for pictures alone: which order of derivative the sweep made it for.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tinymaml.autodiff.interop import Interop, not_none
from tinymaml.autodiff.operators import OPERATORS as OPERATORS
from tinymaml.autodiff.operators import public_name
from tinymaml.autodiff.tracing import Traced

if TYPE_CHECKING:
    from tinymaml.autodiff.primitive import Primitive

Array = np.ndarray[Any, np.dtype[Any]]

CONSTANT = 1 << 62
# The order of derivative that the sweep under way in this thread makes; 0 outside of one.
SWEEP: ContextVar[int] = ContextVar("sweep", default=0)
_sweep = SWEEP.get
_new = object.__new__
_serials = itertools.count()
now: Callable[[], int] = _serials.__next__


class Node:
    """One applied primitive, or a leaf of the graph (then `primitive` is None)."""

    __slots__ = ("inputs", "order", "outputs", "primitive", "root", "serial", "static")

    def __init__(
        self,
        primitive: Primitive | None,
        inputs: tuple[Tensor, ...],
        static: dict[str, Any],
        outputs: tuple[Array, ...],
        root: int | None = None,
    ) -> None:
        self.serial = now()
        self.primitive = primitive
        self.inputs = inputs
        self.static = static
        self.outputs = outputs
        self.root = self.serial if root is None else root
        self.order = _sweep()


class Tensor(Interop):
    """An array whose history is recorded. `Tensor(array)` is a new variable: a leaf one may differentiate by.

    Tensors are never changed in place. Arithmetic, comparisons, indexing and the methods below follow NumPy, except
    that dtypes are never mixed: numbers and lists of them take the tensor's dtype, arrays must have it already (see
    `astype`).

    A tensor with history, one that is a variable or depends on one, never becomes an array or a Python number on its
    way through another library's function: its derivative would be lost without a word. NumPy's functions, float(t),
    copies and the like raise TypeError; `.numpy()` and `.item()` are the ways out. Constants convert freely.

    Args:
        value: anything `numpy.asarray` takes, of dtype float32 or float64. The array is not copied: leave it alone
        afterwards.

    Raises:
        TypeError: the value is not of a floating dtype, or it is a masked array or a matrix.
    """

    __slots__ = ("__weakref__", "data", "index", "node")
    node: Node
    index: int
    data: Array  # the value itself, not a copy: to be read, not written

    def __init__(self, value: Any) -> None:
        array = as_array(value)
        if array.dtype.kind not in "fiubc":
            kind = type(value).__name__
            raise TypeError(f"a variable must be an array or a number of float32 or float64, got a {kind}")
        if array.dtype not in FLOATS:
            raise TypeError(
                f"a variable must be float32 or float64, got {array.dtype}: derivatives are not defined for it; "
                "write 3.0 instead of 3, or cast with .astype(numpy.float64)"
            )
        self.node = Node(None, (), {}, (array,))
        self.index = 0
        self.data = array

    @staticmethod
    def of(node: Node, index: int = 0) -> Tensor:
        """The tensor for one output of a node."""
        tensor = _new(Tensor)
        tensor.node = node
        tensor.index = index
        tensor.data = node.outputs[index]
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def T(self) -> Tensor:
        return OPERATORS["transpose"](self)

    @property
    def has_history(self) -> bool:
        return self.node.root != CONSTANT

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        if isinstance(self.data, Traced):
            return f"Tensor({self.shape}, dtype={self.dtype}, recorded)"
        kind = "constant" if self.node.root == CONSTANT else "variable" if self.node.primitive is None else ""
        name = kind or self.node.primitive.name  # type: ignore[union-attr]  # a leaf has a kind
        return f"Tensor({np.array2string(host(self.data), prefix='Tensor(')}, dtype={self.dtype}, {name})"

    def numpy(self) -> Array:
        """The value as a read-only view, or a copy of what is on a GPU; the history is left behind."""
        if isinstance(self.data, Traced):
            return self.data.item()  # which raises
        view = host(self.data).view()
        view.flags.writeable = False
        return view

    def item(self) -> float | int | bool:
        """The value of a tensor with one element as a Python number; the history is left behind."""
        return self.data.item()

    def __copy__(self) -> Tensor:
        return constant(self._value("copy()"))

    def __deepcopy__(self, memo: Any) -> Tensor:
        return constant(self._value("deepcopy()").copy())

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise TypeError("tensors are never changed in place; use where(), scatter_add() or concatenate() for a new one")

    def __add__(self, other: Any) -> Tensor:
        return OPERATORS["add"](self, other)

    def __radd__(self, other: Any) -> Tensor:
        return OPERATORS["add"](other, self)

    def __sub__(self, other: Any) -> Tensor:
        return OPERATORS["subtract"](self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return OPERATORS["subtract"](other, self)

    def __mul__(self, other: Any) -> Tensor:
        return OPERATORS["multiply"](self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return OPERATORS["multiply"](other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return OPERATORS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return OPERATORS["divide"](other, self)

    def __pow__(self, other: Any) -> Tensor:
        return OPERATORS["power"](self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return OPERATORS["power"](other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return OPERATORS["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return OPERATORS["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return OPERATORS["negative"](self)

    def __abs__(self) -> Tensor:
        return OPERATORS["abs"](self)

    def __gt__(self, other: Any) -> Tensor:
        return OPERATORS["greater"](self, other)

    def __ge__(self, other: Any) -> Tensor:
        return OPERATORS["greater_equal"](self, other)

    def __lt__(self, other: Any) -> Tensor:
        return OPERATORS["less"](self, other)

    def __le__(self, other: Any) -> Tensor:
        return OPERATORS["less_equal"](self, other)

    # Elementwise, as NumPy's; but with None what is meant is never an array of False.
    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return OPERATORS["equal"](self, not_none("==", other))

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return OPERATORS["not_equal"](self, not_none("!=", other))

    __hash__ = None  # type: ignore[assignment]  # == is elementwise

    def __getitem__(self, index: Any) -> Tensor:
        return OPERATORS["getitem"](self, index)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPERATORS["sum"](self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPERATORS["mean"](self, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPERATORS["max"](self, axis, keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        return OPERATORS["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return OPERATORS["transpose"](self, axes[0] if len(axes) == 1 else axes or None)

    def astype(self, dtype: Any) -> Tensor:
        return OPERATORS["astype"](self, dtype)


FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
NUMBERS = (float, int)  # what has no shape or dtype to check


def is_array(value: Any) -> bool:
    """Whether a value is an array of some device (NumPy's or CuPy's) and can be used as it is."""
    return isinstance(value, np.ndarray | Traced) or hasattr(value, "__cuda_array_interface__")


_PLAIN = (np.ndarray, Traced, np.memmap)


def adopt(array: Any) -> Array:
    """The array itself; one on a GPU that is not CuPy's as CuPy's, on the same memory.

    Raises TypeError for a masked array, a matrix and other kinds of NumPy array with rules of their own, which would be
    lost here.
    """
    if type(array) in _PLAIN:
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("a masked array's mask would be lost: give .filled(value) of it, or choose with where()")
    if isinstance(array, np.ndarray):
        name = f"{type(array).__module__}.{type(array).__name__}"
        raise TypeError(f"a {name} has rules of its own, which would be lost: give numpy.array(x), a plain array")
    cupy = importlib.import_module("cupy")
    return array if isinstance(array, cupy.ndarray) else cupy.asarray(array)


def host(array: Any) -> Array:
    """The array itself, or a copy of one on a GPU."""
    return array if isinstance(array, np.ndarray) else array.get()


def known(tensor: Tensor) -> Array | Tensor:
    """The value of a tensor without its history; while a step is recorded, when there is none, as a constant."""
    return constant(tensor.data) if isinstance(tensor.data, Traced) else tensor.data


def as_array(value: Any, dtype: Any = None) -> Array:
    """An array as it is (`adopt`); anything else that `numpy.asarray` takes as an array of the dtype."""
    if dtype is None and is_array(value):
        return adopt(value)
    check_kinds(value)
    return np.asarray(value, dtype)


def check_kinds(value: Any) -> None:
    """Raise TypeError for arrays in a list or tuple that NumPy would take without their own rules; see `adopt`."""
    if isinstance(value, list | tuple | np.ndarray):
        for part in elements(value):
            if isinstance(part, np.ndarray):
                adopt(part)


def elements(value: Any) -> Iterator[Any]:
    """What a list or tuple, nested or not, consists of; all else is itself one element."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from elements(part)
    else:
        yield value


def constant(value: Any, dtype: Any = None) -> Tensor:
    """A tensor that no derivative is taken by: data, a label, a Python number of the given dtype."""
    array = np.asarray(value, dtype) if type(value) in NUMBERS else as_array(value, dtype)
    return Tensor.of(Node(None, (), {}, (array,), CONSTANT))


def floating_in(value: Any) -> Any:
    """The dtype of the first floating tensor in a list or tuple, nested or not; None if there is none."""
    return next((x.dtype for x in elements(value) if isinstance(x, Tensor) and x.dtype in FLOATS), None)


def joined(value: Any) -> Any:
    """A list or tuple, nested or not, with floating tensors in it as one tensor, by `stack`, so that derivatives pass.
    Anything else as it is."""
    is_joined = isinstance(value, list | tuple) and floating_in(value) is not None
    return OPERATORS["stack"](value) if is_joined else value


def as_tensor(x: Any) -> Tensor:
    """x itself if it is a tensor; a list with tensors in it stacked, with their derivatives; else a constant. Raises
    TypeError for what is not numbers."""
    if isinstance(x, Tensor) or isinstance(x := joined(x), Tensor):
        return x
    tensor = constant(x)
    if tensor.dtype.kind not in "fiub":
        name = public_name("as_tensor")
        raise TypeError(f"{name}: expected a tensor, an array or a number, got {type(x).__name__}")
    return tensor
