"""What a recorded program does, in words and as a picture of its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

from tinymaml.autodiff.tracing import Call
from tinymaml.compile.lower_cpu import PYTHON, Assembly
from tinymaml.compile.memory_plan import Block
from tinymaml.compile.passes import Region

_COLOURS = {"conv": "#3b6fb6", "linear": "#3b6fb6", "norm": "#d98b2b", "pool": "#8a5fb0", "losses": "#b9434e",
            "fused": "#4f9d69", "shape": "#8c8c8c", "optim": "#c9b037"}  # fmt: skip


def operations(call: Call) -> int:
    """Multiplications and additions of a call; of an elementwise one, a number computed counts as one."""
    y, own = call.outs[0], sum(out.size for out in call.outs)
    if call.name == "linear.linear":
        a = call.ins[0]
        return 2 * y.size * int(a.shape[-2] if call.static["ta"] else a.shape[-1])
    if call.name in ("conv.conv2d", "conv.conv2d_dx", "conv.conv2d_dw"):
        results = y if call.name == "conv.conv2d" else call.ins[call.name == "conv.conv2d_dw"]
        taps = y.shape[1:4] if call.name == "conv.conv2d_dw" else call.ins[1].shape[1:4]
        return 2 * results.size * math.prod(taps)
    if call.name == "shape.sum_to":
        return int(call.ins[0].size)
    return own * len(call.static.get("parts", [call]))


def traffic(call: Call) -> int:
    """Bytes that a call reads and writes; what is broadcast counts once."""
    return sum(_numbers(x) * x.itemsize for x in (*call.outs, *call.ins))


def _numbers(x: Any) -> int:
    return math.prod(n for n, stride in zip(x.shape, x.strides, strict=True) if stride) if x.size else 0


def _launches(assembly: Assembly) -> Iterator[tuple[Region, Call]]:
    return ((region, call) for region in assembly.regions for call in region.calls)


def text(assembly: Assembly) -> str:
    """Launches by kernel, operations, bytes, memory, and the fused groups."""
    calls = [call for _, call in _launches(assembly)]
    total = sum(map(operations, calls))
    layout = assembly.layout
    own = "each thread's shard" if layout.shard else "one call alone"
    memory = f"{layout.arena / 1e6:.4g} MB between calls, {layout.scratch / 1e6:.4g} MB for {own}"
    lines = [
        f"{len(calls)} launches in {len(assembly.regions)} regions, {assembly.dropped} dropped as dead; "
        f"{assembly.on_what()}",
        f"{total / 1e9:.4g} GFLOP, {sum(map(traffic, calls)) / 1e6:.4g} MB read and written",
        f"memory: {memory}",
        "",
        f"{'region':12} {'kernel':28} {'launches':>8} {'GFLOP':>10} {'MB':>10}",
    ]
    for number, region in enumerate(assembly.regions):
        by_name: dict[str, list[Call]] = {}
        for call in region.calls:
            name = call.name + (" (Python)" if assembly.how(call) == PYTHON else "")
            by_name.setdefault(name, []).append(call)
        for name, some in by_name.items():
            where = f"{number} {'by task' if region.apart else 'together'}"
            flops, moved = sum(map(operations, some)) / 1e9, sum(map(traffic, some)) / 1e6
            lines.append(f"{where:12} {name:28} {len(some):8} {flops:10.4g} {moved:10.4g}")
    groups = [call for call in calls if call.name == "fused" and len(call.static["parts"]) > 1]
    lines += ["", f"{len(groups)} groups of several elementwise kernels"]
    for call in groups:
        parts = " ".join(part.name.split(".")[1] for part in call.static["parts"])
        lines.append(f"  {call.outs[0].shape}: {parts}")
    return "\n".join(lines)


def picture(assembly: Assembly) -> str:
    """An SVG: launches from left to right, memory from below to above; a box is a buffer while it is in use."""
    width, height, gap = 960, 260, 40
    stretches = [
        ("between regions", assembly.layout.arena, False),
        ("a shard's, by task", assembly.layout.scratch, True),
    ]
    count = max(1, sum(1 for _ in _launches(assembly)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 20} {2 * (height + gap) + 10}" '
        'font-family="sans-serif" font-size="13">'
    ]
    for i, (title, size, own) in enumerate(stretches):
        top = i * (height + gap) + gap
        label = f"memory {escape(title)}: {size / 1e6:.4g} MB, over the launches"
        parts.append(f'<text x="10" y="{top - 8}">{label}</text>')
        parts.append(f'<rect x="10" y="{top}" width="{width}" height="{height}" fill="#f4f4f4"/>')
        for block in assembly.layout.blocks:
            if block.own == own and size:
                parts.append(_box(block, 10, top, width / count, height / size, height, count))
    return "\n".join([*parts, "</svg>"])


def _box(block: Block, left: float, top: float, across: float, up: float, height: float, count: int) -> str:
    last = min(block.last, count)
    x, wide = left + (block.first - 1) * across, (last - block.first + 1) * across
    y, tall = top + height - (block.start + block.size) * up, block.size * up
    colour = _COLOURS.get(block.name.split(".")[0], "#bbbbbb")
    title = f"{block.name}, {block.size} bytes, launches {block.first} to {last}"
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{tall:.2f}" fill="{colour}" stroke="white" '
        f'stroke-width=".3"><title>{escape(title)}</title></rect>'
    )
