"""Elementwise kernels in CUDA C++, written from the formulas that the CPU's are written from.

One by one they take lengths and strides at run time; `fused_launches` makes kernels of groups of them, with shapes and
strides as constants. Nothing is contracted to fused multiply-adds, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tinymaml.kernels import formulas
from tinymaml.kernels.formulas import FORMULAS, Group, Operand, Step
from tinymaml.kernels.gpu.launch import OPTIONS, REAL, Plan, Unit, blocks

Arrays = Sequence[Any]

_OPTIONS = (*OPTIONS, "--fmad=false")
_BLOCK, _EACH = 256, 4  # threads, and numbers that a thread computes
_AXES = 5  # that a kernel with lengths at run time takes
_TYPES: dict[Any, str] = {
    **REAL,
    np.dtype(np.bool_): "bool",
    **{np.dtype(f"i{size}"): name for size, name in ((1, "signed char"), (2, "short"), (4, "int"), (8, "long long"))},
    **{
        np.dtype(f"u{size}"): f"unsigned {name}"
        for size, name in ((1, "char"), (2, "short"), (4, "int"), (8, "long long"))
    },
}


class _Value(NamedTuple):
    text: str
    dtype: Any


class _Writer:
    """Writes formulas as statements, a variable each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _new(self, dtype: Any, text: str) -> _Value:
        value = _Value(f"v{len(self.lines)}", dtype)
        self.lines.append(f"const {_TYPES[dtype]} {value.text} = {text};")
        return value

    def number(self, value: float, like: _Value) -> _Value:
        return _Value(f"({_TYPES[like.dtype]}){float(value)!r}", like.dtype)

    def arithmetic(self, sign: str, x: _Value, y: _Value) -> _Value:
        return self._new(x.dtype, f"{x.text} {sign} {y.text}")

    def negative(self, x: _Value) -> _Value:
        return self._new(x.dtype, f"-{x.text}")

    def compare(self, sign: str, x: _Value, y: _Value, otherwise: bool = False) -> _Value:
        opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}[sign]
        text = f"!({x.text} {opposite} {y.text})" if otherwise else f"{x.text} {sign} {y.text}"
        return self._new(np.dtype(np.bool_), text)

    def select(self, condition: _Value, x: _Value, y: _Value) -> _Value:
        return self._new(x.dtype, f"{condition.text} ? {x.text} : {y.text}")

    def truth(self, x: _Value) -> _Value:
        return self._new(np.dtype(np.bool_), f"{x.text} != 0")

    def call(self, name: str, *xs: _Value) -> _Value:
        return self._new(xs[0].dtype, f"{name}({', '.join(x.text for x in xs)})")

    def cast(self, x: _Value, dtype: Any) -> _Value:
        return self._new(dtype, f"({_TYPES[dtype]}){x.text}")


# One by one: lengths and strides, in numbers, come as arguments; the outermost of `_AXES` axes first.


def _single(name: str, entry: str, dtypes: Sequence[Any], static: dict[str, Any]) -> str:
    """The source of a kernel with lengths and strides at run time."""
    step = Step(name, tuple(range(len(dtypes))), np.dtype(np.void), tuple(static.items()))
    group = Group((), tuple([Operand(dtype, ()) for dtype in dtypes]), (step,), ())
    writer = _Writer()
    (result,) = formulas.write(writer, group, [_Value(f"x{k}", dtype) for k, dtype in enumerate(dtypes)])[len(dtypes) :]
    strides = [f"int s{k}_{axis}" for k in range(len(dtypes)) for axis in range(_AXES)]
    parameters = [
        "int count",
        *[f"int n{axis}" for axis in range(1, _AXES)],
        *strides,
        *[f"const {_TYPES[dtype]}* a{k}" for k, dtype in enumerate(dtypes)],
        f"{_TYPES[result.dtype]}* y",
    ]
    places = [f"long long p{k} = 0;" for k in range(len(dtypes))]
    for axis in range(_AXES - 1, -1, -1):
        at = "rest" if axis == 0 else f"rest % n{axis}"
        places += [f"p{k} += (long long)s{k}_{axis} * ({at});" for k in range(len(dtypes))]
        if axis:
            places.append(f"rest /= n{axis};")
    loads = [f"const {_TYPES[dtype]} x{k} = a{k}[p{k}];" for k, dtype in enumerate(dtypes)]
    body = [*places, *loads, *writer.lines, f"y[i] = {result.text};"]
    text = _counted("blockIdx.x", "count", ["int rest = i;", *body])
    return f"\n__global__ void __launch_bounds__({_BLOCK}) {entry}({', '.join(parameters)}) {{{text}\n}}\n"


def _counted(block: str, count: Any, body: Sequence[str]) -> str:
    """Threads compute `_EACH` numbers i each, neighbouring threads neighbouring ones."""
    inner = "\n            ".join(body)
    return f"""
        #pragma unroll
        for (int k = 0; k < {_EACH}; k++) {{
            const int i = ({block} * {_EACH} + k) * {_BLOCK} + threadIdx.x;
            if (i >= {count}) return;
            {inner}
        }}"""


# The instances, by the name of the CUDA function: the kernel, its operands' dtypes, and its settings.

_Entry = tuple[str, tuple[Any, ...], dict[str, Any]]
_WORDS = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_COMPARED = (
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "first_is_larger", "first_is_smaller",
)  # fmt: skip
_TWO = ("add", "subtract", "multiply", "divide", "power", "gate", *_COMPARED)
_POWERS = {2: "square", -1: "reciprocal", 0.5: "root"}
_OTHERS = ("where", "copy", "astype", "power_of")


def _name(kernel: str, *dtypes: Any) -> str:
    return "_".join([kernel, *[dtype.name for dtype in dtypes]])


@cache
def _entries(group: str) -> dict[str, _Entry]:
    if group == "words":
        whole = np.dtype(np.int64)
        compared: dict[str, _Entry] = {_name(kernel, whole): (kernel, (whole, whole), {}) for kernel in _COMPARED}
        return {**{_name("copy", word): ("copy", (word,), {}) for word in _WORDS.values()}, **compared}
    (real,) = [dtype for dtype, name in REAL.items() if name == group]
    (other,) = [dtype for dtype in REAL if dtype != real]
    entries: dict[str, _Entry] = {}
    for kernel in FORMULAS:
        if kernel not in _OTHERS:
            entries[_name(kernel, real)] = kernel, (real,) * (3 if kernel == "descend" else 1 + (kernel in _TWO)), {}
    for exponent, kernel in _POWERS.items():
        entries[_name(kernel, real)] = "power_of", (real,), {"exponent": exponent}
    for condition in formulas.KINDS[len(formulas.FLOATS) :]:
        entries[_name("where", condition, real)] = "where", (condition, real, real), {}
    entries[_name("astype", real)] = "astype", (other,), {"dtype": real}
    return entries


INSTANCES = {group: tuple(_entries(group)) for group in (*REAL.values(), "words")}


@cache
def unit(group: str) -> Unit:
    """The kernels of a group, all in one source."""
    texts = [_single(kernel, entry, dtypes, static) for entry, (kernel, dtypes, static) in _entries(group).items()]
    return Unit("".join(texts), INSTANCES[group], _OPTIONS)


def _launch(plan: Plan, group: str, entry: str, y: Any, ins: Arrays) -> None:
    """y in C order, the operands broadcast to it."""
    axes = formulas.collapsed(y.shape, [formulas.broadcast_strides(x, y.shape) for x in ins])
    if len(axes) > _AXES:
        raise ValueError(
            f"an array of shape {y.shape} is laid out in more than {_AXES} steps: make it contiguous first"
        )
    axes = [(1, [0] * len(ins))] * (_AXES - len(axes)) + axes
    lengths = [length for length, _ in axes[1:]]
    strides = [steps[k] // x.itemsize for k, x in enumerate(ins) for _, steps in axes]
    plan.launch_of(unit(group), entry, (blocks(y.size, _BLOCK * _EACH),), _BLOCK, y.size, *lengths, *strides, *ins, y)


def _one_by_one(kernel: str) -> Callable[..., None]:
    def run(plan: Plan, outs: Arrays, ins: Arrays) -> None:
        """See the formula of this name."""
        group = REAL.get(ins[-1].dtype, "words")
        entry = _name(kernel, *([ins[0].dtype] if kernel == "where" else []), ins[-1].dtype)
        if entry not in _entries(group):
            raise TypeError(f"{kernel}: no kernel for {', '.join(str(x.dtype) for x in ins)} on a GPU")
        _launch(plan, group, entry, outs[0], ins)

    return run


add = _one_by_one("add")
subtract = _one_by_one("subtract")
multiply = _one_by_one("multiply")
divide = _one_by_one("divide")
negative = _one_by_one("negative")
power = _one_by_one("power")
exp = _one_by_one("exp")
expm1 = _one_by_one("expm1")
log = _one_by_one("log")
log1p = _one_by_one("log1p")
sqrt = _one_by_one("sqrt")
sin = _one_by_one("sin")
cos = _one_by_one("cos")
tanh = _one_by_one("tanh")
abs = _one_by_one("abs")  # noqa: A001
sign = _one_by_one("sign")
greater = _one_by_one("greater")
greater_equal = _one_by_one("greater_equal")
less = _one_by_one("less")
less_equal = _one_by_one("less_equal")
equal = _one_by_one("equal")
not_equal = _one_by_one("not_equal")
first_is_larger = _one_by_one("first_is_larger")
first_is_smaller = _one_by_one("first_is_smaller")
descend = _one_by_one("descend")
sigmoid = _one_by_one("sigmoid")
softplus = _one_by_one("softplus")
relu = _one_by_one("relu")
gate = _one_by_one("gate")
where = _one_by_one("where")


def power_of(plan: Plan, outs: Arrays, ins: Arrays, exponent: float) -> None:
    """x to a constant power; the usual ones without a logarithm."""
    (x,) = ins
    kernel = _POWERS.get(exponent)
    if kernel is None:
        _launch(plan, REAL[x.dtype], _name("power", x.dtype), outs[0], [x, plan.upload(np.asarray(exponent, x.dtype))])
    else:
        _launch(plan, REAL[x.dtype], _name(kernel, x.dtype), outs[0], ins)


def astype(plan: Plan, outs: Arrays, ins: Arrays, dtype: Any) -> None:
    """The same numbers in another floating dtype."""
    if outs[0].dtype == ins[0].dtype:
        copy(plan, outs, ins)
    else:
        _launch(plan, REAL[outs[0].dtype], _name("astype", outs[0].dtype), outs[0], ins)


def copy(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The same numbers, in order."""
    _launch(plan, "words", _name("copy", _WORDS[ins[0].itemsize]), outs[0], ins)


# Groups.

Fused = Callable[[Plan, Arrays, Arrays], None]


def fused_launches(bundles: Sequence[Sequence[Group]]) -> list[Fused]:
    """For each bundle of groups what appends its launch to a plan: `launch(plan, outs, ins)`, with the operands of all
    its groups one after the other. All are compiled at once; the groups of a bundle must not depend on each other.
    """
    keys = [tuple(bundle) for bundle in bundles]
    names = {key: f"bundle{i}" for i, key in enumerate(dict.fromkeys(keys))}
    whole = Unit("".join(_fused(key, name) for key, name in names.items()), tuple(names.values()), _OPTIONS)

    def launch(bundle: tuple[Group, ...]) -> Fused:
        grid = (sum(map(_blocks, bundle)),)
        return lambda plan, outs, ins: plan.launch_of(whole, names[bundle], grid, _BLOCK, *ins, *outs)

    return [launch(key) for key in keys]


def _blocks(group: Group) -> int:
    return blocks(prod(group.shape), _BLOCK * _EACH)


def _fused(bundle: Sequence[Group], entry: str) -> str:
    """The source of a bundle's kernel: its first blocks compute the first group, and so on."""
    ins = [
        f"const {_TYPES[x.dtype]}* __restrict__ a{g}_{k}"
        for g, part in enumerate(bundle)
        for k, x in enumerate(part.operands)
    ]
    outs = [
        f"{_TYPES[part.dtypes[value]]}* __restrict__ y{g}_{k}"
        for g, part in enumerate(bundle)
        for k, value in enumerate(part.results)
    ]
    text, first = "", 0
    for g, part in enumerate(bundle):
        last = first + _blocks(part)
        body = _counted(f"(blockIdx.x - {first}u)", prod(part.shape), _statements(part, g))
        text += f"    {'else ' if g else ''}if (blockIdx.x < {last}u) {{{body}\n    }}\n"
        first = last
    return f"\n__global__ void __launch_bounds__({_BLOCK}) {entry}({', '.join([*ins, *outs])}) {{\n{text}}}\n"


def _statements(group: Group, g: int) -> list[str]:
    """What is done for the i-th number of a group."""
    axes = formulas.collapsed(group.shape, [operand.strides for operand in group.operands])
    writer = _Writer()
    given = [_Value(f"x{k}", operand.dtype) for k, operand in enumerate(group.operands)]
    values = formulas.write(writer, group, given)
    loads = [
        f"const {_TYPES[operand.dtype]} x{k} = a{g}_{k}[{_place(axes, k, operand.dtype.itemsize)}];"
        for k, operand in enumerate(group.operands)
    ]
    stores = [f"y{g}_{k}[i] = {values[value].text};" for k, value in enumerate(group.results)]
    return [*loads, *writer.lines, *stores]


def _place(axes: Sequence[tuple[int, list[int]]], operand: int, size: int) -> str:
    """Where an operand's number is for the i-th number of the result."""
    terms, below = [], 1
    for at, (length, strides) in reversed(list(enumerate(axes))):
        stride = strides[operand] // size
        if stride:
            index = f"i / {below}" if below > 1 else "i"
            index = f"{index} % {length}" if at else index
            terms.append(f"({index}) * {stride}" if stride != 1 else f"({index})")
        below *= length
    return " + ".join(terms) or "0"
