"""Pytrees: taken apart and put together again, prefixes spread, and errors that say where."""

from collections import Counter, OrderedDict, UserDict, defaultdict
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml import tree
from tinymaml.autodiff.tree import LEAF, Structure


class Layer(NamedTuple):
    w: Any
    b: Any


NESTED = {"b": [1, (2, None)], "a": Layer(w=3, b={"x": 4}), "c": []}
TREES = st.recursive(
    st.integers() | st.none() | st.text(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Layer, inner, inner)
    ),
    max_leaves=12,
)
drawn = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def same(one, other):
    """Equal, and of the same types all the way down."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other


@drawn
@given(TREES)
def test_unflatten_undoes_flatten(given_tree):
    leaves, structure = tree.flatten(given_tree)
    same(tree.unflatten(structure, leaves), given_tree)
    same(tree.unflatten(structure, iter(leaves)), given_tree)
    same(tree.map(lambda x: x, given_tree), given_tree)
    assert tree.leaves(given_tree) == leaves == tree.leaves_like(structure, given_tree)
    assert tree.count(structure) == len(leaves) == len(tree.paths(given_tree))
    assert None not in leaves


@drawn
@given(TREES)
def test_paths_lead_to_the_leaves(given_tree):
    for path, leaf in zip(tree.paths(given_tree), tree.leaves(given_tree), strict=True):
        results = given_tree if path == "the value itself" else eval(f"given_tree{path}", {"given_tree": given_tree})
        assert results is leaf


@drawn
@given(TREES, st.integers())
def test_too_few_or_too_many_leaves(given_tree, extra):
    leaves, structure = tree.flatten(given_tree)
    with pytest.raises(ValueError, match="more leaves than the structure has places"):
        tree.unflatten(structure, [*leaves, extra])
    if leaves:
        with pytest.raises(ValueError, match="fewer leaves than the structure has places"):
            tree.unflatten(structure, leaves[1:])


def test_the_order_of_leaves():
    assert tree.leaves(NESTED) == [3, 4, 1, 2]
    assert tree.paths(NESTED) == ["['a'].w", "['a'].b['x']", "['b'][0]", "['b'][1][0]"]
    assert tree.leaves({"z": 1, "a": 2}) == tree.leaves({"a": 2, "z": 1}) == [2, 1]
    assert tree.leaves({2: "b", 1: "a"}) == ["a", "b"]
    assert tree.flatten(None) == ([], Structure(type(None)))
    assert tree.flatten(7) == ([7], LEAF)
    array = np.ones((2, 3))
    assert tree.leaves([array])[0] is array


def test_places_in_errors():
    assert [tree.place("params", NESTED, i) for i in (0, 3)] == ["params['a'].w", "params['b'][1][0]"]
    assert tree.place("params", 7, 0) == "params"


def test_containers_keep_their_type():
    ordered = OrderedDict(b=1, a=2)
    assert type(tree.map(lambda x: x, ordered)) is OrderedDict
    assert tree.map(lambda x, y: x + y, Layer(1, [2]), Layer(10, [20])) == Layer(11, [22])
    assert tree.map(lambda x: -x, None) is None


class Plain(dict):
    pass


class Named(dict):
    def __init__(self, name: str) -> None:
        super().__init__(name=name)


def test_ordered_dicts_keep_their_order():
    ordered = OrderedDict(b=np.ones(2), a=np.full(2, 3.0))
    assert tree.leaves(ordered)[0] is ordered["b"]
    assert tree.paths(ordered) == ["['b']", "['a']"]
    for results in (
        tree.map(np.copy, ordered),
        tm.grad(lambda p: tm.sum(p["a"] * p["b"]))(ordered),
        tm.record(lambda p: p, ordered)(ordered),
    ):
        assert type(results) is OrderedDict and list(results) == ["b", "a"]
    assert tm.grad(lambda p: tm.sum(p["a"] * p["b"]))(ordered)["b"].tolist() == [3, 3]
    turned = OrderedDict(reversed(ordered.items()))
    assert list(tree.map(lambda x, y: x - y, ordered, turned)) == ["b", "a"]
    assert all((x == 0).all() for x in tree.leaves(tree.map(lambda x, y: x - y, ordered, turned)))


def test_defaultdicts_keep_their_factory():
    given = defaultdict(list, b=np.ones(2), a=defaultdict(lambda: 7, c=np.full(2, 3.0)))
    actual = tm.grad(lambda p: tm.sum(p["a"]["c"] * p["b"]))(given)
    assert type(actual) is defaultdict and actual.default_factory is list
    assert actual["a"].default_factory is given["a"].default_factory and actual["a"]["new"] == 7
    assert actual["b"].tolist() == [3, 3]
    assert tree.map(lambda x, y: x is y, given, given) == {"a": {"c": True}, "b": True}
    assert "missing" not in given
    with pytest.raises(ValueError, match="another structure than expected"):
        tree.map(lambda x, y: x, {"a": 1}, given)
    with pytest.raises(ValueError, match="another structure than expected"):
        tree.map(lambda x, y: x, defaultdict(list, missing=1), given)
    assert "missing" not in given


def test_other_kinds_of_dict():
    assert type(tree.map(lambda x: x, Plain(a=1))) is Plain
    for value, name in ((Counter(a=2.0), "Counter"), (Named("x"), "Named")):
        with pytest.raises(TypeError, match=rf"^a {name} in a tree is not made again by {name}\(items\): give a dict"):
            tree.flatten([value])
        with pytest.raises(TypeError, match=f"^a {name} in a tree"):
            tm.grad(lambda p: tm.sum(p["a"]))(value)
    for value in (MappingProxyType({"a": np.ones(2)}), UserDict(a=np.ones(2)), {1.0}):
        with pytest.raises(TypeError, match=f"got a {type(value).__name__}"):
            tm.grad(lambda p: tm.sum(p["a"]))(value)


def test_map_over_several_trees():
    assert tree.map(lambda x, y, z: (x, y, z), [1, {"a": 2}], [3, {"a": 4}], [5, {"a": 6}]) == [
        (1, 3, 5),
        {"a": (2, 4, 6)},
    ]


@pytest.mark.parametrize(
    ("expected", "got", "message"),
    [
        ([1], [1, 2], r"at the top expected list with keys \[0\], got list with keys \[0, 1\]"),
        ([1], (1,), "at the top expected list with keys .*, got tuple"),
        ({"a": [1, {"w": 2}]}, {"a": [1, {"v": 2}]}, r"at \['a'\]\[1\] expected dict with keys \['w'\], got .*\['v'\]"),
        (Layer(1, {"x": 2}), Layer(1, 2), r"at \.b expected dict with keys \['x'\], got a leaf"),
        ([1, 2], [1, None], r"at \[1\] expected a leaf, got None"),
        (1, [1], "at the top expected a leaf, got list"),
    ],
)
def test_another_structure(expected, got, message):
    structure = tree.flatten(expected)[1]
    with pytest.raises(ValueError, match=f"^grads has another structure than expected: {message}"):
        tree.leaves_like(structure, got, "grads")
    with pytest.raises(ValueError, match=f"^a tree has another structure than expected: {message}"):
        tree.map(lambda x, y: x, expected, got)


def test_spread():
    structure = tree.flatten([{"w": 1, "b": 2}, Layer(3, [4, 5])])[1]

    def spread(prefix):
        return tree.spread(prefix, structure, "alpha")

    assert spread(7) == [7] * 5
    assert spread([7, 8]) == [7, 7, 8, 8, 8]
    assert spread([{"w": 1, "b": 2}, 8]) == [2, 1, 8, 8, 8]
    assert spread([7, Layer(8, 9)]) == [7, 7, 8, 9, 9]
    assert spread([7, Layer(8, [9, 10])]) == [7, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ([1], r"alpha does not fit the parameters: expected list with keys \[0, 1\] or one value for all of it"),
        (None, "alpha does not fit .* got None"),
        ([{"w": 1}, 2], r"alpha\[0\] does not fit .*expected dict with keys \['b', 'w'\] or one value .*\['w'\]"),
        ([1, (2, 3)], r"alpha\[1\] does not fit .*expected Layer with keys \['w', 'b'\] .*, got tuple"),
        ([1, Layer([2], 3)], r"alpha\[1\]\.w does not fit the parameters: expected a leaf, got list"),
        ([1, Layer(2, [3, 4, 5])], r"alpha\[1\]\.b does not fit"),
    ],
)
def test_a_prefix_that_does_not_fit(prefix, message):
    structure = tree.flatten([{"w": 1, "b": 2}, Layer(3, [4, 5])])[1]
    with pytest.raises(ValueError, match=message):
        tree.spread(prefix, structure, "alpha")


def test_keys_that_cannot_be_sorted():
    with pytest.raises(TypeError, match=r"a dict in a tree needs keys that can be sorted, got \['a', 1\]"):
        tree.flatten([{"a": 1, 1: 2}])


def test_structures_compare_and_hash():
    one, other = (tree.flatten({"a": [x, (x, None)]})[1] for x in (1, 2))
    assert one == other and hash(one) == hash(other)
    assert one != tree.flatten({"a": [1, (2, 3)]})[1]


def test_deep_trees():
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert tree.paths(deep) == ["[0]" * 100]
    assert tree.unflatten(tree.flatten(deep)[1], [1]) == deep
