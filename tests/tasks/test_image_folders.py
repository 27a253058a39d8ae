"""CIFAR-FS, MiniImagenet and folders of one's own: what they give, and what is refused with nothing written."""

from __future__ import annotations

import hashlib
import io
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
from tinymaml.tasks import cifar_fs, folder, miniimagenet, splits  # noqa: E402
from tinymaml.tasks.archive import DataError  # noqa: E402
from tinymaml.tasks.image_decoding import decode  # noqa: E402
from tinymaml.tasks.imageset import describe, read  # noqa: E402

Source = Callable[[Path, dict[str, bytes]], Path]


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    return pack(path.with_name("in.zip"), files)


def without(files: dict[str, bytes], text: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if text not in name}


# Single images


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_truncated_images_are_refused(form: str) -> None:
    data = encoded(noise(0, 30, 20), form)
    assert decode(data, "one", formats=(form,)).size == (20, 30)
    end = len(data) if form == "PNG" else len(data) - 2  # the last two bytes of a JPEG file only say that it ends
    for length in range(0, end, 7):
        with pytest.raises(DataError, match=f"one is not a whole {form} image"):
            decode(data[:length], "one", formats=(form,))


def test_images_that_would_lose_something_are_refused() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes(range(30)) for _ in range(5))
    colour = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(lines))
    for data in (encoded(noise(0, 5, 5, 1).astype(np.uint16)), b"\x89PNG\r\n\x1a\n" + colour + chunk(b"IEND", b"")):
        assert Image.open(io.BytesIO(data)).size == (5, 5)
        with pytest.raises(DataError, match="one has 16 bits a channel; at most 8 are read"):
            decode(data, "one", formats=("PNG",))
    with pytest.raises(DataError, match="one is not a whole PNG or JPEG image"):
        decode(encoded(noise(0, 5, 5), "BMP"), "one", formats=("PNG", "JPEG"))


def test_images_with_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    data = bytearray(encoded(noise(0, 16, 16), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, place, 9000, 9000)
    with pytest.raises(DataError, match="one has 9000 x 9000 pixels, more than the 67,108,864 allowed"):
        decode(bytes(data), "one", formats=("JPEG",))


# A folder of one's own

OWN = {
    f"{split}/{label}/{i}.{'png' if i % 2 else 'jpg'}": encoded(
        noise(100 * s + 10 * c + i, 12 + i, 10 + c), "PNG" if i % 2 else "JPEG"
    )
    for s, (split, labels) in enumerate({"train": "cab", "val": "de", "test": "fg"}.items())
    for c, label in enumerate(labels)
    for i in range(2 + c)
}


@pytest.mark.parametrize("source", [lay_out, zipped])
def test_a_folder_of_ones_own(tmp_path: Path, source: Source) -> None:
    target, said = tmp_path / "mine.h5", list[tuple[int, int]]()
    folder.prepare(source(tmp_path / "in", OWN), target, "mine", (10, 8), report=lambda *now: said.append(now))
    assert said[-1] == (len(OWN), len(OWN))
    header = describe(target)
    assert (header["name"], header["shape"]) == ("mine", [10, 8, 3])
    assert header["recipe"]["resample"] == "bilinear"
    train = read(target, "train")
    assert train.classes == ["a", "b", "c"]
    assert np.diff(train.first).tolist() == [3, 4, 2]
    assert read(target, "validation").classes == ["d", "e"]
    assert read(target, "test").classes == ["f", "g"]
    for i, name in enumerate(["train/a/0.jpg", "train/a/1.png", "train/a/2.jpg", "train/b/0.jpg"]):
        picture = Image.open(io.BytesIO(OWN[name])).convert("RGB").resize((8, 10), Image.Resampling.BILINEAR)
        assert np.array_equal(train.images[i], np.asarray(picture))


def test_grey_images_and_other_kinds(tmp_path: Path) -> None:
    colour = Image.fromarray(noise(0, 8, 8))
    palette, buffer = colour.quantize(4), io.BytesIO()
    palette.save(buffer, "PNG", transparency=b"\0\1\2\3")
    kinds = {
        "0.png": encoded(noise(0, 8, 8)),
        "1.png": encoded(noise(0, 8, 8, 1)),
        "2.png": encoded(noise(0, 8, 8), mode="RGBA"),
        "3.png": buffer.getvalue(),
        "4.jpg": encoded(noise(0, 8, 8), "JPEG", mode="CMYK"),
        "5.png": encoded(noise(0, 8, 8, 1) > 99),
        "6.JPEG": encoded(noise(0, 8, 8)),  # a PNG image in truth
    }
    files = {
        f"{split}/{split}/{name}": data for split in ("train", "validation", "test") for name, data in kinds.items()
    }
    lay_out(tmp_path / "in", files)
    folder.prepare(tmp_path / "in", tmp_path / "colour.h5", "colour", (8, 8))
    folder.prepare(tmp_path / "in", tmp_path / "grey.h5", "grey", (8, 8), grey=True)
    in_colour, in_grey = read(tmp_path / "colour.h5", "train").images, read(tmp_path / "grey.h5", "train").images
    assert in_colour.shape == (7, 8, 8, 3)
    assert in_grey.shape == (7, 8, 8, 1)
    assert np.array_equal(in_colour[0], noise(0, 8, 8))
    assert np.array_equal(in_colour[2], noise(0, 8, 8))
    assert np.array_equal(in_colour[3], np.asarray(palette.convert("RGB")))
    assert np.array_equal(in_grey[0, ..., 0], np.asarray(colour.convert("L")))
    assert np.array_equal(in_grey[1, ..., 0], noise(0, 8, 8, 1))
    assert np.array_equal(in_colour[1], np.repeat(in_grey[1], 3, axis=2))


ONE = "train/a/1.png"
WRONG_FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "truncated": ({**OWN, ONE: OWN[ONE][:-30]}, "a/1.png.* is not a whole JPEG or PNG image"),
    "no image": ({**OWN, ONE: b"text"}, "a/1.png.* is not a whole JPEG or PNG image"),
    "a pickle": ({**OWN, "train/a/data.pickle": PICKLE}, "data.pickle.* is a pickle"),
    "another kind": ({**OWN, "train/a/1.gif": b"GIF"}, "a/1.gif.* is out of place"),
    "no class": ({**OWN, "train/1.png": OWN[ONE]}, "train/1.png.* is out of place"),
    "too deep": ({**OWN, "train/a/b/1.png": OWN[ONE]}, "a/b/1.png.* is out of place"),
    "no split": ({**OWN, "more/a/1.png": OWN[ONE]}, "more/a/1.png.* is out of place: expected train, val and test"),
    "a missing split": (without(OWN, "val/"), "has no images for validation"),
    "a split twice": ({**OWN, "validation/d/1.png": OWN[ONE]}, "has both (val and validation|validation and val)"),
    "a class in two splits": ({**OWN, "test/a/1.png": OWN[ONE]}, "the class a is in both te(st) and train"),
    "nothing": ({}, "has no images: expected CLASS/IMAGE, or train, val and test with CLASS/IMAGE in each"),
    "neither": ({f"x/{name}": OWN[name] for name in OWN}, "x/.* is out of place: expected CLASS/IMAGE, or train, val"),
}


@pytest.mark.parametrize("source", [lay_out, zipped])
@pytest.mark.parametrize("what", WRONG_FOLDERS)
def test_wrong_folders_are_refused(tmp_path: Path, what: str, source: Source) -> None:
    files, match = WRONG_FOLDERS[what]
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=match):
        folder.prepare(source(tmp_path / "in", files), tmp_path / "out" / "mine.h5", "mine", (8, 8))
    assert not list((tmp_path).glob("out/*"))


def test_wrong_settings_of_a_folder_are_refused(tmp_path: Path) -> None:
    for settings, match in [
        ({"name": "../mine"}, "name must be of letters"),
        ({"name": ""}, "name must be of letters"),
        ({"size": (0, 8)}, "size positive"),
        ({"resample": "magic"}, "resample must be one of"),
    ]:
        with pytest.raises(ValueError, match=match):
            folder.prepare(
                lay_out(tmp_path / "in", OWN), tmp_path / "mine.h5", **{"name": "mine", "size": (8, 8)} | settings
            )


# A folder of classes alone

FLAT = {f"class {c}/{i}.png": encoded(noise(10 * c + i, 6, 6)) for c in range(10) for i in range(2)}


@pytest.mark.parametrize("source", [lay_out, zipped])
def test_classes_are_divided_by_a_hash_of_their_names(tmp_path: Path, source: Source) -> None:
    target = tmp_path / "flat.h5"
    folder.prepare(source(tmp_path / "in", FLAT), target, "flat", (6, 6), split=(0.6, 0.2, 0.2), split_seed=3)
    header = describe(target)
    order = sorted((f"class {c}" for c in range(10)), key=lambda label: hashlib.sha256(f"3/{label}".encode()).digest())
    expected = {"train": sorted(order[:6]), "validation": sorted(order[6:8]), "test": sorted(order[8:])}
    assert header["classes"] == expected
    assert header["recipe"]["split"] == {"shares": [0.6, 0.2, 0.2], "seed": 3}
    assert header["recipe"]["split_sha256"] == splits.digest(expected)
    for split, labels in expected.items():
        images = read(target, split)
        assert images.classes == labels
        for c, label in enumerate(labels):
            for i in range(2):
                assert np.array_equal(images.images[2 * c + i], noise(10 * int(label.split()[1]) + i, 6, 6))
    # Another seed divides otherwise; a folder that is called train is a class as any other.
    folder.prepare(tmp_path / ("in" if source is lay_out else "in.zip"), target, "flat", (6, 6), split=(0.6, 0.2, 0.2))
    assert describe(target)["classes"] != expected
    files = {name.replace("class 0", "train"): data for name, data in FLAT.items()}
    folder.prepare(source(tmp_path / "other" / "in", files), target, "flat", (6, 6), split=(0.4, 0.3, 0.3))
    assert "train" in [label for labels in describe(target)["classes"].values() for label in labels]


@pytest.mark.parametrize("source", [lay_out, zipped])
def test_wrong_splits_are_refused(tmp_path: Path, source: Source) -> None:
    flat, divided = source(tmp_path / "flat" / "in", FLAT), source(tmp_path / "own" / "in", OWN)
    shares = "split: expected the shares of train, validation, test, positive and with the sum 1; got "
    for path, split, error, message in (
        (flat, None, ValueError, "split: .* has no train, val and test: give their shares .*, as in --split .6 .2 .2"),
        (divided, (0.6, 0.2, 0.2), ValueError, "split: .* has train, val and test already"),
        (flat, (0.6, 0.2, 0.3), ValueError, f"{shares}0.6 0.2 0.3, whose sum is 1.1"),
        (flat, (0.6, 0.2, 0.1), ValueError, shares),
        (flat, (1.2, -0.1, -0.1), ValueError, shares),
        (flat, (np.nan, 0.5, 0.5), ValueError, shares),
        (flat, (0.8, 0.2, 0.0), ValueError, shares),
        (flat, (0.5, 0.5), ValueError, shares),
        (
            flat,
            (0.9, 0.05, 0.05),
            ValueError,
            "split: of 10 classes there would be train 9, validation 1, test 0;",
        ),
    ):
        with pytest.raises(error, match=message) as refused:
            folder.prepare(path, tmp_path / "out" / "flat.h5", "flat", (6, 6), split=split)
        assert "\n" not in str(refused.value)
    for name in ("flower/class/1.png", "read.me", "class 0/1.txt", "class 0/more/1.png"):
        path = source(tmp_path / name.replace("/", "-") / "in", {**FLAT, name: FLAT["class 0/0.png"]})
        with pytest.raises(
            DataError, match=f"{name}.* is out of place: expected CLASS/IMAGE, or train, val and test with"
        ):
            folder.prepare(path, tmp_path / "out" / "flat.h5", "flat", (6, 6), split=(0.6, 0.2, 0.2))
    assert not (tmp_path / "out").exists()


# CIFAR-FS

FEW = {"train": ["apple", "wolf"], "validation": ["beaver"], "test": ["baby", "worm"]}
CIFAR = {
    f"{cifar_fs.NAMES[split]}/{label}/{label}_s_{i}.png": encoded(noise(len(label) + 10 * i, 32, 32))
    for split, labels in FEW.items()
    for label in labels
    for i in range(2)
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of five classes with two images each."""
    monkeypatch.setattr(splits, "load", lambda name: FEW)
    monkeypatch.setattr(cifar_fs, "IMAGES", 2)
    monkeypatch.setattr(miniimagenet, "IMAGES", 2)


def cifar_archives(path: Path, files: dict[str, bytes]) -> Path:
    for name in cifar_fs.NAMES.values():
        pack(path / f"cifar_fs_{name}.zip", {file: data for file, data in files.items() if file.startswith(name)})
    return path


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("source", [lay_out, cifar_archives])
def test_small_cifar_fs(tmp_path: Path, source: Source) -> None:
    content = cifar_fs.prepare(source(tmp_path / "in", CIFAR), tmp_path / "cifar_fs.h5")
    assert describe(tmp_path / "cifar_fs.h5")["content"] == content != cifar_fs.CONTENT
    for split, labels in FEW.items():
        found = read(tmp_path / "cifar_fs.h5", split)
        assert found.classes == labels
        for c, label in enumerate(labels):
            for i in range(2):
                assert np.array_equal(found.images[2 * c + i], noise(len(label) + 10 * i, 32, 32))


APPLE = "train/apple/apple_s_1.png"
WRONG_CIFAR: dict[str, tuple[dict[str, bytes], str]] = {
    "truncated": ({**CIFAR, APPLE: CIFAR[APPLE][:-40]}, "apple_s_1.png.* is not a whole PNG image"),
    "another size": (
        {**CIFAR, APPLE: encoded(noise(0, 32, 31))},
        "apple_s_1.png.* has 31 x 32 pixels, expected 32 x 32",
    ),
    "grey": ({**CIFAR, APPLE: encoded(noise(0, 32, 32, 1))}, "apple_s_1.png.* is an image of the kind L, not RGB"),
    "an image missing": (without(CIFAR, APPLE), "apple has 1 images, not 2"),
    "an image more": ({**CIFAR, "train/apple/z.png": CIFAR[APPLE]}, "apple has 3 images, not 2"),
    "a class missing": (without(CIFAR, "/wolf/"), "the class wolf is missing"),
    "a class more": ({**CIFAR, "test/wolf/1.png": CIFAR[APPLE]}, "the class wolf does not belong there"),
    "a split missing": (without(CIFAR, "val/"), "(has neither cifar_fs_val.zip nor a folder val|beaver is missing)"),
    "out of place": ({**CIFAR, "train/apple.png": b""}, "train/apple.png.* is out of place"),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("source", [lay_out, cifar_archives])
@pytest.mark.parametrize("what", WRONG_CIFAR)
def test_wrong_cifar_fs_is_refused(tmp_path: Path, what: str, source: Source) -> None:
    files, match = WRONG_CIFAR[what]
    with pytest.raises(DataError, match=match):
        cifar_fs.prepare(source(tmp_path / "in", files), tmp_path / "out" / "cifar_fs.h5")
    assert not list((tmp_path).glob("out/*"))


@pytest.mark.slow
def test_real_cifar_fs(tmp_path: Path) -> None:
    source = real(*(f"cifar_fs/cifar_fs_{name}.zip" for name in ("train", "val", "test"))) / "cifar_fs"
    target = tmp_path / "cifar_fs.h5"
    assert cifar_fs.prepare(source, target) == cifar_fs.CONTENT
    for split, classes in splits.load("cifar_fs").items():
        found = read(target, split)
        assert found.classes == classes
        assert found.images.shape == (600 * len(classes), 32, 32, 3)
        assert np.array_equal(np.diff(found.first), np.full(len(classes), 600))
        assert 100 < found.images.mean() < 140
    with zipfile.ZipFile(source / "cifar_fs_train.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/wolf/"))
        expected = np.asarray(Image.open(archive.open(names[5])))
    found = read(target, "train", lazy=True)
    assert np.array_equal(found.images[found.first[found.classes.index("wolf")] + 5], expected)


# MiniImagenet

LABELS = {"train": ["n00000001", "n00000002"], "validation": ["n00000003"], "test": ["n00000004", "n00000005"]}
MINI = {
    f"{label}{i:08}.jpg": encoded(noise(int(label[1:]) * 10 + i, 40 + i, 50), "JPEG")
    for labels in LABELS.values()
    for label in labels
    for i in range(2)
}
BY_CLASS = {f"images/{name[:9]}/{i}.JPEG": data for i, (name, data) in enumerate(MINI.items())}
CSV = {
    f"{miniimagenet.NAMES[split]}.csv": "\n".join(
        ["filename,label", *(f"{name},{name[:9]}" for name in MINI if name[:9] in labels), ""]
    ).encode()
    for split, labels in LABELS.items()
}


@pytest.fixture
def mini(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "load", lambda name: LABELS)


def expected_mini(resample: Any) -> list[Any]:
    pictures = [Image.open(io.BytesIO(data)).resize((84, 84), resample) for data in MINI.values()]
    return [np.asarray(picture) for picture in pictures]


@pytest.mark.usefixtures("mini")
@pytest.mark.parametrize("source", [lay_out, zipped])
def test_miniimagenet_by_lists_by_folders_and_by_names(tmp_path: Path, source: Source) -> None:
    lists = lay_out(tmp_path / "lists", CSV)
    further = {f"more/{name}": data for name, data in {"n0000000100000009.jpg": MINI["n0000000100000000.jpg"]}.items()}
    target = tmp_path / "miniimagenet.h5"
    contents = [
        miniimagenet.prepare(source(tmp_path / "one", MINI | CSV), target),
        miniimagenet.prepare(source(tmp_path / "two", BY_CLASS), target),
        miniimagenet.prepare(source(tmp_path / "three", MINI | further), target, lists=lists),
    ]
    assert len(set(contents)) == 1
    assert describe(target)["recipe"]["resample"] == "lanczos"
    images = np.concatenate([read(target, split).images for split in LABELS])
    assert np.array_equal(images, expected_mini(Image.Resampling.LANCZOS))
    assert [read(target, split).classes for split in LABELS] == list(LABELS.values())
    miniimagenet.prepare(source(tmp_path / "one", MINI), target, resample="bilinear")
    images = np.concatenate([read(target, split).images for split in LABELS])
    assert np.array_equal(images, expected_mini(Image.Resampling.BILINEAR))


FIRST = "n0000000100000001.jpg"
WRONG_MINI: dict[str, tuple[dict[str, bytes], dict[str, bytes], str]] = {
    "truncated": ({**MINI, FIRST: MINI[FIRST][:-200]}, CSV, f"{FIRST}.* is not a whole JPEG or PNG image"),
    "missing": (without(MINI, FIRST), CSV, f"has no {FIRST}, which the CSV files"),
    "missing, no lists": (without(MINI, FIRST), {}, "the class n00000001 has 1 images, not 2"),
    "one more, no lists": ({**MINI, "x/n0000000100000009.jpg": b""}, {}, "the class n00000001 has 3 images, not 2"),
    "there twice": ({**MINI, f"more/{FIRST}": MINI[FIRST]}, CSV, f"has {FIRST} twice: .*more/{FIRST}"),
    "unknown class, no lists": ({**MINI, "n0000000900000009.jpg": b""}, {}, "n0000000900000009.jpg.* is of no class"),
    "no class, no lists": ({**MINI, "some.jpg": b""}, {}, "some.jpg.* is of no class of MiniImagenet"),
    "no image": ({**MINI, "some.txt": b""}, CSV, "some.txt.* is out of place"),
    "a pickle": ({**MINI, "mini-imagenet-cache-train.pkl": PICKLE}, CSV, "cache-train.pkl.* is a pickle"),
    "no list": (MINI, without(CSV, "val"), "lists has no miniImagenet_ravi_val.csv or val.csv"),
    "a list without columns": (MINI, {**CSV, "val.csv": b"n1.jpg,n1\n"}, "val.csv: expected the columns filename"),
    "a list with more": (MINI, {**CSV, "val.csv": CSV["val.csv"] + b"a,b,c\n"}, "val.csv: expected the columns"),
    "no text": (MINI, {**CSV, "val.csv": b"\xff\xfe\x00"}, "val.csv is no CSV file"),
    "a class in two lists": (
        MINI,
        {**CSV, "test.csv": CSV["test.csv"] + b"x.jpg,n00000001\n"},
        "test.csv: the class n00000001 does not belong to test",
    ),
    "an image in two lists": (
        MINI,
        {**CSV, "test.csv": CSV["test.csv"] + f"{FIRST},n00000004\n".encode()},
        f"test.csv names {FIRST} a second time",
    ),
    "a short list": (MINI, {**CSV, "val.csv": CSV["val.csv"][:-33]}, "val.csv: the class n00000003 has 1 images"),
}


@pytest.mark.usefixtures("mini")
@pytest.mark.parametrize("what", WRONG_MINI)
def test_wrong_miniimagenet_is_refused(tmp_path: Path, what: str) -> None:
    files, lists, match = WRONG_MINI[what]
    with pytest.raises(DataError, match=match):
        miniimagenet.prepare(
            lay_out(tmp_path / "in", files),
            tmp_path / "out" / "miniimagenet.h5",
            lists=lay_out(tmp_path / "lists", lists) if lists else None,
        )
    assert not list((tmp_path).glob("out/*"))


def test_an_unknown_resampling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resample must be one of lanczos, bilinear"):
        miniimagenet.prepare(tmp_path, tmp_path / "some.h5", resample="nearest")


def test_the_real_lists_name_600_images_of_each_class() -> None:
    lists = real("miniimagenet/miniImagenet_ravi_train.csv") / "miniimagenet"
    listed = miniimagenet.listed_images(lists, splits.load("miniimagenet"))
    assert len(listed) == 100
    assert all(len(set(names)) == 600 for names in listed.values())


def cached(path: Path, **changes: dict[str, Any]) -> Path:
    """A folder of npz files, with the images of a class not side by side."""
    path.mkdir(parents=True)
    for split, labels in LABELS.items():
        which = np.tile(np.arange(len(labels)), 2)
        images = np.stack([noise(int(labels[c][1:]) * 10 + i // len(labels), 84, 84) for i, c in enumerate(which)])
        arrays = {"images": images, "labels": which} | changes.get(split, {})
        np.savez_compressed(
            path / f"{miniimagenet.NAMES[split]}.npz", **{k: v for k, v in arrays.items() if v is not None}
        )
    return path


@pytest.mark.usefixtures("mini")
def test_npz_caches(tmp_path: Path) -> None:
    target = tmp_path / "miniimagenet.h5"
    named = {split: {"labels": np.tile(np.array(labels), 2)} for split, labels in LABELS.items()}
    for source, classes in [
        (cached(tmp_path / "numbers"), ["train-00", "train-01"]),
        (cached(tmp_path / "names", **named), LABELS["train"]),
    ]:
        miniimagenet.prepare(source, target)
        found = read(target, "train")
        assert found.classes == classes
        assert np.array_equal(found.images, [noise(seed, 84, 84) for seed in (10, 11, 20, 21)])
        assert read(target, "test").images.shape == (4, 84, 84, 3)


IMAGES = np.zeros((4, 84, 84, 3), np.uint8)
WRONG_CACHES: dict[str, tuple[dict[str, Any], str]] = {
    "pickled labels": (
        {"labels": np.array(["a", "b", "a", None], object)},
        "labels in .*train.npz holds pickled objects",
    ),
    "pickled images": ({"images": np.array([{}], object)}, "images in .*train.npz holds pickled objects"),
    "no labels": ({"labels": None}, "train.npz has no array 'labels'"),
    "other images": ({"images": IMAGES[:, 1:]}, r"train.npz: images are uint8\(4, 83, 84, 3\)"),
    "images of floats": ({"images": IMAGES.astype(np.float32)}, "train.npz: images are float32"),
    "fewer labels": ({"labels": np.zeros(3, int)}, r"train.npz: labels are int64\(3,\)"),
    "labels of floats": ({"labels": np.zeros(4)}, "train.npz: labels are float64"),
    "a class missing": ({"labels": np.zeros(4, int)}, "train.npz: its 1 classes are not the 2 of train"),
    "other classes": ({"labels": np.array(["n1", "n2"] * 2)}, "train.npz: its 2 classes are not the 2 of train"),
    "an image of another": ({"labels": np.array([0, 1, 1, 1])}, "train.npz: the class 0 has 1 images, not 2"),
}


@pytest.mark.usefixtures("mini")
@pytest.mark.parametrize("what", WRONG_CACHES)
def test_wrong_npz_caches_are_refused(tmp_path: Path, what: str) -> None:
    change, match = WRONG_CACHES[what]
    with pytest.raises(DataError, match=match):
        miniimagenet.prepare(cached(tmp_path / "in", train=change), tmp_path / "out" / "some.h5")
    assert not list((tmp_path).glob("out/*"))


def npy(text: str, content: bytes) -> bytes:
    head = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + content


NO_HEADS = [
    "",
    "1",
    "{",
    "(" * 500,
    "-" * 5000 + "1",
    "[" * 90 + "]" * 90,
    "{'descr': '|u1', 'fortran_order': False, 'shape': (84,), }" + " " * 20_000,
    "{'descr': '|u1', 'fortran_order': False, 'shape': (84L,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (8 4,), }",
    "{'descr': '|u1', 'fortran_order': 0, 'shape': (84,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': 84, }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': ('84',), }",
    "{'descr': 'u1, ', 'fortran_order': False, 'shape': (84,), }",
    "{'descr': '<x7', 'fortran_order': False, 'shape': (84,), }",
    "{'descr': {'a': 1}, 'fortran_order': False, 'shape': (84,), }",
    "{'descr': [('', '|u1', -1)], 'fortran_order': False, 'shape': (84,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1e3,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
    "{[]: 1}",
    "{'descr': '|u1\0', 'fortran_order': False, 'shape': (84,), }",
]


@pytest.mark.usefixtures("mini")
@pytest.mark.parametrize(
    ("data", "match"),
    [
        (
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9999999, 84, 84, 3)}", bytes(100)),
            "has 100 bytes for",
        ),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 84)}", bytes(84)), "images in"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -84)}", bytes(84)), "images in"),
        (npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff" * 4), "images in .* is no array"),
        (npy("{'descr': 'M8[s]', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "plain numbers and text are read"),
        (npy("{'descr': '|V0', 'fortran_order': False, 'shape': (2,)}", b""), "images in"),
        (npy("{'descr': ('u1', (2,)), 'fortran_order': False, 'shape': (2,)}", bytes(4)), "images in"),
        *((npy(text, bytes(84)), "images in .* is (no|an) array") for text in NO_HEADS),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", PICKLE), "holds pickled objects"),
        (npy("__import__('os')", b""), "images in .* is no array"),
        (b"\x93NUMPY\7\0" + bytes(100), "images in .* has the format 7"),
        (PICKLE, "images in .* is no array"),
        (b"", "images in .* is no array"),
    ],
    ids=["claims", "negative", "negative twice", "no letters", "times", "nothing", "pairs"]
    + [str(i) for i in range(len(NO_HEADS))]
    + ["objects", "code", "format", "pickle", "empty"],
)
def test_arrays_made_to_deceive_are_refused(tmp_path: Path, data: bytes, match: str) -> None:
    source = cached(tmp_path / "in")
    pack(source / "train.npz", {"images.npy": data, "labels.npy": npy("", b"")})
    with pytest.raises(DataError, match=match):
        miniimagenet.prepare(source, tmp_path / "some.h5")
    (source / "train.npz").unlink()
    with pytest.raises(DataError, match=r"in has no train\.npz"):
        miniimagenet.prepare(source, tmp_path / "some.h5")
    (source / "train.npz").symlink_to("val.npz")
    with pytest.raises(DataError, match=r"train\.npz is a symbolic link"):
        miniimagenet.prepare(source, tmp_path / "some.h5")
    assert not (tmp_path / "some.h5").exists()
