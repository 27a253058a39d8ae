"""A tensor among other people's functions: NumPy's, Python's conversions, pickling.

A tensor with history never becomes an array or a number on its way through one of them: its derivative would be lost
without a word. It is refused, and the error names what to use instead. Constants convert freely.
"""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.operators import OPERATORS

# The ufuncs that stand for operators, which NumPy calls when an array is on their left.
_OPERATORS_OF = {
    getattr(np, name): name
    for name in (
        "add", "subtract", "multiply", "divide", "power", "matmul",
        "greater", "greater_equal", "less", "less_equal", "equal", "not_equal",
    )
}  # fmt: skip
_QUERIES = (np.shape, np.ndim, np.size)  # they ask the tensor, and not for its numbers
# tinymaml's name for what has another in NumPy.
_OURS = {"absolute": "abs", "amax": "max", "dot": "matmul", "hstack": "concatenate"}
_WAYS_OUT = ".numpy() and .item() give its value without history"


def lost(way: str, name: str = "") -> str:
    """The error for a tensor with history when `way` would lose it. `name` is that of NumPy's function, if it is one:
    where tinymaml has it too, the error says so."""
    ours = _OURS.get(name, name)
    use = f"tinymaml.{ours}" if ours in OPERATORS else "tinymaml's functions"
    return f"{way} would lose the derivative of a tensor that depends on a variable: use {use}; {_WAYS_OUT}"


def _values(given: Any, way: str, name: str) -> Any:
    """The arguments of a function with their constant tensors as arrays; raises TypeError for others."""

    def one(x: Any) -> Any:
        if not isinstance(x, Interop):
            return x
        x._value(way, name)
        return np.asarray(x)

    return tree.map(one, given)


def not_none(sign: str, other: Any) -> Any:
    """What a tensor is compared with. Raises TypeError for None, with which `is` is meant."""
    if other is None:
        raise TypeError(f"{sign} compares a tensor's numbers, so not with None: write `is None` or `is not None`")
    return other


def _array_ufunc(tensor: Any, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """`array * tensor` is the ufunc multiply: it asks the tensor. Other ufuncs take the values of constants."""
    if method == "__call__" and not options and ufunc in _OPERATORS_OF:
        return OPERATORS[_OPERATORS_OF[ufunc]](*inputs)
    name = getattr(ufunc, "__name__", str(ufunc))
    if "out" in options:
        way = f"writing the result of numpy.{name} into an array"
    else:
        way = f"numpy.{name}" + (f".{method}" if method != "__call__" else "")
    values, options = _values((inputs, options), way, name if method == "__call__" else "")
    return getattr(ufunc, method)(*values, **options)


class _OnTheType:
    """NumPy looks for `__array_ufunc__` on the type, and finds the function. CuPy and others look on the tensor, where
    None means that `array * tensor` is for the tensor to answer."""

    def __get__(self, tensor: Any, kind: Any) -> Any:
        return _array_ufunc if tensor is None else None


class Interop:
    """What a tensor answers those who know nothing of it."""

    __slots__ = ()

    data: Any

    @property
    def has_history(self) -> bool:
        """Whether it is a variable or depends on one."""
        raise NotImplementedError

    def numpy(self) -> Any:
        """The value."""
        raise NotImplementedError

    def _value(self, way: str, name: str = "") -> Any:
        """The value of a constant. Raises TypeError if there is history, which `way` would lose; see `lost`."""
        if self.has_history:
            raise TypeError(lost(way, name))
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if hasattr(self._value("making a NumPy array"), "__cuda_array_interface__"):
            raise TypeError("the tensor is on a GPU, from where nothing is copied unasked: use .numpy()")
        return np.array(self.numpy(), dtype=dtype) if copy else np.asarray(self.numpy(), dtype=dtype)

    __array_ufunc__ = _OnTheType()

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """NumPy's functions take the values of constants."""
        if function in _QUERIES:
            return function.__wrapped__(*args, **options)
        values, options = _values((args, options), f"{function.__module__}.{function.__name__}", function.__name__)
        return function(*values, **options)

    def __float__(self) -> float:
        return float(self._value("float()"))

    def __int__(self) -> int:
        return int(self._value("int()"))

    def __complex__(self) -> complex:
        return complex(self._value("complex()"))

    def __index__(self) -> int:
        return operator.index(self._value("taking an integer"))

    def __bool__(self) -> bool:
        return bool(self._value("bool()"))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a tensor is not pickled, as its history means nothing elsewhere: pickle .numpy(), its value")

    def __mod__(self, other: Any) -> NoReturn:
        raise TypeError(f"a tensor has no %, // and divmod(), which jump: {_WAYS_OUT}")

    __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = __mod__
