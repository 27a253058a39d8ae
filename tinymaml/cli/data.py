"""`tinymaml data`: prepares data sets of images, once, into one HDF5 file each."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymaml.tasks import cifar_fs, folder, imageset, miniimagenet, omniglot
from tinymaml.tasks.archive import Report
from tinymaml.tasks.extras import MissingExtra, require, require_all
from tinymaml.tasks.random_streams import SPLITS

_BETWEEN_LINES = 5.0  # seconds between two lines when there is no terminal
_WAYS, _QUERY = 5, 15  # classes a task, and query images a class in an evaluation, if there are as many


class DataSet(NamedTuple):
    """A data set that `tinymaml data NAME` prepares. The functions take what the command line was given."""

    help: str
    source: str  # what PATH has to be
    prepare: Callable[[argparse.Namespace, Path, Report], Any]  # (arguments, file to make, report of progress)
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    file: Callable[[argparse.Namespace], str] | None = None  # the file's name without its ending; if None, NAME
    download: Callable[[Path], None] | None = None  # fetches the source into a folder
    needs_pillow: bool = True


def _omniglot_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split",
        choices=tuple(omniglot.SPLITS),
        default="fixed",
        help="fixed: 1100 / 100 / 423 characters by hash; vinyals: 1028 / 172 / 423 by alphabet (default: %(default)s)",
    )
    parser.add_argument(
        "--resample",
        choices=omniglot.RESAMPLINGS,
        default="nearest",
        help="nearest: binary, as the authors' images; lanczos: grey (default: %(default)s)",
    )


def _omniglot_file(args: argparse.Namespace) -> str:
    return "-".join([omniglot.SPLITS[args.split], *(["lanczos"] if args.resample == "lanczos" else [])])


def _miniimagenet_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--splits", type=Path, metavar="DIR", help="folder with the CSV files of Ravi and Larochelle's split"
    )
    parser.add_argument(
        "--resample",
        choices=miniimagenet.RESAMPLINGS,
        default="lanczos",
        help="how images are resized to 84 x 84 (default: %(default)s, as the authors')",
    )


def _prepare_cifar_fs(args: argparse.Namespace, target: Path, report: Report) -> None:
    if cifar_fs.prepare(args.source, target, report=report) != cifar_fs.CONTENT:
        print("cifar_fs: these are not the images, or not in the order, that the project's figures were made with")


def _folder_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(84, 84), help="(default: 84 84)"
    )
    parser.add_argument("--grey", action="store_true", help="one channel instead of three")
    parser.add_argument(
        "--resample",
        choices=folder.RESAMPLINGS,
        default="bilinear",
        help="how images are resized (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="shares of the classes, such as .6 .2 .2: which class goes where is decided by a hash of its name",
    )
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="of that hash (default: %(default)s)")


def _prepare_folder(args: argparse.Namespace, target: Path, report: Report) -> None:
    folder.prepare(
        args.source,
        target,
        args.name,
        (args.size[0], args.size[1]),
        grey=args.grey,
        resample=args.resample,
        split=args.split,
        split_seed=args.split_seed,
        report=report,
    )


DATA_SETS: dict[str, DataSet] = {
    "omniglot": DataSet(
        "1623 characters, 20 drawings each",
        "PATH is a folder with images_background and images_evaluation, as zip archives or unpacked (16 MB).",
        lambda args, target, report: omniglot.prepare(
            args.source, target, split=args.split, resample=args.resample, report=report
        ),
        _omniglot_options,
        _omniglot_file,
        lambda path: omniglot.fetch(path, _Progress("download")),
    ),
    "miniimagenet": DataSet(
        "100 classes of ImageNet, 600 images each",
        "PATH is a folder or a zip archive of images: by their names in the CSV files of the split, or in a folder "
        "for each class with exactly 600; or a folder of train.npz, val.npz and test.npz with `images` and `labels`. "
        "Pickles are not read.",
        lambda args, target, report: miniimagenet.prepare(
            args.source, target, lists=args.splits, resample=args.resample, report=report
        ),
        _miniimagenet_options,
        needs_pillow=False,  # it may come as arrays
    ),
    "cifar_fs": DataSet(
        "100 classes of CIFAR-100, 600 images each",
        "PATH is a folder with cifar_fs_train.zip, cifar_fs_val.zip and cifar_fs_test.zip, or train, val, test.",
        _prepare_cifar_fs,
    ),
    "folder": DataSet(
        "images of your own",
        "PATH is a folder or a zip archive of CLASS/IMAGE, whose classes --split divides, or of train, val and test, "
        "in each CLASS/IMAGE.",
        _prepare_folder,
        _folder_options,
        lambda args: str(args.name),
    ),
}


def add_parser(commands: Any) -> None:
    """Add the command `data` to the subparsers of the command line."""
    data = commands.add_parser(
        "data",
        help="prepare the images of Omniglot, MiniImagenet, CIFAR-FS, or a folder of your own",
        description="Prepare a data set of images into one HDF5 file, by default $TINYMAML_DATA/NAME.h5 or "
        "data/NAME.h5. Every file is checked; after an error nothing is written.",
    )
    names = data.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name, data_set in DATA_SETS.items():
        parser = names.add_parser(name, help=data_set.help, description=data_set.source)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--from", dest="source", type=Path, metavar="PATH", help="where the images are")
        if data_set.download:
            where.add_argument("--download", action="store_true", help="fetch them into the data folder first")
        parser.add_argument("--out", dest="target", type=Path, metavar="FILE", help="the file to make")
        data_set.add_options(parser)


def run(args: argparse.Namespace) -> None:
    """Prepare a data set, as the command line asks for.

    Raises:
        DataError: a file is not what it has to be.
        ValueError: an argument is out of bounds.
        OSError: a file cannot be read or written, or not be downloaded.
        MissingExtra: h5py or Pillow is not installed.
        KeyboardInterrupt: SIGINT or SIGTERM came; nothing is left but what was there before.
    """
    require_all([("h5py", "data"), *([("PIL.Image", "data")] if DATA_SETS[args.dataset].needs_pillow else [])])
    with _stopped_by_sigterm():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    data_set = DATA_SETS[args.dataset]
    name = data_set.file(args) if data_set.file else args.dataset
    target = args.target or imageset.default_path(name)
    if args.source and args.source.exists() and target.exists() and os.path.samefile(args.source, target):
        raise ValueError(f"--out {target} is what --from names: it would be written over")
    progress = _Progress(name)
    if data_set.download and args.download:
        args.source = imageset.default_path(args.dataset).with_suffix("")
        data_set.download(args.source)
    data_set.prepare(args, target, progress)
    for line in _summary(target):
        print(line)
    if args.dataset == "folder":
        print("\n".join(["", *_how_to_train(target)]))


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM does what SIGINT does, so that files that were begun are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _summary(path: Path) -> list[str]:
    header = imageset.describe(path)
    lines = [f"{path}: {header['name']}, {' x '.join(map(str, header['shape']))}, content {header['content']}"]
    for split, classes in header["classes"].items():
        images = imageset.read(path, split, lazy=True)
        lines.append(f"  {split:10} {len(classes):5} classes {len(images.images):7} images")
    return lines


def _how_to_train(path: Path) -> list[str]:
    """The command that trains on a data set, with tasks as small as its classes demand."""
    parts = [imageset.read(path, split, lazy=True) for split in SPLITS]
    ways = min(_WAYS, *(len(images.classes) for images in parts))
    least = min(int(np.diff(images.first).min()) for images in parts)
    if path.suffix != ".h5":
        return [f"To train on it call the file {path.stem}.h5."]
    if ways < 2 or least < 2:
        return ["To train on it every split needs at least 2 classes, and every class 2 images."]
    command = ["tinymaml", "train", "images", "--dataset", path.stem, "--ways", str(ways), "--shots", "1"]
    if least - 1 < _QUERY:
        command += ["--eval-query", str(least - 1)]
    if path != imageset.default_path(path.stem):
        command += ["--data", str(path.parent)]
    return ["Train on it:", f"  {shlex.join(command)}"]


class _Progress:
    """A bar on a terminal if there is tqdm, now and then a line otherwise."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, time.monotonic()
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None and sys.stderr.isatty():
            with contextlib.suppress(MissingExtra):
                self._bar = require("tqdm", "train").tqdm(total=total, desc=self._name, unit_scale=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()
                self._bar = None  # of two downloads each has its own
        elif time.monotonic() - self._last > _BETWEEN_LINES or done == total:
            self._last = time.monotonic()
            print(f"{self._name}: {done:,} of {total:,}", file=sys.stderr, flush=True)
