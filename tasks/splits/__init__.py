"""Which classes train, validate and test: by a hash of their names, or by fixed lists.

The lists are JSON files beside this one, each with its hash:

- `omniglot`: the characters sorted by the SHA-256 of "Alphabet/characterNN", of which the first 1100 train, the next
  100 validate and the last 423 test. The paper's split depends on the order in which a file system lists folders.
- `omniglot-vinyals`: by alphabet, 1028 / 172 / 423 (Vinyals et al. 2016).
- `miniimagenet`: 64 / 16 / 20 WordNet ids (Ravi and Larochelle 2017).
- `cifar_fs`: 64 / 16 / 20 classes of CIFAR-100 (Bertinetto et al. 2019).
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from tinymaml.tasks.random_streams import SPLITS

NAMES = ("omniglot", "omniglot-vinyals", "miniimagenet", "cifar_fs")
_ROUNDING = 1e-6  # by which shares may miss 1


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


def check_shares(shares: Sequence[float]) -> None:
    """Raises ValueError if these are not three positive shares that sum to 1."""
    total = math.fsum(shares)
    if len(shares) != len(SPLITS) or not min(shares) > 0 or not abs(total - 1) <= _ROUNDING:
        text = " ".join(f"{share:g}" for share in shares)
        raise ValueError(
            f"split: expected the shares of {', '.join(SPLITS)}, positive and with the sum 1; got {text}, "
            f"whose sum is {total:g}"
        )


def by_hash(classes: Iterable[str], shares: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Divide classes by shares, whatever their order: the first in the order of their hashes train, and so on.

    The hash is the SHA-256 of "SEED/CLASS", in Unicode's composed form.

    Args:
        shares: of the classes, for train, validation and test.

    Returns:
        the classes of each split, sorted by name.

    Raises:
        ValueError: as `check_shares`, or a split would have no classes.
    """
    check_shares(shares)

    def order(label: str) -> tuple[bytes, str]:
        text = unicodedata.normalize("NFC", f"{seed}/{label}")
        return hashlib.sha256(text.encode()).digest(), label

    ordered = sorted(classes, key=order)
    ends = [math.floor(math.fsum(shares[:i]) * len(ordered) + 0.5) for i in range(len(shares))] + [len(ordered)]
    parts = {split: sorted(ordered[ends[i] : ends[i + 1]]) for i, split in enumerate(SPLITS)}
    if not all(parts.values()):
        text = ", ".join(f"{split} {len(labels)}" for split, labels in parts.items())
        raise ValueError(f"split: of {len(ordered)} classes there would be {text}; each needs at least one")
    return parts
