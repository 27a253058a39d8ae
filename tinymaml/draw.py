"""A picture of the recorded graph, as Graphviz dot text.

Values flow from top to bottom. A box is an op that was applied; its colour says what it is for: the function itself, or
what a first, second or third sweep added to it (`Node.order`). Whatever is made of a derivative has at least its order.
"""

from __future__ import annotations

import html
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import CONSTANT, Array, Node, Tensor

INK, PAPER, FAINT = "#24292f", "#ffffff", "#6e7781"
# For each order: what it is called, fill and line.
ORDERS = (
    ("the function", "#ddeaf8", "#3b73b9"),
    ("first order", "#fdecc8", "#c98a10"),
    ("second order", "#f9d9dd", "#c2384f"),
    ("third order and above", "#e8def6", "#7a4fb5"),
)
VARIABLE, CONSTANT_FILL = ("#d7f0dc", "#2c8a46"), ("#f3f4f6", "#aab1ba")
FORMATS = ("svg", "png", "pdf")


def draw(result: Any, path: str | Path | None = None, *, names: Mapping[str, Tensor] | None = None) -> str:
    """Graphviz dot text of everything that a tensor was made of.

    Args:
        result: a tensor, or a pytree of tensors, which are drawn with a double border. Anything else in it is left out,
            so that what `pull` and `push` return can be given as it is.
        path: where to write it as well: `.dot` or `.gv` for the text, `.svg`, `.png` or `.pdf` for a picture, for which
            the program `dot` of Graphviz has to be installed.
        names: names for tensors in the picture, such as {"w": w}.

    Returns:
        The dot text.

    Raises:
        TypeError: there is no tensor in `result`.
        ValueError: a path with another suffix.
        RuntimeError: a picture was asked for and Graphviz is not there, or it failed.
    """
    results = [leaf for leaf in tree.leaves(result) if isinstance(leaf, Tensor)]
    if not results:
        raise TypeError(f"draw: expected a tensor or a tree with tensors, got {type(result).__name__}")
    suffix = "" if path is None else Path(path).suffix.lower()
    if path is not None and suffix not in (".dot", ".gv", *(f".{name}" for name in FORMATS)):
        raise ValueError(f"draw: the path must end in .dot, .gv, .svg, .png or .pdf, got {str(path)!r}")
    text = _text(results, {tensor.node: name for name, tensor in (names or {}).items()})
    if path is None:
        return text
    if suffix in (".dot", ".gv"):
        Path(path).write_text(text, encoding="utf-8")
    else:
        _render(text, Path(path), suffix[1:])
    return text


def _render(text: str, path: Path, kind: str) -> None:
    program = shutil.which("dot")
    if program is None:
        raise RuntimeError(
            f"draw: to write {path.name} the program `dot` is needed: install graphviz (apt install graphviz, "
            "brew install graphviz, https://graphviz.org), or write a .dot file"
        )
    done = subprocess.run([program, f"-T{kind}", "-o", str(path)], input=text.encode(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"draw: graphviz could not draw {path.name}: {done.stderr.decode(errors='replace').strip()}")


def _text(results: list[Tensor], names: Mapping[Node, str]) -> str:
    nodes = _below(results)
    orders: dict[Node, int] = {}
    for node in nodes:  # oldest first
        of_node = 0 if node.primitive is None or node.root == CONSTANT else node.order
        orders[node] = max([of_node, *(orders[tensor.node] for tensor in node.inputs)])
    dtypes = {array.dtype.name for node in nodes for array in node.outputs}
    shared = dtypes.pop() if len(dtypes) == 1 else ""  # said once, in the legend, if it is everywhere
    ids = {node: f"n{i}" for i, node in enumerate(nodes)}
    last = {tensor.node for tensor in results}
    lines = [
        "digraph tinymaml {",
        f'  graph [rankdir=TB, bgcolor="{PAPER}", nodesep=0.22, ranksep=0.34, pad=0.25, fontname="Helvetica"]',
        f'  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11, fontcolor="{INK}", '
        'margin="0.11,0.05", height=0.3, penwidth=1.1]',
        f'  edge [color="{FAINT}", arrowsize=0.55, penwidth=0.9, fontname="Helvetica", fontsize=8, '
        f'fontcolor="{FAINT}", labeldistance=1.5, labelangle=32]',
    ]
    for node in nodes:
        look = _look(node, orders[node], node in last, names.get(node, ""), shared)
        lines.append(f"  {ids[node]} [{look}]")
    for node in nodes:
        line = ORDERS[min(orders[node], len(ORDERS) - 1)][2]
        for position, tensor in enumerate(node.inputs):
            settings = [f'color="{line}"'] if orders[node] else []
            if tensor.node.root == CONSTANT:
                settings = [f'color="{CONSTANT_FILL[1]}"']
            if len(node.inputs) > 1 and not _symmetric(node):
                settings.append(f'headlabel="{position}"')
            if len(tensor.node.outputs) > 1:
                settings.append(f'taillabel="[{tensor.index}]"')
            lines.append(f"  {ids[tensor.node]} -> {ids[node]}" + (f" [{', '.join(settings)}]" if settings else ""))
    lines += _legend(sorted({min(order, len(ORDERS) - 1) for order in orders.values()}), shared)
    return "\n".join([*lines, "}", ""])


def _below(results: list[Tensor]) -> list[Node]:
    """Every node that the results are made of, oldest first."""
    seen = {tensor.node for tensor in results}
    stack = list(seen)
    while stack:
        for tensor in stack.pop().inputs:
            if tensor.node not in seen:
                seen.add(tensor.node)
                stack.append(tensor.node)
    return sorted(seen, key=lambda node: node.serial)


def _symmetric(node: Node) -> bool:
    """Whether it does not matter which input is which."""
    return node.primitive is not None and node.primitive.name in ("add", "multiply")


def _look(node: Node, order: int, is_result: bool, name: str, shared: str) -> str:
    """The attributes of a node: a leaf is a variable or a constant, everything else an op."""
    arrays = node.outputs
    small = f'<font point-size="8.5" color="{FAINT}">{html.escape(_kinds(arrays, shared))}</font>'
    title = f"<b>{html.escape(name)}</b> = " if name else ""
    if node.root == CONSTANT:
        value = _value(arrays[0], shared)
        label = f"{title}{html.escape(value)}" if value else f"{title}constant<br/>{small}"
        fill, line = CONSTANT_FILL
        look = f'fillcolor="{fill}", color="{line}", style="rounded,filled,dashed"'
    elif node.primitive is None:
        fill, line = VARIABLE
        label = f"<b>{html.escape(name or 'variable')}</b><br/>{small}"
        look = f'fillcolor="{fill}", color="{line}", shape=ellipse, style=filled, penwidth=1.6'
    else:
        settings = ", ".join(_settings(node))
        more = f'<br/><font point-size="8.5">{html.escape(settings)}</font>' if settings else ""
        _, fill, line = ORDERS[min(order, len(ORDERS) - 1)]
        label = f"{title}{html.escape(node.primitive.name)}{more}<br/>{small}"
        look = f'fillcolor="{fill}", color="{line}"'
    return f"label=<{label}>, {look}{', peripheries=2' if is_result else ''}"


def _kinds(arrays: tuple[Array, ...], shared: str) -> str:
    """Shape and dtype, of each output: `2×3 float32`."""
    return ", ".join(
        f"{'×'.join(map(str, array.shape)) or 'number'}{'' if shared else f' {array.dtype}'}" for array in arrays
    )


def _value(array: Array, shared: str) -> str:
    """The one number that an array consists of, if it does."""
    flat = np.asarray(array[(slice(0, 1),) * array.ndim]).ravel()
    same = array.size and (array.size == 1 or all(step == 0 for step in array.strides))
    return f"{flat[0]:.4g}" + (f" ({_kinds((array,), shared)})" if array.ndim else "") if same else ""


def _settings(node: Node) -> Iterator[str]:
    """The static settings, but for those that the shapes show already and switches that are off."""
    for key, value in node.static.items():
        if key == "shape" or value is False:
            continue
        shown = key if value is True else f"{key}={_short(value)}"
        yield shown if len(shown) <= 32 else shown[:31] + "…"


def _short(value: Any) -> str:
    if isinstance(value, tuple) and any(isinstance(part, slice) for part in value):
        return "[" + ", ".join(_short(part) for part in value) + "]"
    if isinstance(value, slice):
        parts = ["" if part is None else str(part) for part in (value.start, value.stop, value.step)]
        return ":".join(parts if parts[2] else parts[:2])
    if value is Ellipsis:
        return "..."
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _legend(orders: list[int], shared: str) -> list[str]:
    """A box in a separate corner that says what the colours are."""
    rows = [("variable", *VARIABLE), ("constant", *CONSTANT_FILL), *(ORDERS[order] for order in orders)]
    cells = "".join(
        f'<tr><td width="22" height="12" fixedsize="true" border="1" style="rounded" bgcolor="{fill}" color="{line}">'
        f'</td><td align="left"><font point-size="9" color="{INK}">{text}</font></td></tr>'
        for text, fill, line in rows
    )
    notes = "".join(
        f'<tr><td colspan="2" align="left"><font point-size="9" color="{FAINT}">{note}</font></td></tr>'
        for note in ("double border: the result", f"all numbers are {shared}")[: 2 if shared else 1]
    )
    table = f'<table border="0" cellborder="0" cellspacing="3" cellpadding="2">{cells}{notes}</table>'
    return [
        "  subgraph cluster_legend {",
        f'    graph [style="rounded", color="{CONSTANT_FILL[1]}", margin=4]',
        f"    legend [shape=plain, style=solid, label=<{table}>]",
        "  }",
    ]
