"""Settings of the image-classification experiments (paper, section 5.2): one class, defaults for every experiment."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from tinymaml.nn.initialisers import INITIALISERS
from tinymaml.train.settings import MetaSettings, Settings, setting

DRAWN = "glyphs"  # by a program: there is no file of them
LARGE = "miniimagenet"  # stays in its file, from which every meta-batch is read


@dataclass(frozen=True)
class ImageSettings(MetaSettings):
    """Few-shot classification of images; the defaults are those of Omniglot, 5-way 1-shot, with convolutions."""

    dataset: str = setting("omniglot", "the set of images: a prepared file, NAME.h5, or glyphs, which code draws")
    data: str | None = setting(None, "folder of the prepared file; if not given, $TINYMAML_DATA or ./data")
    ways: int = setting(5, "classes a task", fixed=True, least=2)
    shots: int = setting(1, "support images a class", fixed=True)
    network: str = setting("conv", "convolutions, or linear layers alone", ("conv", "mlp"), fixed=True)
    iterations: int = setting(60_000, "meta-iterations")
    log_every: int = setting(100, "iterations between two lines of metrics")
    checkpoint_every: int = setting(1_000, "iterations between two checkpoints")
    validate_every: int = setting(
        1_000, "iterations between two validations; the best parameters are kept beside the last"
    )
    validation_tasks: int = setting(300, "tasks of the validation classes in a validation")
    query_images: int = setting(1, "query images a class in meta-training")
    meta_batch: int = setting(32, "tasks a meta-iteration")
    alpha: float = setting(0.4, "step size of the inner steps", positive=True)
    inner_loss: str = setting(
        "mean",
        "what the inner steps descend: the mean cross-entropy of the support images, or its sum over them divided by "
        "the number of shots, which is as many times the mean as there are classes",
        ("mean", "sum-over-k"),
    )
    adapt_norm: bool = setting(False, "inner steps also adapt gamma and beta of batch norm, else only meta-learned")
    filters: int = setting(64, "channels of every convolution")
    layers: int = setting(4, "convolutional layers")
    downsample: str = setting(
        "stride",
        "how a convolutional layer halves an image: its stride, or a max-pool after it",
        ("stride", "max-pool"),
    )
    hidden: tuple[int, ...] = setting((256, 128, 64, 64), "units of each hidden layer of a network of linear layers")
    start: str = setting("xavier-uniform", "how weights start; biases start at 0", tuple(INITIALISERS))
    head_start: str = setting("standard-normal", "how the last layer's weights start", tuple(INITIALISERS))
    rotations: bool = setting(True, "turn each class of a task by a multiple of 90 degrees, drawn at random")
    test_steps: int = setting(3, "inner steps at meta-test: the table's, and validation's")
    eval_query: int = setting(15, "query images a class in an evaluation, beside as many as shots")
    eval_batch: int = setting(25, "tasks evaluated at a time; more take more memory")

    EVALUATION: ClassVar[tuple[str, ...]] = (
        *Settings.EVALUATION,
        "data",
        "eval_seed",
        "eval_tasks",
        "eval_steps",
        "eval_query",
        "eval_batch",
        "test_steps",
    )
    # Validation takes the others of EVALUATION.
    FREE: ClassVar[tuple[str, ...]] = (
        *Settings.FREE,
        "data",
        "eval_tasks",
        "eval_steps",
        "eval_query",
        "eval_batch",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_steps > self.eval_steps:
            raise ValueError(f"test_steps must be at most eval_steps, {self.eval_steps}, got {self.test_steps}")

    def least_numbers(self) -> int:
        if self.network == "conv":
            parameters, width = 9 * self.filters * (1 + self.filters * (self.layers - 1)), self.filters
        else:
            parameters, width = sum(a * b for a, b in itertools.pairwise(self.hidden)), max(self.hidden)
        return 4 * parameters + max(self.images * width, self.eval_tasks)

    @property
    def images(self) -> int:
        """Images in a meta-iteration."""
        return self.meta_batch * self.ways * (self.shots + self.query_images)

    @property
    def inner_alpha(self) -> float:
        """The step size on the mean cross-entropy that does what alpha does on the inner loss."""
        return self.alpha * (self.ways if self.inner_loss == "sum-over-k" else 1)


def _omniglot(ways: int, shots: int, **others: Any) -> ImageSettings:
    twenty = {"steps": 5, "test_steps": 5, "alpha": 0.1, "meta_batch": 16, "eval_batch": 8} if ways == 20 else {}
    return ImageSettings(ways=ways, shots=shots, query_images=shots, **{**twenty, **others})


def _colour(dataset: str, shots: int) -> ImageSettings:
    """The network and settings of MiniImagenet.

    The authors clip the gradient of the query loss at 10, summed over its images and divided by the shots; ours is of
    the mean.
    """
    ways, query = 5, 15
    return ImageSettings(
        dataset=dataset,
        ways=ways,
        shots=shots,
        query_images=query,
        steps=5,
        test_steps=10,
        alpha=0.01,
        inner_loss="sum-over-k",
        meta_batch=4 if shots == 1 else 2,
        clip_element=10 * shots / (ways * query),
        filters=32,
        downsample="max-pool",
        head_start="xavier-uniform",
        rotations=False,
        validate_every=2_000,
        eval_batch=4 if dataset == LARGE else 20,
    )


_LINEAR: dict[str, Any] = {"network": "mlp", "start": "truncated-normal", "head_start": "truncated-normal"}

EXPERIMENTS: dict[str, ImageSettings] = {
    **{f"omniglot-{n}way-{k}shot": _omniglot(n, k) for n in (5, 20) for k in (1, 5)},
    **{f"omniglot-5way-{k}shot-noconv": _omniglot(5, k, **_LINEAR) for k in (1, 5)},
    **{f"miniimagenet-5way-{k}shot": _colour(LARGE, k) for k in (1, 5)},
    **{f"cifar-fs-5way-{k}shot": _colour("cifar_fs", k) for k in (1, 5)},
    # Short, for a first look.
    "glyphs-5way-1shot": _omniglot(5, 1, dataset=DRAWN, rotations=False, iterations=2_000, validate_every=250),
}
