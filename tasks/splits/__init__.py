"""Which classes train, validate and test: fixed lists, written down in JSON files beside this one, each with its hash.

- `omniglot`: the characters sorted by the SHA-256 of "Alphabet/characterNN", of which the first 1100 train, the next
  100 validate and the last 423 test. The paper's split depends on the order in which a file system lists folders.
- `omniglot-vinyals`: by alphabet, 1028 / 172 / 423 (Vinyals et al. 2016).
- `miniimagenet`: 64 / 16 / 20 WordNet ids (Ravi and Larochelle 2017).
- `cifar_fs`: 64 / 16 / 20 classes of CIFAR-100 (Bertinetto et al. 2019).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from tinymaml.tasks.random_streams import SPLITS

NAMES = ("omniglot", "omniglot-vinyals", "miniimagenet", "cifar_fs")


def content(name: str) -> dict[str, Any]:
    """What a JSON file of this package holds."""
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)
    return value


def digest(classes: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of the lists of classes as compact JSON, in the order train, validation, test."""
    ordered = {split: list(classes[split]) for split in SPLITS}
    return hashlib.sha256(json.dumps(ordered, separators=(",", ":")).encode()).hexdigest()


def load(name: str) -> dict[str, list[str]]:
    """The classes of each split, sorted by name.

    Args:
        name: one of `NAMES`.

    Raises:
        ValueError: there is no such split, or its file was changed.
    """
    if name not in NAMES:
        raise ValueError(f"split must be one of {', '.join(NAMES)}, got {name!r}")
    stored = content(name)
    classes = {split: list(stored[split]) for split in SPLITS}
    if digest(classes) != stored["sha256"]:
        raise ValueError(f"tinymaml/tasks/splits/{name}.json was changed: its classes do not fit its hash")
    return classes
