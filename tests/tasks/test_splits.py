"""The splits are fixed: their hashes, sizes and rules; no class is in two of them, and they are the published ones."""

from __future__ import annotations

import csv
import hashlib
import json
from typing import Any

import pytest

from tests.cases.image_cases import real
from tinymaml.tasks import splits

PUBLISHED = {
    "omniglot": ((1100, 100, 423), "7501b8384b4933d05931a4679490e602b27a0aa19509418a5413738410d7494c"),
    "omniglot-vinyals": ((1028, 172, 423), "63fadef8835c65c43b0b49929e16a80c09d08a396c3746db6a2cc5142df95a56"),
    "miniimagenet": ((64, 16, 20), "b316be4300f2301abb0042558d120133b724a89cc79f1063622a5d821ddbe2a4"),
    "cifar_fs": ((64, 16, 20), "3a44131bec1805e1b75433a77d138f8115978f19ef8b36d0fc2d9212726b1f95"),
}


def test_all_are_known() -> None:
    assert tuple(PUBLISHED) == splits.NAMES


@pytest.mark.parametrize("name", splits.NAMES)
def test_no_class_is_in_two_splits(name: str) -> None:
    classes = splits.load(name)
    assert list(classes) == ["train", "validation", "test"]
    everything = [label for labels in classes.values() for label in labels]
    assert len(everything) == len(set(everything)) == sum(PUBLISHED[name][0])
    assert all(labels == sorted(labels) for labels in classes.values())


@pytest.mark.parametrize("name", splits.NAMES)
def test_splits_stay_what_they_are(name: str) -> None:
    sizes, digest = PUBLISHED[name]
    classes = splits.load(name)
    assert tuple(map(len, classes.values())) == sizes
    assert splits.digest(classes) == splits.content(name)["sha256"] == digest


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = splits.content("cifar_fs")
    changed["train"][0], changed["test"][0] = changed["test"][0], changed["train"][0]
    monkeypatch.setattr(splits, "content", lambda name: changed)
    with pytest.raises(ValueError, match=r"cifar_fs\.json was changed"):
        splits.load("cifar_fs")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"split must be one of omniglot, .* got '\.\./counter'"):
        splits.load("../counter")


def test_omniglots_split_follows_its_rule() -> None:
    classes = splits.load("omniglot")
    everything = [label for labels in classes.values() for label in labels]
    everything.sort(key=lambda label: hashlib.sha256(label.encode()).hexdigest())
    assert classes["train"] == sorted(everything[:1100])
    assert classes["validation"] == sorted(everything[1100:1200])
    assert classes["test"] == sorted(everything[1200:])


def test_both_splits_of_omniglot_have_the_same_characters() -> None:
    one, other = ({label for labels in splits.load(name).values() for label in labels} for name in splits.NAMES[:2])
    assert one == other


def test_the_vinyals_split_is_the_published_one() -> None:
    folder = real("omniglot/omniglot_vinyals_train.json") / "omniglot"
    for split, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        published: dict[str, Any] = json.loads((folder / f"omniglot_vinyals_{file}.json").read_text())
        alphabets = [item for part in published.values() for item in part.items()]
        expected = sorted(f"{alphabet}/{name}" for alphabet, names in alphabets for name in names)
        assert splits.load("omniglot-vinyals")[split] == expected


def test_the_cifar_fs_split_is_the_published_one() -> None:
    published = json.loads((real("cifar_fs/cifar_fs_fc100.json") / "cifar_fs" / "cifar_fs_fc100.json").read_text())
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert splits.load("cifar_fs")[split] == sorted(published["cifar_fs"][key])


def test_the_miniimagenet_split_is_the_published_one() -> None:
    folder = real("miniimagenet/miniImagenet_ravi_train.csv") / "miniimagenet"
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        with (folder / f"miniImagenet_ravi_{key}.csv").open(newline="") as file:
            assert splits.load("miniimagenet")[split] == sorted({row["label"] for row in csv.DictReader(file)})


def test_classes_by_hash() -> None:
    """The order they come in does not matter, nor how an accent is written; shares may be rounded."""
    labels = [f"class-{i}" for i in range(103)]
    parts = splits.by_hash(labels, (0.6, 0.2, 0.2), 0)
    assert {split: len(part) for split, part in parts.items()} == {"train": 62, "validation": 20, "test": 21}
    assert sorted(label for part in parts.values() for label in part) == sorted(labels)
    assert list(parts) == ["train", "validation", "test"]
    assert all(part == sorted(part) for part in parts.values())
    assert splits.by_hash(reversed(labels), (0.6, 0.2, 0.2), 0) == parts
    assert splits.by_hash(labels, (0.6, 0.2, 0.2), 1) != parts
    assert splits.by_hash(labels, (1 / 3, 1 / 3, 1 / 3), 0)["train"]
    # Written down: the same classes on every machine.
    assert splits.by_hash("abcdefgh", (0.5, 0.25, 0.25), 0) == {
        "train": ["b", "c", "f", "g"],
        "validation": ["d", "e"],
        "test": ["a", "h"],
    }
    shares = (0.5, 0.25, 0.25)
    composed, decomposed = (
        splits.by_hash([accented, *"abcdefg"], shares, 0) for accented in ("caf\u00e9", "cafe\u0301")
    )
    for split, part in composed.items():
        assert ("caf\u00e9" in part) == ("cafe\u0301" in decomposed[split])
