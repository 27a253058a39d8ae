"""Derivatives of functions of pytrees, a few lines each over the two sweeps.

Every transform enters through fresh variables, so that the same tensor inside and outside is not confused and
derivatives nest to any order. Given arrays, it returns arrays; results that still depend on an outer variable come back
as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.dispatch import alike, zeros
from tinymaml.autodiff.sweeps import pull, push
from tinymaml.autodiff.tensor import CONSTANT, FLOATS, Array, Tensor, as_tensor, constant, host, is_array, known, now
from tinymaml.autodiff.tree import Tree
from tinymaml.ops import add, divide, multiply, ones_like, reshape, stack, subtract, zeros_like
from tinymaml.ops.elementwise import identity
from tinymaml.ops.shape import whole_numbers

MODES = ("forward-over-reverse", "reverse-over-reverse", "reverse-over-forward", "finite-difference")


def enter(value: Any) -> Tensor:
    """A fresh variable with this value. Raises TypeError for anything but float32 or float64."""
    if isinstance(value, Tensor):
        return identity(value) if value.node.root != CONSTANT else Tensor(value.data)
    return Tensor(value)


def _mark(mark: int, given: Sequence[Tensor]) -> int:
    """The mark for what is made later of a record and of tensors: if they are younger variables it still depends on
    them."""
    return mark if all(x.node.root == CONSTANT for x in given) else CONSTANT


def leave(results: Tree, mark: int, since: int | None = None) -> Tree:
    """The results as arrays; as the tensors they are where they depend on a variable older than `mark` or are recorded.

    Each array is for the caller to write to: it is copied if it is one that was given, a view, a
    result already, or of a record that lives on: made before `since`, which is `mark` if not given.
    """
    seen: set[int] = set()
    since = mark if since is None else since

    def one(result: Tensor) -> Array | Tensor:
        node = result.node
        value = result if node.root < mark else known(result)
        if isinstance(value, Tensor):
            return value
        # Only a kernel makes memory: a leaf's is the caller's, a view's another tensor's.
        is_made = node.primitive is not None and node.primitive.specs is not None and value.base is None
        if not is_made or node.serial < since or id(value) in seen:
            return value.copy()
        seen.add(id(value))
        return value

    return tree.map(one, results)


def or_zeros(tangents: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Tangents or cotangents, with zeros for None: each like its tensor."""
    return [zeros_like(x) if tangent is None else tangent for tangent, x in zip(tangents, like, strict=True)]


def _enter_tree(params: Tree, name: str) -> tuple[list[Tensor], tree.Structure]:
    leaves, structure = tree.flatten(params)
    if not leaves:
        raise ValueError(f"{name} has no leaves to differentiate by")
    try:
        return [enter(leaf) for leaf in leaves], structure
    except TypeError:
        for path, leaf in zip(tree.paths(params), leaves, strict=True):
            try:
                enter(leaf)
            except TypeError as error:
                raise TypeError(f"{name}, {path}: {error}") from None
        raise


def _like(name: str, given: Tree, structure: tree.Structure, variables: Sequence[Tensor]) -> list[Tensor]:
    """A tangent or cotangent for each variable, checked."""
    tensors = []
    for leaf, x in zip(tree.leaves_like(structure, given, name), variables, strict=True):
        tensor = leaf if isinstance(leaf, Tensor) else constant(leaf, None if is_array(leaf) else x.dtype)
        if tensor.shape != x.shape or tensor.dtype != x.dtype:
            raise ValueError(f"{name}: expected {x.shape} {x.dtype}, got {tensor.shape} {tensor.dtype}")
        tensors.append(tensor)
    return tensors


def _scalar(value: Any) -> Tensor:
    value = as_tensor(value)
    if value.dtype not in FLOATS:
        raise TypeError(f"the function to differentiate must return a floating number, got {value.dtype}")
    if value.shape != ():
        hint = "take sum() or mean()" if value.size != 1 else "a number has shape (): take sum()"
        raise ValueError(f"the function to differentiate must return one number, got shape {value.shape}; {hint}")
    return value


class Record:
    """A function's value at some variables, recorded, and what the sweeps make of it.

    The value may have any shape; gradient and Hessian are those of its sum (so each task's loss by its own parameters).
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], Tensor], variables: Sequence[Tensor]) -> None:
        self.function = function
        self.variables = variables
        self.value = function(variables)

    @cached_property
    def gradient(self) -> list[Tensor | None]:
        """The recorded gradient; None where the value does not depend on a variable."""
        return pull([self.value], self.variables, [ones_like(self.value)])

    def hessian_product(self, vs: Sequence[Tensor | None], mode: str = MODES[0]) -> list[Tensor | None]:
        """The Hessian times v, in one of `MODES`; None in v and in the result is zero."""
        if mode == "forward-over-reverse":
            known = [g for g in self.gradient if g is not None]
            pushed = iter(push(known, self.variables, vs))
            return [None if g is None else next(pushed) for g in self.gradient]
        if mode == "reverse-over-reverse":
            varied = [(g, v) for g, v in zip(self.gradient, vs, strict=True) if g is not None and v is not None]
            return pull([g for g, _ in varied], self.variables, [v for _, v in varied])
        if mode == "reverse-over-forward":
            # v may have been made from these very variables (an outer derivative keeps that history); it is not varied.
            vs = [v if v is None or v.node.root == CONSTANT else enter(v) for v in vs]
            slope = push([self.value], self.variables, vs)[0]
            stops = [v for v in vs if v is not None and v.node.root != CONSTANT]
            products = None if slope is None else pull([slope], [*self.variables, *stops], [ones_like(slope)])
            return [None] * len(vs) if products is None else products[: len(vs)]
        if mode == "finite-difference":
            return self._difference(vs)
        raise ValueError(f"unknown mode {mode!r} of the Hessian-vector product; one of {', '.join(MODES)}")

    def _difference(self, vs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """A central difference of gradients along v, with the step that balances truncation against rounding."""
        size = _norm(vs)
        if size == 0:
            return [None] * len(vs)
        step = float(np.finfo(self.value.dtype).eps) ** (1 / 3) * (1 + _norm(self.variables)) / size

        def shifted(by: float) -> list[Tensor | None]:
            moved = [x if v is None else add(x, multiply(v, by)) for x, v in zip(self.variables, vs, strict=True)]
            return Record(self.function, [enter(x) for x in moved]).gradient

        gradients = zip(shifted(step), shifted(-step), strict=True)
        return [None if a is None or b is None else divide(subtract(a, b), 2 * step) for a, b in gradients]


def _norm(tensors: Sequence[Tensor | None]) -> float:
    squares = [float((host(x.data).astype(np.float64) ** 2).sum()) for x in tensors if x is not None]
    return float(np.sqrt(sum(squares)))


def value_and_grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that returns (value, gradient) of `function`, which returns one number.

    Args:
        function: of pytrees of floating arrays; what it is not differentiated by may be anything.
        argnums: which positional argument to differentiate by, or several: then the gradient is a tuple.

    The result raises TypeError when asked for the gradient by an integer, ValueError if the value is not one number.
    """
    positions = whole_numbers("grad", "argnums", argnums)
    is_one = np.ndim(argnums) == 0

    def transformed(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if any(not 0 <= i < len(args) for i in positions):
            raise ValueError(f"argnums {argnums} does not fit a call with {len(args)} positional arguments")
        mark = now()
        variables, structure = _enter_tree(tuple(args[i] for i in positions), "the argument to differentiate by")
        filled = list(args)
        for i, part in zip(positions, tree.unflatten(structure, variables), strict=True):
            filled[i] = part
        value = _scalar(function(*filled, **kwargs))
        by_variables = or_zeros(pull([value], variables, [ones_like(value)]), variables)
        grads = tree.unflatten(structure, by_variables)
        return leave((value, grads[0] if is_one else grads), mark)

    return transformed


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the gradient of `function`; see `value_and_grad`."""
    both = value_and_grad(function, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def vjp(function: Callable[..., Any], *primals: Tree) -> tuple[Any, Callable[[Tree], tuple[Tree, ...]]]:
    """(value, pullback): pullback(g) is Jᵀg, a tuple with a tree for each primal. `function` may return a pytree."""
    mark = now()
    variables, structure = _enter_tree(primals, "the primals")
    outputs, out_structure = tree.flatten(function(*tree.unflatten(structure, variables)))
    outputs = [as_tensor(y) for y in outputs]

    def pullback(cotangent: Tree) -> tuple[Tree, ...]:
        since = now()
        gs = _like("the cotangent", cotangent, out_structure, outputs)
        cotangents = or_zeros(pull(outputs, variables, gs), variables)
        return leave(tree.unflatten(structure, cotangents), _mark(mark, gs), since)

    return leave(tree.unflatten(out_structure, outputs), mark, since=now()), pullback


def jvp(function: Callable[..., Any], primals: Sequence[Tree], tangents: Sequence[Tree]) -> tuple[Any, Any]:
    """(value, Jv): both like the output of `function`. `tangents` is like `primals`, a sequence of the arguments."""
    if not isinstance(primals, list | tuple) or not isinstance(tangents, list | tuple):
        raise TypeError("jvp: primals and tangents are sequences with one entry for each argument of the function")
    mark = now()
    variables, structure = _enter_tree(tuple(primals), "the primals")
    ts = _like("the tangents", tuple(tangents), structure, variables)
    outputs, out_structure = tree.flatten(function(*tree.unflatten(structure, variables)))
    outputs = [as_tensor(y) for y in outputs]
    out_tangents = or_zeros(push(outputs, variables, ts), outputs)
    return leave((tree.unflatten(out_structure, outputs), tree.unflatten(out_structure, out_tangents)), mark)


def hvp(function: Callable[..., Any], params: Tree, v: Tree, *args: Any, mode: str = MODES[0]) -> Tree:
    """The Hessian of `function(params, *args)` by `params`, times v: a tree like `params`.

    Args:
        mode: which two sweeps over the record make the product:
            "forward-over-reverse": push(grad) - reuses every recorded value, about the cost of two gradients;
            "reverse-over-reverse": pull(<grad, v>);
            "reverse-over-forward": pull(push(f));
            "finite-difference": (grad(params + h v) - grad(params - h v)) / 2h, for comparison: error about h².

    Raises:
        ValueError: an unknown mode, v unlike params, or a function that does not return one number.
        TypeError: integer parameters.
    """
    if mode not in MODES:
        raise ValueError(f"hvp: unknown mode {mode!r}; one of {', '.join(MODES)}")
    mark = now()
    variables, structure = _enter_tree(params, "params")
    vs = _like("v", v, structure, variables)

    def scalar(xs: Sequence[Tensor]) -> Tensor:
        return _scalar(function(tree.unflatten(structure, xs), *args))

    products = or_zeros(Record(scalar, variables).hessian_product(vs, mode), variables)
    return leave(tree.unflatten(structure, products), mark)


def grad_and_hvp(function: Callable[..., Any], params: Tree, *args: Any) -> tuple[Any, Tree, Callable[[Tree], Tree]]:
    """(value, gradient, v -> Hv) over one record: for conjugate gradient, which asks for many products at one point."""
    mark = now()
    variables, structure = _enter_tree(params, "params")
    record = Record(lambda xs: _scalar(function(tree.unflatten(structure, xs), *args)), variables)

    def product(v: Tree) -> Tree:
        since = now()
        vs = _like("v", v, structure, variables)
        products = or_zeros(record.hessian_product(vs), variables)
        return leave(tree.unflatten(structure, products), _mark(mark, vs), since)

    grads = tree.unflatten(structure, or_zeros(record.gradient, variables))
    value, grads = leave((record.value, grads), mark, since=now())
    return value, grads, product


def hessian(function: Callable[..., Any], params: Tree, *args: Any) -> Tree:
    """The whole Hessian by `params`, for small problems: a tree of trees, H[i][j] has params[i]'s axes, then
    params[j]'s.

    One Hessian-vector product for every number in params.
    """
    leaves, structure = tree.flatten(params)
    leaves = [as_tensor(leaf) for leaf in leaves]
    _, _, product = grad_and_hvp(function, params, *args)
    rows: list[list[Any]] = []
    for i, leaf in enumerate(leaves):
        columns: list[list[Any]] = [[] for _ in leaves]
        for k in range(leaf.size):
            unit = np.zeros(leaf.size, leaf.dtype)
            unit[k] = 1
            v = [unit.reshape(leaf.shape) if j == i else np.zeros(x.shape, x.dtype) for j, x in enumerate(leaves)]
            v = [alike(part, x.data) for part, x in zip(v, leaves, strict=True)]
            for column, entry in zip(columns, tree.leaves(product(tree.unflatten(structure, v))), strict=True):
                column.append(entry)
        rows.append([_stacked(column, (*leaf.shape, *x.shape), x) for column, x in zip(columns, leaves, strict=True)])
    return tree.unflatten(structure, [tree.unflatten(structure, row) for row in rows])


def _stacked(parts: Sequence[Any], shape: tuple[int, ...], like: Tensor) -> Any:
    """Rows stacked in one array, or in a tensor if one of them is."""
    if not parts:
        return zeros(shape, like.data)
    stacked = reshape(stack(parts), shape)
    return stacked if any(isinstance(part, Tensor) for part in parts) else stacked.data
