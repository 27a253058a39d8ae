"""Prepared data sets are whole or refused: round trips in memory and mapped, damage of every kind, writers that die."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")

from tests.conftest import ROOT  # noqa: E402
from tinymaml.tasks import checksum_block, imageset  # noqa: E402
from tinymaml.tasks.archive import DataError  # noqa: E402
from tinymaml.tasks.checksum_block import BLOCK  # noqa: E402
from tinymaml.tasks.extras import MissingExtra  # noqa: E402
from tinymaml.tasks.imageset import Part, describe, read, write  # noqa: E402

SHAPE = (4, 5, 3)
COUNTS = {"train": [3, 1, 2, 4, 2], "validation": [2], "test": [5, 2]}
RECIPE = {"source": "drawn", "ways": [1, 2]}


def images(split: str) -> list[Any]:
    rng = np.random.default_rng(len(split))
    return [rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8) for count in COUNTS[split]]


def parts() -> dict[str, Part]:
    return {
        split: Part([f"{split}/ü{c}" for c in range(len(n))], n, iter(images(split))) for split, n in COUNTS.items()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "some.h5", "some", parts(), SHAPE, RECIPE)
    return tmp_path / "some.h5"


@pytest.mark.parametrize("lazy", [False, True])
def test_everything_comes_back_as_it_was(path: Path, lazy: bool) -> None:
    for split, counts in COUNTS.items():
        found = read(path, split, lazy)
        assert (found.name, found.split, found.binary) == ("some", split, False)
        assert found.classes == [f"{split}/ü{c}" for c in range(len(counts))]
        assert found.first.dtype == np.int64
        assert found.first.tolist() == [0, *np.cumsum(counts).tolist()]
        assert type(found.images) is np.ndarray
        assert found.images.dtype == np.uint8
        assert np.array_equal(found.images, np.concatenate(images(split)))
        with pytest.raises(ValueError, match="read-only"):
            found.images[0] = 0


def test_mapped_images_are_not_read_into_memory(path: Path) -> None:
    mapped = read(path, "train", lazy=True).images
    stored = np.concatenate(images("train"))
    path.unlink()
    chosen = np.array([[7, 1], [1, 0]])  # in any order, with repetitions
    assert np.array_equal(mapped[chosen], stored[chosen])
    assert isinstance(mapped.base, np.memmap)
    assert mapped.nbytes == stored.nbytes


def test_the_header_says_what_the_file_is(path: Path) -> None:
    header = describe(path)
    assert (header["name"], header["shape"], header["recipe"]) == ("some", list(SHAPE), RECIPE)
    assert list(header["splits"]) == sorted(COUNTS)
    assert header["content"] == write(path.with_name("other.h5"), "other", parts(), SHAPE, {})


def test_the_same_images_give_the_same_bytes(path: Path) -> None:
    time.sleep(1.1)  # HDF5 may write times, in seconds
    write(path.with_name("other.h5"), "some", parts(), SHAPE, RECIPE)
    assert path.read_bytes() == path.with_name("other.h5").read_bytes()


def test_the_content_hash_is_of_images_and_classes(path: Path) -> None:
    def content(change: Any) -> str:
        changed = {split: [batch.copy() for batch in images(split)] for split in COUNTS}
        names = {split: [f"{split}/ü{c}" for c in range(len(n))] for split, n in COUNTS.items()}
        change(changed, names)
        made = {s: Part(names[s], [len(batch) for batch in changed[s]], changed[s]) for s in COUNTS}
        return write(path.with_name("other.h5"), "some", made, SHAPE, RECIPE)

    def swap(changed: Any, names: Any) -> None:
        changed["train"][0][[0, 1]] = changed["train"][0][[1, 0]]

    assert content(lambda changed, names: None) == describe(path)["content"]
    different = {
        content(
            lambda changed, names: changed["test"][1].__setitem__((0, 0, 0, 0), 255 - changed["test"][1][0, 0, 0, 0])
        ),
        content(lambda changed, names: names["test"].reverse()),
        content(lambda changed, names: changed["train"].reverse() or names["train"].reverse()),
        content(swap),
    }
    assert len(different | {describe(path)["content"]}) == 5


def test_it_is_ordinary_hdf5(path: Path) -> None:
    with h5py.File(path) as file:
        assert file["test/images"].shape == (7, *SHAPE)
        assert file["test/first"][()].tolist() == [0, 5, 7]
        assert file["test/classes"][1].decode() == "test/ü1"
        assert json.loads(file.attrs["header"])["recipe"] == RECIPE


def test_missing_files_name_the_command_that_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMAML_DATA", str(tmp_path))
    assert imageset.default_path("omniglot") == tmp_path / "omniglot.h5"
    expected = {
        "omniglot": r"omniglot\.h5 is not there: tinymaml data omniglot --from FOLDER makes it",
        "omniglot-lanczos": r"tinymaml data omniglot --resample lanczos --from FOLDER makes it",
        "omniglot-vinyals": r"tinymaml data omniglot --split vinyals --from FOLDER makes it",
        "cifar_fs": r"tinymaml data cifar_fs --from FOLDER makes it",
        "mine": r"tinymaml data folder --name mine --from FOLDER makes it",
    }
    for name, match in expected.items():
        for function in (describe, lambda path: read(path, "train")):
            with pytest.raises(FileNotFoundError, match=match):
                function(imageset.default_path(name))
    with pytest.raises(FileNotFoundError, match=r"cifar_fs --from FOLDER --out .*elsewhere.cifar_fs\.h5 makes it"):
        read(tmp_path / "elsewhere" / "cifar_fs.h5", "train")
    monkeypatch.delenv("TINYMAML_DATA")
    assert imageset.default_path("omniglot") == Path("data") / "omniglot.h5"


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path / "some.h5", "some", {"train": parts()["train"]}, SHAPE, {})
    with pytest.raises(DataError, match=r"some\.h5 has no split 'test': it has train"):
        read(tmp_path / "some.h5", "test")


def test_changed_bytes_are_refused(path: Path) -> None:
    data, train = path.read_bytes(), np.concatenate(images("train")).tobytes()
    others = (
        data.index(np.concatenate(images("test")).tobytes()),
        data.index(np.concatenate(images("validation")).tobytes()),
    )
    apart = {
        place + i
        for place, split in zip(others, ("test", "validation"), strict=True)
        for i in range(sum(COUNTS[split]) * 60)
    }
    rng = np.random.default_rng(0)
    for place in {*range(0, len(data), 37), *range(100), *range(BLOCK - 40, BLOCK + 100)} - apart:
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"some\.h5 .*tinymaml data folder --name some"):
            read(path, "train")
    path.write_bytes(data)
    assert read(path, "train").images.tobytes() == train


def test_truncated_and_longer_files_are_refused(path: Path) -> None:
    data = path.read_bytes()
    for changed in [*(data[:length] for length in [*range(0, len(data), 97), len(data) - 1]), data + b"\0"]:
        path.write_bytes(changed)
        for lazy in (False, True):
            with pytest.raises(DataError, match=r"some\.h5"):
                read(path, "train", lazy)


def test_lazy_reading_checks_all_but_the_images_and_those_of_three_classes(path: Path) -> None:
    data, train = path.read_bytes(), images("train")
    for c, noticed in enumerate([True, False, True, False, True]):
        place = data.index(train[c].tobytes())
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match=f"the images of train/ü{c} do not fit their hash"):
            read(path, "train")
        if noticed:
            with pytest.raises(DataError, match=f"the images of train/ü{c} do not fit their hash"):
                read(path, "train", lazy=True)
        else:
            assert len(read(path, "train", lazy=True).classes) == 5
    for what in ("first", "classes", "sha256"):
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            file[f"train/{what}"][...] = np.roll(file[f"train/{what}"][()], 1, axis=0)
        with pytest.raises(DataError, match=r"some\.h5"):
            read(path, "train", lazy=True)


def test_another_format_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum_block, "FORMAT", 2)
    write(path, "some", parts(), SHAPE, RECIPE)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"some\.h5 has the format 2, this tinymaml reads 1; tinymaml data .* makes it"):
        read(path, "train")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.h5"
    with h5py.File(path, "w") as file:
        file["train/images"] = np.zeros(3)
    for data in (path.read_bytes(), b"", b"a text", b"\x80\x04K\x01.", b"PK\x03\x04", b"tinymaml checkpoint\n"):
        path.write_bytes(data)
        for function in (describe, lambda path: read(path, "train")):
            with pytest.raises(DataError, match=r"some\.h5 is (no data set|empty)"):
                function(path)


def header_of(file: Any, **changes: Any) -> None:
    header = json.loads(file.attrs["header"]) | changes
    file.attrs["header"] = json.dumps({key: value for key, value in header.items() if value is not None})


def replaced(name: str, **how: Any) -> Any:
    """What puts another data set in the place of one."""

    def change(file: Any) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def linked(name: str, link: Any) -> Any:
    def change(file: Any) -> None:
        del file[name]
        file[name] = link(file)

    return change


FORGED: dict[str, Any] = {
    "no header": lambda file: file.attrs.__delitem__("header"),
    "a header of numbers": lambda file: file.attrs.update(header=np.zeros(3)),
    "a header of bytes": lambda file: file.attrs.update(header=np.bytes_(b"{}")),
    "many headers": lambda file: file.attrs.create("header", ["{}"] * 3, dtype=h5py.string_dtype()),
    "no JSON": lambda file: file.attrs.update(header="{"),
    "a deep header": lambda file: file.attrs.update(header='{"a":' * 20_000 + "1" + "}" * 20_000),
    "another header": lambda file: file.attrs.update(header="[1]"),
    "no name": lambda file: header_of(file, name=None),
    "a name that is a number": lambda file: header_of(file, name=1),
    "a shape of text": lambda file: header_of(file, shape=["4", "5", "3"]),
    "a shape of two": lambda file: header_of(file, shape=[4, 5]),
    "a negative shape": lambda file: header_of(file, shape=[4, 5, -3]),
    "another shape": lambda file: header_of(file, shape=[5, 4, 3]),
    "other splits": lambda file: header_of(file, splits={"train": 1}),
    "unknown splits": lambda file: header_of(file, splits={"new": "0"}),
    "another hash": lambda file: header_of(file, content="0" * 64),
    "binary is a number": lambda file: header_of(file, binary=1),
    "no group": lambda file: file.__delitem__("train"),
    "a data set for a group": linked("train", lambda file: np.zeros(3)),
    "a link to another group": linked("train", lambda file: h5py.SoftLink("/test")),
    "a link to itself": linked("train", lambda file: h5py.SoftLink("/train")),
    "a link to another file": linked("train", lambda file: h5py.ExternalLink("/dev/zero", "/x")),
    "the file in itself": linked("train", lambda file: file["/"]),
    "another split": linked("train", lambda file: file["test"]),
    "a type for images": linked("train/images", lambda file: np.dtype("u1")),
    "a group for images": lambda file: (file.__delitem__("train/images"), file.create_group("train/images")),
    "no images": lambda file: file.__delitem__("train/images"),
    "no first": lambda file: file.__delitem__("train/first"),
    "no values": replaced("train/first", data=h5py.Empty("i8")),
    "text for numbers": replaced("train/first", data=["a"] * 6, dtype=h5py.string_dtype()),
    "classes of any length": replaced("train/classes", data=["a"] * 5, dtype=h5py.string_dtype()),
    "classes that are no text": replaced("train/classes", data=np.array([b"\xff"] * 5)),
    "fewer classes": replaced("train/classes", data=np.array([b"a"] * 4)),
    "classes in a table": replaced("train/classes", data=np.zeros((5, 2), "S3")),
    "fractions for first": replaced("train/first", data=np.arange(6.0)),
    "first that goes back": replaced("train/first", data=np.array([0, 3, 2, 6, 10, 12])),
    "first beyond the images": replaced("train/first", data=np.array([0, 3, 4, 6, 10, 2**40])),
    "negative first": replaced("train/first", data=np.array([-5, 3, 4, 6, 10, 12])),
    "first in other bytes": replaced("train/first", data=np.array([0, 3, 4, 6, 10, 12], ">i8").astype("i4")),
    "short hashes": replaced("train/sha256", data=np.zeros((5, 31), np.uint8)),
    "hashes of any shape": replaced("train/sha256", data=np.zeros((32, 5), np.uint8)),
    "images of floats": replaced("train/images", data=np.zeros((12, *SHAPE))),
    "images of another shape": replaced("train/images", data=np.zeros((12, 5, 4, 3), np.uint8)),
    "images of a record": replaced("train/images", shape=(12, *SHAPE), dtype=[("a", "u1")]),
    "more images than bytes": replaced("train/images", shape=(10**9, *SHAPE), dtype="u1"),
    "as many images as wrap round": replaced("train/images", shape=(2**32, 2**32, 1, 1), dtype="u1"),
    "packed images": replaced("train/images", shape=(10**9, *SHAPE), dtype="u1", compression="gzip"),
    "a huge piece": replaced("train/images", shape=(12,), dtype="u1", chunks=(2**28,), maxshape=(None,)),
    "images in another file": replaced("train/images", shape=(720,), dtype="u1", external=[("/dev/zero", 0, 720)]),
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("lazy", [False, True])
def test_forged_files_with_right_checksums_are_refused(path: Path, what: str, lazy: bool) -> None:
    with h5py.File(path, "r+") as file:
        FORGED[what](file)
    checksum_block.write_block(path, [])
    with pytest.raises(DataError, match=r"some\.h5 .*tinymaml data folder --name some") as refused:
        read(path, "train", lazy)
    assert "\n" not in str(refused.value)


def sealed(facts: Any) -> bytes:
    """A first block with a checksum that fits, whatever is in it."""
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    head = (b"tinymaml images\n" + text).ljust(BLOCK - 32, b"\0")
    return head + hashlib.sha256(head).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"},
        {"format": True},
        {"size": 1.5},
        {"size": None},
        {"images": 3},
        {"images": [1, 2]},
        {"images": [[BLOCK]]},
        {"images": [["a", "b"]]},
        {"images": [[BLOCK, -BLOCK]] * 100},
        {"images": [[0, 100]]},
        {"images": [[BLOCK + 100, 50], [BLOCK, 50]]},
        {"images": [[BLOCK, 10**12]]},
        {"sha256": 5},
        {"more": 1},
        b"{",
        b"[1]",
        b"",
        b"[" * 3000,
        b"\xff",
    ],
    ids=str,
)
def test_a_first_block_that_says_something_else_is_refused(path: Path, changes: Any) -> None:
    data = path.read_bytes()
    facts = json.loads(data[16 : BLOCK - 32].rstrip(b"\0"))
    path.write_bytes(sealed(changes if isinstance(changes, bytes) else facts | changes) + data[BLOCK:])
    with pytest.raises(DataError, match=r"some\.h5 .*tinymaml data folder --name some") as refused:
        read(path, "train")
    assert "\n" not in str(refused.value)


BATCH = np.zeros((2, *SHAPE), np.uint8)
WRONG: dict[str, tuple[dict[str, Part], str]] = {
    "a class in two splits": (
        {"train": Part(["a", "b"], [2, 2], [BATCH] * 2), "test": Part(["b"], [2], [BATCH])},
        "some: the class b is in both train and test",
    ),
    "a class twice": ({"train": Part(["a", "a"], [2, 2], [BATCH] * 2)}, "some: the class a is twice in train"),
    "no images": ({"train": Part(["a"], [0], [BATCH[:0]])}, "the class a of train has no images"),
    "no classes": ({"train": Part([], [], [])}, "train has 0 classes"),
    "counts missing": ({"train": Part(["a"], [], [])}, "train has 1 classes and 0 counts"),
    "no splits": ({}, "got none"),
    "another split": ({"val": Part(["a"], [2], [BATCH])}, "splits must be some of train, validation, test, got val"),
    "no name": ({"train": Part([""], [2], [BATCH])}, "has the name ''"),
    "more images": ({"train": Part(["a"], [1], [BATCH])}, "a: images of uint8"),
    "another shape": ({"train": Part(["a"], [2], [BATCH[:, 1:]])}, "a: images of uint8"),
    "another kind": ({"train": Part(["a"], [2], [BATCH.astype(np.int16)])}, "a: images of int16"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_data_set_is_not_written(tmp_path: Path, what: str) -> None:
    wrong, match = WRONG[what]
    with pytest.raises(DataError, match=match):
        write(tmp_path / "some.h5", "some", wrong, SHAPE, {})
    assert not list(tmp_path.iterdir())


def test_too_few_and_too_many_batches_are_not_written(tmp_path: Path) -> None:
    for batches in ([BATCH], [BATCH] * 3):
        with pytest.raises(ValueError, match="zip"):
            write(tmp_path / "some.h5", "some", {"train": Part(["a", "b"], [2, 2], batches)}, SHAPE, {})
        assert not list(tmp_path.iterdir())


def test_binary_images_are_held_to_it(tmp_path: Path) -> None:
    batch = BATCH.copy()
    batch[0, 0] = 255
    write(tmp_path / "some.h5", "some", {"train": Part(["a"], [2], [batch])}, SHAPE, {}, binary=True)
    assert read(tmp_path / "some.h5", "train").binary
    batch[0, 0, 0] = 254
    with pytest.raises(DataError, match="a: a binary image has a value that is neither 0 nor 255"):
        write(tmp_path / "some.h5", "some", {"train": Part(["a"], [2], [batch])}, SHAPE, {}, binary=True)


def test_a_preparation_that_fails_leaves_the_old_file(path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield BATCH
        raise DataError("b.png is not a whole image")

    before = path.read_bytes()
    with pytest.raises(DataError, match=r"b\.png"):
        write(path, "some", {"train": Part(["a", "b"], [2, 2], broken())}, SHAPE, {})
    assert [p.name for p in path.parent.iterdir()] == ["some.h5"]
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_writer_killed_in_the_middle_leaves_the_old_file(path: Path, moment: str) -> None:
    before = path.read_bytes()
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nimport numpy as np\nfrom tinymaml.tasks import imageset\n"
        f"os.{moment} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "part = imageset.Part(['a'], [2], [np.zeros((2, 4, 5, 3), np.uint8)])\n"
        "imageset.write(Path(sys.argv[1]), 'some', {'train': part}, (4, 5, 3), {})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_a_missing_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for function in (describe, lambda path: read(path, "train"), lambda path: write(path, "some", parts(), SHAPE, {})):
        with pytest.raises(MissingExtra, match=r"h5py is not installed: pip install 'tinymaml\[data\]'"):
            function(path)
