"""The picture of the graph: what is in the text, and that Graphviz understands it."""

import shutil
import threading

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.autodiff.tensor import SWEEP
from tinymaml.draw import CONSTANT_FILL, ORDERS, VARIABLE

needs_graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="needs the program dot of graphviz")


def record():
    x = tm.Tensor(np.ones((2, 3), np.float32))
    w = tm.Tensor(np.ones((3, 2), np.float32))
    loss = tm.mean(tm.tanh(x @ w) ** 2)
    (gradient,) = tm.pull([loss], [w], [tm.ones_like(loss)])
    return x, w, loss, gradient


def colours(text):
    """Which fills are used by nodes of the graph, the legend left out."""
    body = text.split("subgraph cluster_legend")[0]
    return [fill for _, fill, _ in ORDERS if fill in body]


def fills(count):
    return [fill for _, fill, _ in ORDERS[:count]]


def test_orders_are_told_apart():
    _, w, loss, gradient = record()
    assert colours(tm.draw(loss)) == fills(1)
    assert colours(tm.draw(gradient)) == fills(2)
    for sweep in (tm.push, tm.pull):
        (product,) = sweep([gradient], [w], [tm.ones_like(w)])
        assert colours(tm.draw(product)) == fills(3)
        (third,) = tm.push([product], [w], [tm.ones_like(w)])
        assert colours(tm.draw(third)) == fills(4)
        assert colours(tm.draw(tm.pull([third], [w], [tm.ones_like(w)]))) == fills(4)
    (slope,) = tm.push([loss], [w], [tm.ones_like(w)])
    assert colours(tm.draw(tm.pull([slope], [w], [tm.ones_like(slope)]))) == fills(3)


def test_what_is_made_of_a_derivative_has_its_order():
    _, w, _, gradient = record()
    moved = w - gradient * 0.1
    assert moved.node.order == 0  # it was not made by a sweep, and yet
    assert colours(tm.draw(moved)) == fills(2)
    (again,) = tm.pull([tm.sum(moved**2)], [w], [tm.as_tensor(np.float32(1))])
    assert again.node.order == 2
    assert colours(tm.draw(again)) == fills(3)


def test_orders_of_two_threads_are_apart():
    """A sweep in one thread does not mark what another records."""
    inside, outside = threading.Event(), threading.Event()
    found = []

    def other():
        inside.wait(10)
        found.append((tm.Tensor(1.0) * 2.0).node.order)
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    token = SWEEP.set(3)
    inside.set()
    assert outside.wait(10)
    assert tm.sin(tm.Tensor(1.0)).node.order == 3
    SWEEP.reset(token)
    thread.join()
    assert found == [0]
    with pytest.raises(ValueError, match="a tangent has"):
        tm.push([tm.Tensor(1.0)], [tm.Tensor(1.0)], [tm.Tensor([1.0])])
    assert (tm.Tensor(1.0) * 2.0).node.order == 0


def test_text():
    x, w, loss, gradient = record()
    text = tm.draw({"loss": loss, "others": [gradient, None]}, names={"w": w, "loss": loss, "<&>": x})
    assert text.startswith("digraph tinymaml {")
    assert text.count("peripheries=2") == 2
    assert text.count(VARIABLE[0]) == 2 + 1  # and the legend
    assert CONSTANT_FILL[0] in text
    for part in ("<b>w</b>", "<b>loss</b> = multiply", "&lt;&amp;&gt;", "3×2", "exponent=2", "all numbers are float32"):
        assert part in text
    assert text == tm.draw({"loss": loss, "others": [gradient, None]}, names={"w": w, "loss": loss, "<&>": x})
    for name, _, _ in ORDERS[:2]:
        assert name in text
    assert "second order" not in text


def test_indices_outputs_and_kinds():
    x = tm.Tensor(np.arange(6.0).reshape(2, 3))
    y = tm.max(x[:, ::-1], 1) + x[..., [0, 0]].astype(np.float32).astype(np.float64)[:, 0]
    text = tm.draw(y)
    for part in ("[:, ::-1]", "max_last", 'taillabel="[0]"', "2×1 float64, 2×1 int64", "2×2 float32"):
        assert part in text
    assert "all numbers" not in text
    assert "variable" in tm.draw(tm.Tensor(1.0))
    assert "2.5" in tm.draw(tm.as_tensor(2.5))
    assert "digraph" in tm.draw(tm.Tensor(np.zeros((0, 3))) * np.zeros((1, 3)))


def test_files(tmp_path):
    gradient = record()[3]
    text = tm.draw(gradient, tmp_path / "a.dot")
    assert (tmp_path / "a.dot").read_text(encoding="utf-8") == text
    assert tm.draw(gradient, str(tmp_path / "a.gv")) == text
    with pytest.raises(ValueError, match=r"must end in \.dot, .* got '.*a\.txt'"):
        tm.draw(gradient, tmp_path / "a.txt")
    with pytest.raises(TypeError, match="draw: expected a tensor or a tree with tensors, got ndarray"):
        tm.draw(np.ones(2))


def test_without_graphviz(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"to write a\.svg the program `dot` is needed: install graphviz"):
        tm.draw(record()[3], tmp_path / "a.svg")


@needs_graphviz
@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_pictures(tmp_path, kind):
    path = tmp_path / f"graph.{kind}"
    x, w, _, gradient = record()
    (product,) = tm.push([gradient], [w], [tm.ones_like(w)])
    tm.draw(product, path, names={"x <&> y": x})
    content = path.read_bytes()
    assert content.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[kind])
    if kind == "svg":
        assert b"second order" in content


@needs_graphviz
def test_errors_of_graphviz_are_passed_on(tmp_path):
    with pytest.raises(RuntimeError, match=r"graphviz could not draw a\.svg"):
        tm.draw(record()[3], tmp_path / "nowhere" / "a.svg")
