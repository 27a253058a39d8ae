"""What a recorded program does, in words and as a picture of its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

from tinymaml.autodiff.tracing import Call
from tinymaml.compile.fusion import FusedCall
from tinymaml.compile.lower_cpu import PYTHON, CpuExecutable
from tinymaml.compile.memory_plan import Buffer
from tinymaml.compile.regions import Region

_COLOURS = {"conv": "#3b6fb6", "linear": "#3b6fb6", "norm": "#d98b2b", "pool": "#8a5fb0", "losses": "#b9434e",
            "elementwise": "#4f9d69", "shape": "#8c8c8c", "optim": "#c9b037"}  # fmt: skip


def operations(call: Call) -> int:
    """Multiplications and additions of a call; of an elementwise one, a number computed counts as one."""
    y, (family, name) = call.outs[0], call.kernel
    if family == "linear":
        a = call.ins[0]
        return 2 * y.size * int(a.shape[-2] if call.static["ta"] else a.shape[-1])
    if family == "conv":
        results = y if name == "conv2d" else call.ins[name == "conv2d_dw"]
        taps = y.shape[1:4] if name == "conv2d_dw" else call.ins[1].shape[1:4]
        return 2 * results.size * math.prod(taps)
    if name == "sum_to":
        return int(call.ins[0].size)
    return sum(out.size for out in call.outs) * (len(call.parts) if isinstance(call, FusedCall) else 1)


def traffic(call: Call) -> int:
    """Bytes that a call reads and writes; what is broadcast counts once."""
    return sum(_numbers(x) * x.itemsize for x in (*call.outs, *call.ins))


def _numbers(x: Any) -> int:
    return math.prod(n for n, stride in zip(x.shape, x.strides, strict=True) if stride) if x.size else 0


def _launches(executable: CpuExecutable) -> Iterator[tuple[Region, Call]]:
    return ((region, call) for region in executable.regions for call in region.calls)


def text(executable: CpuExecutable) -> str:
    """Launches by kernel, operations, bytes, memory, and the fused groups."""
    calls = [call for _, call in _launches(executable)]
    total = sum(map(operations, calls))
    memory = executable.memory
    scratch_of = "each thread's shard" if memory.shards else "one call alone"
    lines = [
        f"{len(calls)} launches in {len(executable.regions)} regions, {executable.dead} dead ones eliminated; "
        f"{executable.describe()}",
        f"{total / 1e9:.4g} GFLOP, {sum(map(traffic, calls)) / 1e6:.4g} MB read and written",
        f"memory: {memory.arena / 1e6:.4g} MB between calls, {memory.scratch / 1e6:.4g} MB for {scratch_of}",
        "",
        f"{'region':12} {'kernel':28} {'launches':>8} {'GFLOP':>10} {'MB':>10}",
    ]
    for number, region in enumerate(executable.regions):
        by_name: dict[str, list[Call]] = {}
        for call in region.calls:
            name = str(call.kernel) + (" (Python)" if executable.how(call) == PYTHON else "")
            by_name.setdefault(name, []).append(call)
        for name, some in by_name.items():
            where = f"{number} {'by row' if region.rows else 'whole'}"
            flops, moved = sum(map(operations, some)) / 1e9, sum(map(traffic, some)) / 1e6
            lines.append(f"{where:12} {name:28} {len(some):8} {flops:10.4g} {moved:10.4g}")
    groups = [call for call in calls if isinstance(call, FusedCall) and len(call.parts) > 1]
    lines += ["", f"{len(groups)} groups of several elementwise kernels"]
    lines += [f"  {call.outs[0].shape}: {' '.join(part.kernel.name for part in call.parts)}" for call in groups]
    return "\n".join(lines)


def picture(executable: CpuExecutable) -> str:
    """An SVG: launches from left to right, memory from below to above; a box is a buffer while it is in use."""
    width, height, gap = 960, 260, 40
    memories = [
        ("between regions", executable.memory.arena, False),
        ("of a shard of rows", executable.memory.scratch, True),
    ]
    count = max(1, sum(1 for _ in _launches(executable)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 20} {2 * (height + gap) + 10}" '
        'font-family="sans-serif" font-size="13">'
    ]
    for i, (title, size, in_shard) in enumerate(memories):
        top = i * (height + gap) + gap
        label = f"memory {title}: {size / 1e6:.4g} MB, over the launches"
        parts.append(f'<text x="10" y="{top - 8}">{label}</text>')
        parts.append(f'<rect x="10" y="{top}" width="{width}" height="{height}" fill="#f4f4f4"/>')
        for buffer in executable.memory.buffers:
            if buffer.in_shard == in_shard and size:
                parts.append(_box(buffer, 10, top, width / count, height / size, height, count))
    return "\n".join([*parts, "</svg>"])


def _box(buffer: Buffer, left: float, top: float, across: float, up: float, height: float, count: int) -> str:
    last = min(buffer.last, count)
    x, wide = left + (buffer.first - 1) * across, (last - buffer.first + 1) * across
    y, tall = top + height - (buffer.start + buffer.size) * up, buffer.size * up
    colour = _COLOURS.get(buffer.family, "#bbbbbb")
    title = f"{buffer.name}, {buffer.size} bytes, launches {buffer.first} to {last}"
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{tall:.2f}" fill="{colour}" stroke="white" '
        f'stroke-width=".3"><title>{escape(title)}</title></rect>'
    )
