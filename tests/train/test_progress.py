"""Progress: lines that fit, with the figure that counts."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys

import pytest

from tinymaml.train.progress import Progress, described, fitting

PARTS = {"seconds_sampling": 1.5, "seconds_adaptation": 0.25, "seconds_outer": 3.25}
RETURNS = {"loss": -0.1234, **{f"return_{k}": -50.0 + 300.55 * k for k in range(3)}, "kl": 0.01, **PARTS}
IMAGES = {
    "loss": 0.1234,
    "accuracy": 0.9812,
    "images_per_second": 1234.5,
    "validation": 0.02,
    "validation_accuracy": 0.98,
}
CASES: dict[str, tuple[dict[str, float], str]] = {
    "returns": (RETURNS, "return 551.1 after 2 steps"),
    "pooled": ({"loss": 1.0, "return_0": -12.34, **PARTS}, "return -12.3"),
    "images": (IMAGES, "accuracy 98.1%"),
    "errors": ({"loss": 0.5, "validation": 0.25}, "loss 0.5000"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["maml", "a-method-that-somebody-named-at-length"])
@pytest.mark.parametrize("iterations", [12, 6_000_000])
def test_lines_fit_80_columns_and_keep_the_figure_that_counts(
    capsys: pytest.CaptureFixture[str], case: str, name: str, iterations: int
) -> None:
    figures, counts = CASES[case]
    Progress(name, iterations).update(iterations, 1e5, **figures)
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 80
    assert counts in line
    assert f" {iterations} of {iterations}" in line


def test_what_is_left_out_first(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("maml", 60_000).update(60_000, 10_677.0, **IMAGES)
    assert capsys.readouterr().err == (
        "maml: iteration 60000 of 60000, accuracy 98.1%, validation 98.0%, 0:00:00 left\n"
    )
    Progress("maml", 300).update(300, 1627.0, **RETURNS)
    assert capsys.readouterr().err == "maml: iteration 300 of 300, return 551.1 after 2 steps, 0:00:00 left\n"
    assert fitting(described(IMAGES), 80) == ["loss 0.1234", "accuracy 98.1%", "validation 98.0%", "1234 images/s"]
    assert fitting(described(RETURNS), 80) == ["loss -0.1234", "return -50.0 before", "return 551.1 after 2 steps"]
    assert fitting(described(IMAGES), 1) == ["accuracy 98.1%"]
    assert fitting(described({}), 80) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("columns", [60, 80, 81, 200])
def test_a_bar_fits_the_terminal_and_keeps_the_figure_that_counts(
    monkeypatch: pytest.MonkeyPatch, columns: int, case: str
) -> None:
    pytest.importorskip("tqdm", reason="bars need tqdm: pip install 'tinymaml[train]'")
    import fcntl
    import pty
    import termios

    figures, counts = CASES[case]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        progress = Progress("pretrained", 60_000)
        progress._bar.mininterval = 0
        for iteration in (100, 59_900):
            progress.update(iteration, iteration * 10.0, **figures)
        progress.close()
    text = b""
    with contextlib.suppress(OSError):  # the end
        while part := os.read(ours, 1 << 16):
            text += part
    os.close(ours)
    lines = [line for line in re.split("[\r\n]+", text.decode()) if line.strip()]
    assert all(len(line) < columns for line in lines)
    assert any(counts in line and "pretrained 100%|" in line for line in lines)
    if columns == 200:
        assert any("59900/60000, " in line and line.rstrip().endswith(" left") for line in lines)
