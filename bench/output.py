"""What the parts found, as a file of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinymaml.tasks.atomic_files import replacing

Row = dict[str, Any]


def write_json(path: Path, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Under a temporary name first, so that there is never half a file."""
    content = {"command": " ".join(["python -m bench", *sys.argv[1:]]), "machine": machine, "rows": rows}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """(machine, rows) of a file that `write_json` wrote. Raises SystemExit if it is none."""
    try:
        content = json.loads(path.read_bytes())
        return dict(content["machine"]), list(content["rows"])
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f"{path} holds no results of the bench: give a file that --json wrote") from None
