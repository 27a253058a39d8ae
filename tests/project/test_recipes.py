"""The recipes of CONTRIBUTING.md: each is done in a scratch copy of the repository, where what it adds then works.

A recipe is the files to touch, in order, with what is done to them. Its section of CONTRIBUTING.md has the same title
and a numbered list that begins with the same files; what differs from case to case is in capitals there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, run
from tests.project.test_packaging import checkout

Edit = Callable[[str], str]  # a file's text -> what it becomes; the text of a new one is empty


class Recipe(NamedTuple):
    """How to add something."""

    names: dict[str, str]  # what the words in capitals stand for
    edits: dict[str, Edit]
    tests: Sequence[str]  # of the copy, that the addition has to pass
    check: str  # a program that uses it


def new(text: str) -> Edit:
    """A new file."""

    def edit(before: str) -> str:
        assert not before, "the file is there already"
        return text

    return edit


def before(*insertions: tuple[str, str]) -> Edit:
    """(line, text) each: the text is put before the first line that begins with the other one."""

    def edit(text: str) -> str:
        for line, inserted in insertions:
            place = re.search(f"^{re.escape(line)}", text, re.MULTILINE)
            assert place, f"no line begins with {line!r}"
            text = text[: place.start()] + inserted + text[place.start() :]
        return text

    return edit


def beside(name: str, added: str) -> Edit:
    """Every line that has one name gets a copy of itself with another one."""

    def edit(text: str) -> str:
        lines = [line for line in text.splitlines(keepends=True) if re.search(rf"\b{name}\b", line)]
        assert lines, f"no line has {name}"
        for line in lines:
            text = text.replace(line, re.sub(rf"\b{name}\b", added, line) + line)
        return text

    return edit


PRIMITIVE = Recipe(
    {"FAMILY": "elementwise"},
    {
        "kernels/cpu/elementwise.py": before(
            (
                "def softplus(",
                "def softsign(outs: Arrays, ins: Arrays) -> None:\n"
                '    """x / (1 + |x|)."""\n'
                "    np.divide(ins[0], np.abs(ins[0]) + 1, out=outs[0])\n\n\n",
            )
        ),
        "kernels/formulas.py": before(
            (
                '    "softplus": ',
                '    "softsign": lambda w, x: '
                'w.arithmetic("/", x, w.arithmetic("+", w.call("fabs", x), w.number(1, x))),\n',
            )
        ),
        "kernels/gpu/elementwise.py": beside("softplus", "softsign"),
        "tinymaml/ops/elementwise.py": before(
            (
                "# Locally constant",
                'softsign: Primitive = from_partials("softsign", lambda y, x: power(add(abs(x), 1.0), -2))\n\n\n',
            )
        ),
        "tinymaml/ops/__init__.py": beside("softplus", "softsign"),
        "tests/cases/primitive_cases.py": before(
            ('_one("softplus"', '_one("softsign", lambda x: x / (1 + np.abs(x)), "away")\n')
        ),
    },
    (
        "tests/ops/test_primitives.py::test_every_primitive_has_a_case",
        "tests/ops/test_primitives.py::test_every_public_function_has_a_case",
        "tests/ops/test_primitives.py::test_values[softsign-float32]",
        "tests/ops/test_primitives.py::test_derivatives[softsign-float64]",
    ),
    """
import numpy as np
import tinymaml as tm
from tinymaml.kernels.gpu import elementwise

x = np.array([-3.0, -0.5, 0.5, 1.0], np.float32)
np.testing.assert_array_equal(tm.softsign(x), x / (1 + np.abs(x)))
np.testing.assert_allclose(tm.grad(lambda x: tm.sum(tm.softsign(x)))(x), 1 / (1 + np.abs(x)) ** 2, rtol=1e-6)
step = lambda x: tm.softsign(x) * x + 1.0
np.testing.assert_array_equal(tm.record(step, x)(x), step(tm.as_tensor(x)).data)
assert "softsign_float32" in elementwise.INSTANCES["float"]
""",
)

PIXELS = '''"""Pixels: an .npz file of `images`, uint8 [N, H, W, C], and `labels` [N], divided by hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinymaml.tasks import imageset, npz, splits
from tinymaml.tasks.archive import DataError, Limits, Report, progress_counter

SHARES, SEED = (0.5, 0.25, 0.25), 0
_LIMITS = Limits(files=10, each=1 << 30, total=1 << 30)


def prepare(source: Path, target: Path, *, report: Report | None = None) -> str:
    """Make the data set; returns the hash of its content. Raises DataError for files that are none."""
    images, labels = npz.arrays(source, ["images", "labels"], _LIMITS)
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise DataError(f"{source}: expected images uint8 [N, H, W, C] and as many labels")
    places = {str(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
    tick = progress_counter(len(images), report)

    def batch(label):
        tick(len(places[label]))
        return images[places[label]]

    parts = {
        split: imageset.Part(part, [len(places[label]) for label in part], map(batch, part))
        for split, part in splits.by_hash(places, SHARES, SEED).items()
    }
    recipe = {"source": "pixels", "split": {"shares": list(SHARES), "seed": SEED}}
    return imageset.write(target, "pixels", parts, images.shape[1:], recipe)
'''

PIXELS_TEST = '''"""Pixels: what the file gives, and what is refused."""

import numpy as np
import pytest

from tinymaml.tasks import pixels
from tinymaml.tasks.archive import DataError
from tinymaml.tasks.imageset import describe, read


def test_pixels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (24, 5, 4, 1), np.uint8)
    labels = np.arange(24) % 8
    np.savez(tmp_path / "some.npz", images=images, labels=labels)
    pixels.prepare(tmp_path / "some.npz", tmp_path / "pixels.h5")
    for split, classes in describe(tmp_path / "pixels.h5")["classes"].items():
        found = read(tmp_path / "pixels.h5", split)
        assert found.classes == classes
        for c, label in enumerate(classes):
            np.testing.assert_array_equal(found.images[3 * c : 3 * c + 3], images[int(label) :: 8])
    np.savez(tmp_path / "wrong.npz", images=images, labels=labels[1:])
    with pytest.raises(DataError, match="as many labels"):
        pixels.prepare(tmp_path / "wrong.npz", tmp_path / "wrong.h5")
    assert not (tmp_path / "wrong.h5").exists()
'''

DATA_SET = Recipe(
    {"NAME": "pixels"},
    {
        "tasks/pixels.py": new(PIXELS),
        "tasks/imageset.py": before(('    "cifar_fs":', '    "pixels": "pixels --from FILE",\n')),
        "tinymaml/cli/data.py": before(
            ("from tinymaml.tasks import ", "from tinymaml.tasks import pixels\n"),
            (
                '    "folder": DataSet(',
                '    "pixels": DataSet(\n'
                '        "images of an .npz file",\n'
                '        "PATH is an .npz file with `images` and `labels`.",\n'
                "        lambda args, target, report: pixels.prepare(args.source, target, report=report),\n"
                "    ),\n",
            ),
        ),
        "tests/tasks/test_pixels.py": new(PIXELS_TEST),
    },
    ("tests/tasks/test_pixels.py",),
    """
import numpy as np
from pathlib import Path
from tinymaml.cli import main
from tinymaml.tasks import episodes, imageset

path = imageset.default_path("pixels")
try:
    imageset.read(path, "train")
except FileNotFoundError as error:
    assert "tinymaml data pixels --from FILE makes it" in str(error), error
images = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 1), np.uint8)
np.savez("some.npz", images=images, labels=np.arange(60) % 20)
assert main(["data", "pixels", "--from", "some.npz"]) == 0
drawn = episodes.sample(imageset.read(path, "test"), 0, "test", 0, 3, ways=5, shots=1, queries=2)
assert drawn.query["x"].shape == (3, 10, 5, 4, 1)
""",
)

RECIPES = {"Add a primitive": PRIMITIVE, "Add a data set": DATA_SET}


@pytest.mark.parametrize("title", RECIPES)
def test_contributing_names_the_files_in_order(title: str) -> None:
    recipe = RECIPES[title]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"CONTRIBUTING.md has no section {title!r}"
    listed = re.findall(r"^\d+\. `([^`]+)`", section[1], re.MULTILINE)
    for word, name in recipe.names.items():
        listed = [path.replace(word, name) for path in listed]
    assert listed == list(recipe.edits)


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_recipe(title: str, repository_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES[title]
    parts = ("kernels", "tasks", "tinymaml", "tests", "pyproject.toml")
    scratch = checkout([file for file in repository_files if file.parts[0] in parts], tmp_path)
    for name, edit in recipe.edits.items():
        path = scratch / name
        path.write_text(edit(path.read_text(encoding="utf-8") if path.exists() else ""), encoding="utf-8")
    here = f"import tinymaml\nassert tinymaml.__file__.startswith({str(scratch)!r}), tinymaml.__file__\n"
    run(sys.executable, "-W", "error", "-c", here + recipe.check, cwd=scratch)
    monkeypatch.setenv("TINYMAML_NUMBA", "0")  # the copy would have to compile everything first
    passed = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *recipe.tests, cwd=scratch)
    assert re.search(r"\d passed", passed)
    assert not re.search("skipped|failed", passed), passed
