"""Pytrees: parameters are plain dicts, lists, tuples and named tuples, nested as the user likes.

`flatten` takes such a tree apart into its leaves and a `Structure`; `unflatten` puts it together again.
Everything that is not a container is a leaf. `None` is an empty container, so that an absent part has no leaves.
A defaultdict keeps its factory and an OrderedDict its order; other kinds of dict must be made by `Kind(items)`.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

Tree = Any


class Structure(NamedTuple):
    """The shape of a tree without its leaves. `kind` is the container's type, or `object` for a leaf."""

    kind: type
    keys: tuple[Any, ...] = ()
    children: tuple[Structure, ...] = ()
    factory: Any = None  # of a defaultdict


LEAF = Structure(object)


def _children(tree: Tree) -> tuple[tuple[Any, ...], list[Tree]] | None:
    """Keys and children of a container, or None for a leaf. Dicts are taken in the order of their sorted keys,
    OrderedDicts in their own."""
    if isinstance(tree, dict):
        try:
            keys = tuple(tree if isinstance(tree, OrderedDict) else sorted(tree))
        except TypeError:
            raise TypeError(f"a dict in a tree needs keys that can be sorted, got {list(tree)!r}") from None
        children = [tree[key] for key in keys]
        if type(tree) not in _DICTS:
            _check_made_of_items(type(tree), keys, children)
        return keys, children
    if isinstance(tree, list | tuple):
        return tuple(getattr(tree, "_fields", range(len(tree)))), list(tree)
    return ((), []) if tree is None else None


_DICTS = (dict, OrderedDict, defaultdict)


def _check_made_of_items(kind: Any, keys: tuple[Any, ...], children: list[Tree]) -> None:
    """Raise TypeError unless another kind of dict can be put together again: a Counter, for one, counts its items."""
    try:
        made = kind(zip(keys, children, strict=True))
        is_same = made.keys() == set(keys) and all(
            made[key] is child for key, child in zip(keys, children, strict=True)
        )
    except Exception:  # whatever its constructor makes of items
        is_same = False
    if not is_same:
        raise TypeError(f"a {kind.__name__} in a tree is not made again by {kind.__name__}(items): give a dict instead")


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """The leaves of a tree, in a fixed order, and its structure."""
    leaves: list[Any] = []
    return leaves, _collect(tree, leaves)


def _collect(tree: Tree, leaves: list[Any]) -> Structure:
    # Not a closure: one that calls itself is a reference cycle, and would keep the leaves alive with it.
    container = _children(tree)
    if container is None:
        leaves.append(tree)
        return LEAF
    keys, children = container
    factory = tree.default_factory if type(tree) is defaultdict else None
    return Structure(type(tree), keys, tuple([_collect(child, leaves) for child in children]), factory)


def leaves(tree: Tree) -> list[Any]:
    """The leaves alone."""
    return flatten(tree)[0]


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Tree:
    """The inverse of `flatten`. Raises ValueError if there are too few or too many leaves."""
    rest = iter(leaves)
    try:
        tree = _build(structure, rest)
    except StopIteration:
        raise ValueError("fewer leaves than the structure has places") from None
    if next(rest, LEAF) is not LEAF:
        raise ValueError("more leaves than the structure has places")
    return tree


def _build(structure: Structure, leaves: Iterator[Any]) -> Tree:
    kind, keys, children, factory = structure
    if kind is object:
        return next(leaves)
    built = [next(leaves) if child is LEAF else _build(child, leaves) for child in children]
    if kind is dict:
        return dict(zip(keys, built, strict=True))
    if kind is type(None):
        return None
    if kind is defaultdict:
        return defaultdict(factory, zip(keys, built, strict=True))
    if issubclass(kind, dict):
        return kind(zip(keys, built, strict=True))
    make: Any = kind
    return make(*built) if hasattr(kind, "_fields") else make(built)


def map(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:  # noqa: A001
    """`function` applied leaf by leaf over one or more trees of the same structure.

    Raises ValueError that names the first place where a tree differs from the first one.
    """
    first, structure = flatten(tree)
    others = [leaves_like(structure, other) for other in rest]
    return unflatten(structure, [function(*group) for group in zip(first, *others, strict=True)])


def leaves_like(structure: Structure, tree: Tree, name: str = "a tree") -> list[Any]:
    """The leaves of `tree`, which must have this structure; else a ValueError says where `name` differs."""
    gathered: list[Any] = []
    if _gather(structure, tree, gathered):
        return gathered
    _, its_structure = flatten(tree)
    raise ValueError(f"{name} has another structure than expected: {_difference(structure, its_structure)}")


_CONTAINERS = (dict, list, tuple, type(None))


def _gather(structure: Structure, tree: Tree, leaves: list[Any]) -> bool:
    """Append the leaves of a tree if it has this structure; whether it has."""
    kind: Any = structure.kind
    keys, children = structure.keys, structure.children
    if kind is object:
        leaves.append(tree)
        return not isinstance(tree, _CONTAINERS)
    if type(tree) is not kind or len(keys) != (0 if tree is None else len(tree)):
        return False
    by_key = isinstance(tree, dict)
    for i, (key, child) in enumerate(zip(keys, children, strict=True)):
        if by_key and key not in tree:
            return False
        below = tree[key if by_key else i]
        if child is LEAF and not isinstance(below, _CONTAINERS):
            leaves.append(below)
        elif not _gather(child, below, leaves):
            return False
    return True


def _difference(expected: Structure, got: Structure, path: str = "") -> str:
    if expected.kind is not got.kind or expected.keys != got.keys:
        return f"at {path or 'the top'} expected {_describe(expected)}, got {_describe(got)}"
    for key, one, other in zip(expected.keys, expected.children, got.children, strict=True):
        if one != other:
            return _difference(one, other, path + _step(expected.kind, key))
    return "the same"


def _describe(structure: Structure) -> str:
    if structure.kind in (object, type(None)):
        return "a leaf" if structure.kind is object else "None"
    return f"{structure.kind.__name__} with keys {list(structure.keys)}"


def _step(kind: type, key: Any) -> str:
    """One step down into a container, as it would be written: `['w']`, `[0]`, `.w`."""
    return f".{key}" if hasattr(kind, "_fields") else f"[{key!r}]"


def place(name: str, tree: Tree, position: int) -> str:
    """What a leaf of the tree called `name` is called in an error: `params['layers'][0]['w']`."""
    return name if _children(tree) is None else name + paths(tree)[position]


def paths(tree: Tree) -> list[str]:
    """The place of every leaf, written as it would be reached: `['layers'][0]['w']`, `.w` in a named tuple."""
    return [path or "the value itself" for path in _paths(tree, "")]


def _paths(tree: Tree, path: str) -> Iterator[str]:
    children = _children(tree)
    if children is None:
        yield path
        return
    for key, child in zip(*children, strict=True):
        yield from _paths(child, path + _step(type(tree), key))


def spread(prefix: Tree, structure: Structure, name: str, path: str = "") -> list[Any]:
    """One leaf of `prefix` for every leaf of `structure`: a leaf at the place of a container stands for all of it.

    So `False`, `[False, True]` and a tree with a value at every parameter are all good. `name` is for the error.
    """
    if _children(prefix) is None:
        return [prefix] * count(structure)
    keys, children = _children(prefix)  # type: ignore[misc]  # not None here
    if structure.kind is not type(prefix) or structure.keys != keys:
        expected, got = _describe(structure), _describe(Structure(type(prefix), keys))
        one = "" if structure.kind is object else " or one value for all of it"
        raise ValueError(f"{name}{path} does not fit the parameters: expected {expected}{one}, got {got}")
    parts = zip(keys, children, structure.children, strict=True)
    return [leaf for key, child, part in parts for leaf in spread(child, part, name, path + _step(type(prefix), key))]


def count(structure: Structure) -> int:
    """How many leaves a structure has."""
    return 1 if structure.kind is object else sum(count(child) for child in structure.children)
