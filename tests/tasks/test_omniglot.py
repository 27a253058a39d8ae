"""Omniglot: its preparation from archives and folders, what is refused, and the real files to the last image."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
Image = pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'tinymaml[data]'")

from tests.cases.image_cases import PICKLE, encoded, lay_out, noise, pack, real  # noqa: E402
from tinymaml.tasks import omniglot, splits  # noqa: E402
from tinymaml.tasks.archive import DataError  # noqa: E402
from tinymaml.tasks.imageset import describe, read  # noqa: E402

# The hashes of what the authors' files give.
CONTENT = {
    ("fixed", "nearest"): "b8c460fe09251fa407ba002d8e3b0ef74b1bc89417a646225725dce757c8cb7e",
    ("vinyals", "nearest"): "535d54d389a11815e70e441217328a564b1658c71b34f0841042d412e7672730",
}
SPLIT = {"train": ["Aa/character01", "Bb/character01"], "validation": ["Aa/character02"], "test": ["Bb/character02"]}
DRAWERS = 3


def drawing(seed: int, size: int = 105) -> bytes:
    """A PNG image of one bit, black on white."""
    return encoded(np.random.default_rng(seed).random((size, size)) < 0.9, mode="1")


def name(alphabet: str, character: int, drawer: int) -> str:
    return f"{alphabet}/character{character:02}/{100 + character:04}_{drawer:02}.png"


FILES = {
    f"{part}/{name(alphabet, character, drawer)}": drawing(zlib.crc32(name(alphabet, character, drawer).encode()))
    for part, alphabet in (("images_background", "Aa"), ("images_evaluation", "Bb"))
    for character in (1, 2)
    for drawer in range(1, DRAWERS + 1)
}
ONE = f"images_background/{name('Aa', 1, 2)}"


def digest(place: str) -> str:
    found = hashlib.sha256()
    for file, data in sorted(FILES.items()):
        if file.startswith(place):
            found.update(f"{file.removeprefix(place + '/')}\0{len(data)}\0".encode() + data)
    return found.hexdigest()


@pytest.fixture(autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Omniglot of four characters, each drawn by three."""
    if "real" not in request.node.name:
        known = {place: digest(place) for place in ("images_background/Aa", "images_evaluation/Bb")}
        monkeypatch.setattr(omniglot, "IMAGES", DRAWERS)
        monkeypatch.setattr(splits, "load", lambda name: SPLIT)
        monkeypatch.setattr(splits, "content", lambda name: {"sha256": known})


def archives(folder: Path, files: dict[str, bytes]) -> Path:
    for part in omniglot.PARTS:
        pack(folder / f"{part}.zip", {name: data for name, data in files.items() if name.startswith(part)})
    return folder


@pytest.mark.parametrize("source", [archives, lay_out])
def test_small(tmp_path: Path, source: Callable[[Path, Any], Path]) -> None:
    said: list[tuple[int, int]] = []
    target = tmp_path / "some.h5"
    content = omniglot.prepare(source(tmp_path / "in", FILES), target, report=lambda *now: said.append(now))
    assert said[-1] == (12, 12)
    header = describe(target)
    assert (header["name"], header["shape"], header["content"]) == ("omniglot", [28, 28, 1], content)
    assert header["recipe"]["resample"] == "nearest"
    for split, classes in SPLIT.items():
        found = read(target, split)
        assert found.binary
        assert found.classes == classes
        assert found.first.tolist() == [DRAWERS * c for c in range(len(classes) + 1)]
        for c, label in enumerate(classes):
            for drawer in range(DRAWERS):
                part = "images_background" if label.startswith("Aa") else "images_evaluation"
                picture = Image.open(io.BytesIO(FILES[f"{part}/{name(label[:2], int(label[-2:]), drawer + 1)}"]))
                # As the authors asked Pillow for it, who takes the nearest pixel for images of one bit.
                authors = np.asarray(picture.resize((28, 28), Image.Resampling.LANCZOS))
                assert np.array_equal(found.images[c * DRAWERS + drawer, ..., 0], 255 * (1 - authors.astype(int)))


def test_lanczos_is_another_data_set(tmp_path: Path) -> None:
    content = omniglot.prepare(archives(tmp_path, FILES), tmp_path / "nearest.h5")
    assert omniglot.prepare(tmp_path, tmp_path / "lanczos.h5", resample="lanczos") != content
    grey = read(tmp_path / "lanczos.h5", "train")
    assert not grey.binary
    assert len(np.unique(grey.images)) > 50
    picture = Image.open(io.BytesIO(FILES[ONE])).convert("L").resize((28, 28), Image.Resampling.LANCZOS)
    assert np.array_equal(grey.images[1, ..., 0], 255 - np.asarray(picture))
    assert describe(tmp_path / "lanczos.h5")["recipe"]["resample"] == "lanczos"


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    for settings in ({"split": "random"}, {"resample": "bicubic"}):
        with pytest.raises(ValueError, match="split must be one of fixed, vinyals, resample one of nearest, lanczos"):
            omniglot.prepare(archives(tmp_path / "in", FILES), tmp_path / "some.h5", **settings)


def claims(width: int, height: int) -> bytes:
    """A PNG file whose head says a size that its data do not have."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    old = FILES[ONE]
    return old[:12] + head + struct.pack(">I", zlib.crc32(head)) + old[33:]


def changed(**new: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes | None] = {**FILES, **{ONE if name == "one" else name: data for name, data in new.items()}}
    return {name: data for name, data in files.items() if data is not None}


OTHER = f"images_background/{name('Aa', 1, 4)}"
UNKNOWN = {f"images_background/{name('Cc', 1, d)}": FILES[ONE] for d in (1, 2, 3)}
FURTHER = {f"images_background/{name('Aa', 3, d)}": FILES[ONE] for d in (1, 2, 3)}
WITHOUT = {name: None for name in FILES if "Aa/character02" in name}
DAMAGED: dict[str, tuple[dict[str, bytes], str]] = {
    "truncated": (changed(one=FILES[ONE][:100]), "0101_02.png.* is not a whole PNG image"),
    "without its end": (changed(one=FILES[ONE][:-12]), "0101_02.png.* is not a whole PNG image"),
    "empty": (changed(one=b""), "0101_02.png.* is not a whole PNG image"),
    "no image": (changed(one=b"text"), "0101_02.png.* is not a whole PNG image"),
    "a pickle inside": (changed(one=PICKLE), "0101_02.png.* is not a whole PNG image"),
    "of another size": (changed(one=drawing(0, 28)), "0101_02.png.* has 28 x 28 pixels, expected 105 x 105"),
    "a bomb": (changed(one=claims(50_000, 50_000)), "0101_02.png.* could be decompression bomb"),
    "a smaller bomb": (changed(one=claims(12_000, 12_000)), "0101_02.png.* could be decompression bomb"),
    "a still smaller one": (changed(one=claims(9_000, 7_000)), "0101_02.png.* has 9000 x 7000 pixels, expected"),
    "claiming a size": (changed(one=claims(105, 50)), "0101_02.png.* has 105 x 50 pixels, expected"),
    "GIF called PNG": (changed(one=encoded(noise(0, 105, 105, 1), "GIF")), "0101_02.png.* is not a whole PNG image"),
    "another drawing": (changed(one=drawing(10**6)), "the files of Aa are not Omniglot's"),
    "a missing drawing": (changed(one=None), "Aa/character01 has 2 images, not 3"),
    "a further drawing": (changed(**{OTHER: FILES[ONE]}), "Aa/character01 has 4 images, not 3"),
    "a missing character": (changed(**WITHOUT), "the files of Aa are not Omniglot's, or some are missing"),
    "a further character": (changed(**FURTHER), "the files of Aa are not Omniglot's"),
    "a further alphabet": (changed(**UNKNOWN), "has a character that is not Omniglot's: Cc/character01"),
    "a file out of place": (changed(**{"images_background/Aa/one.png": b""}), "Aa/one.png.* is no file of Omniglot"),
    "a file of another kind": (changed(**{f"{ONE}.txt": b""}), "0101_02.png.txt.* is no file of Omniglot"),
    "a pickle beside": (changed(**{"images_background/Aa/data.pkl": PICKLE}), "data.pkl.* is a pickle"),
    "a large file": (changed(one=FILES[ONE] + bytes(1 << 16)), "0101_02.png.* bytes, more than the 65,536 allowed"),
}


@pytest.mark.parametrize("source", [archives, lay_out])
@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_files_are_named_and_nothing_is_written(
    tmp_path: Path, what: str, source: Callable[[Path, Any], Path]
) -> None:
    files, match = DAMAGED[what]
    with pytest.raises(DataError, match=match):
        omniglot.prepare(source(tmp_path / "in", files), tmp_path / "out" / "some.h5")
    assert not (tmp_path / "out").exists()


def test_truncation_anywhere_is_refused(tmp_path: Path) -> None:
    for length in range(0, len(FILES[ONE]), 50):
        lay_out(tmp_path, changed(one=FILES[ONE][:length]))
        with pytest.raises(DataError, match=r"0101_02\.png"):
            omniglot.prepare(tmp_path, tmp_path / "some.h5")


def test_missing_parts_are_named(tmp_path: Path) -> None:
    source = archives(tmp_path / "in", FILES)
    (source / "images_evaluation.zip").unlink()
    with pytest.raises(DataError, match=r"has neither images_evaluation\.zip nor a folder images_evaluation"):
        omniglot.prepare(source, tmp_path / "some.h5")
    with pytest.raises(DataError, match=r"nowhere has neither images_background\.zip"):
        omniglot.prepare(tmp_path / "nowhere", tmp_path / "some.h5")


def test_a_character_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    files = changed(**{ONE.replace("0101_02", "0102_02"): FILES[ONE]})
    with pytest.raises(DataError, match="Aa/character01 has 4 images, not 3"):
        omniglot.prepare(archives(tmp_path, files), tmp_path / "some.h5")
    path = tmp_path / "images_background.zip"
    other = ONE.replace("_02.png", "_03.png")
    path.write_bytes(pack(path, changed(**{other: FILES[ONE]})).read_bytes().replace(ONE.encode(), other.encode()))
    with pytest.raises(DataError, match=r"0101_03\.png is in .*images_background\.zip twice"):
        omniglot.prepare(tmp_path, tmp_path / "some.h5")
    assert not (tmp_path / "some.h5").exists()


def test_downloads_that_are_there_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives(tmp_path, FILES)
    (tmp_path / "images_evaluation.zip").unlink()
    with pytest.raises(DataError, match=r"images_background\.zip is not the authors' archive"):
        omniglot.fetch(tmp_path)
    asked: list[Any] = []
    data = (tmp_path / "images_background.zip").read_bytes()
    monkeypatch.setitem(omniglot.ARCHIVES, "images_background", (len(data), hashlib.sha256(data).hexdigest()))
    monkeypatch.setattr(omniglot, "download", lambda *args: asked.append(args))
    omniglot.fetch(tmp_path)
    size, expected = omniglot.ARCHIVES["images_evaluation"]
    address = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_evaluation.zip"
    assert asked == [(address, tmp_path / "images_evaluation.zip", size, expected, None)]


@pytest.fixture(scope="module")
def real_omniglot() -> Path:
    return real("omniglot/images_background.zip", "omniglot/images_evaluation.zip") / "omniglot"


@pytest.mark.parametrize("split", ["fixed", "vinyals"])
def test_real(real_omniglot: Path, tmp_path: Path, split: str) -> None:
    target = tmp_path / "omniglot.h5"
    content = omniglot.prepare(real_omniglot, target, split=split)
    assert content == describe(target)["content"] == CONTENT[split, "nearest"]
    classes = splits.load(omniglot.SPLITS[split])
    seen: set[str] = set()
    for part in ("train", "validation", "test"):
        found = read(target, part)
        assert found.classes == classes[part]
        assert found.images.shape == (20 * len(classes[part]), 28, 28, 1)
        assert np.array_equal(np.diff(found.first), np.full(len(classes[part]), 20))
        assert np.isin(found.images, (0, 255)).all()
        assert 0.05 < (found.images > 0).mean() < 0.12  # the ink, not the paper
        seen |= {image.tobytes() for image in found.images}
    assert len(seen) > 32_000
    with zipfile.ZipFile(real_omniglot / "images_background.zip") as archive:
        picture = Image.open(archive.open("images_background/Latin/character01/0683_05.png"))
        expected = 255 * (1 - np.asarray(picture.resize((28, 28), Image.Resampling.LANCZOS)).astype(int))
    (part,) = [part for part in classes if "Latin/character01" in classes[part]]
    found = read(target, part, lazy=True)
    image = found.images[found.first[found.classes.index("Latin/character01")] + 4, ..., 0]
    assert np.array_equal(image, expected)


@pytest.mark.slow
def test_real_unpacked_gives_the_same(real_omniglot: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_omniglot / "images_background.zip") as archive:
        archive.extractall(tmp_path / "in")
    shutil.copy(real_omniglot / "images_evaluation.zip", tmp_path / "in")
    assert omniglot.prepare(tmp_path / "in", tmp_path / "omniglot.h5") == CONTENT["fixed", "nearest"]
