"""The examples of docs/meta-rl.md run, and its commands are ones that there are."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("gymnasium", reason="environments need gymnasium: pip install 'tinymaml[rl]'")
pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")

from tests.conftest import ROOT
from tinymaml.cli.main import _parser
from tinymaml.experiments.registry import EXPERIMENTS, GENERAL

TEXT = (ROOT / "docs" / "meta-rl.md").read_text(encoding="utf-8")


def test_examples(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert examples
    for code in examples:
        names: dict[str, object] = {}
        exec(compile(code, "docs/meta-rl.md", "exec"), names)
    assert "(20,)" in capsys.readouterr().out


def test_commands() -> None:
    commands = re.findall(r"^    tinymaml (.*?)(?:  .*)?$", TEXT, re.MULTILINE)
    assert len(commands) >= 4
    parser = _parser({**EXPERIMENTS, **GENERAL})
    for command in commands:
        parser.parse_args(command.split())
