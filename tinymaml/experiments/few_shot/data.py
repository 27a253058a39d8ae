"""Where the experiments' images come from, and the episodes drawn from them."""

from __future__ import annotations

from pathlib import Path

from tinymaml.autodiff.tensor import Array
from tinymaml.experiments.few_shot.settings import DRAWN, LARGE, ImageSettings
from tinymaml.tasks import episodes, glyphs, imageset
from tinymaml.tasks.imageset import ImageSet

Batch = dict[str, Array]  # {"x": [T, N, H, W, C], "y": [T, N]}


def path_of(settings: ImageSettings) -> Path:
    """The prepared file: in the folder given, else in $TINYMAML_DATA, else in ./data."""
    path = imageset.default_path(settings.dataset)
    return path if settings.data is None else Path(settings.data) / path.name


def read(settings: ImageSettings, split: str, queries: int) -> ImageSet:
    """A split of the experiment's data set, for tasks of so many query images a class.

    Raises:
        FileNotFoundError: it was not prepared; the message names the command that does it.
        ValueError: it is damaged, or has too few classes, or images in a class, for the tasks of the settings.
    """
    if settings.dataset == DRAWN:
        images = glyphs.images(split)
    else:
        images = imageset.read(path_of(settings), split, lazy=settings.dataset == LARGE)
    draw(settings, images, settings.seed, 0, 1, queries)
    return images


def draw(
    settings: ImageSettings, images: ImageSet, seed: int, first_task: int, tasks: int, queries: int
) -> tuple[Batch, Batch]:
    """Support and query of some tasks of a split's stream, the examples class by class."""
    drawn = episodes.sample(
        images,
        seed,
        images.split,
        first_task,
        tasks,
        ways=settings.ways,
        shots=settings.shots,
        queries=queries,
        rotations=settings.rotations,
    )

    def batch(part: Batch) -> Batch:
        return {"x": part["x"].astype(settings.dtype, copy=False), "y": part["y"]}

    return batch(drawn.support), batch(drawn.query)


def shape(settings: ImageSettings) -> tuple[int, int, int]:
    """Height, width and channels of the images."""
    if settings.dataset == DRAWN:
        return glyphs.SIDE, glyphs.SIDE, 1
    height, width, channels = imageset.describe(path_of(settings))["shape"]
    return height, width, channels


def identity(settings: ImageSettings) -> str:
    """Tells sets of images apart: the hash of the file's content."""
    return DRAWN if settings.dataset == DRAWN else str(imageset.describe(path_of(settings))["content"])
