"""Settings of the image experiments (paper, section 5.2 and appendix A.1), and what each experiment's name stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tinymaml.nn import STARTS
from tinymaml.train.settings import Settings, setting
from tinymaml.transforms import MODES


@dataclass(frozen=True)
class ImageSettings(Settings):
    """Few-shot classification of images; the defaults are those of Omniglot, 5-way 1-shot."""

    iterations: int = setting(60_000, "meta-iterations")
    log_every: int = setting(100, "iterations between two lines of metrics")
    checkpoint_every: int = setting(1_000, "iterations between two checkpoints")
    validate_every: int = setting(
        1_000, "iterations between two validations; the best parameters are kept beside the last"
    )
    dataset: str = setting("omniglot", "the set of images, a prepared file NAME.h5, or glyphs, which code draws")
    ways: int = setting(5, "classes a task")
    shots: int = setting(1, "support images a class")
    query_images: int = setting(1, "query images a class in meta-training")
    meta_batch: int = setting(32, "tasks a meta-iteration")
    steps: int = setting(1, "inner steps in meta-training")
    alpha: float = setting(0.4, "step size of the inner steps")
    inner_loss: str = setting(
        "mean",
        "the support loss: the mean over the images, or their sum over the number of shots (the authors' code)",
        ("mean", "sum-over-k"),
    )
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser")
    network: str = setting("conv", "convolutional, or dense layers only", ("conv", "mlp"))
    filters: int = setting(64, "channels of a convolution's result")
    hidden: tuple[int, ...] = setting((256, 128, 64, 64), "units of the dense network's hidden layers")
    downsample: str = setting(
        "stride",
        "how a convolutional layer halves an image: its stride, or a max-pool after it",
        ("stride", "max-pool"),
    )
    start: str = setting("xavier-uniform", "how weights start; biases start at 0", tuple(STARTS))
    head_start: str = setting("standard-normal", "how the last layer's weights start", tuple(STARTS))
    adapt_norm: bool = setting(False, "adapt batch-norm's gamma and beta in the inner steps, too")
    rotations: bool = setting(True, "turn each class of a task by a multiple of 90 degrees")
    hvp_mode: str = setting(MODES[0], "how Hessian-vector products are made", MODES)
    records: str = setting(
        "keep", "records of the inner steps: kept, or recomputed to save memory", ("keep", "recompute")
    )
    clip_element: float | None = setting(None, "bound on each element of the meta-gradient")
    clip_norm: float | None = setting(None, "bound on the norm of the meta-gradient")
    dtype: str = setting("float32", "of parameters and images", ("float32", "float64"))
    validation_tasks: int = setting(200, "tasks of a validation during training")
    eval_seed: int = setting(0, "seed of the validation and test tasks: the same tasks for every training seed")
    eval_tasks: int = setting(600, "fresh test tasks in an evaluation")
    eval_steps: int = setting(10, "inner steps evaluated")
    eval_query: int = setting(15, "query images a class in an evaluation, besides as many as shots")

    EVALUATION: ClassVar[tuple[str, ...]] = ("eval_seed", "eval_tasks", "eval_steps", "eval_query")
    FREE: ClassVar[tuple[str, ...]] = (*Settings.FREE, "eval_tasks", "eval_steps", "eval_query")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shots", "query_images", "meta_batch", "steps", "filters", "validation_tasks", "eval_tasks",
                     "eval_steps", "eval_query"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.ways < 2:
            raise ValueError(f"ways must be at least 2, got {self.ways}")
        for name in ("alpha", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be a positive number, got {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden needs positive numbers, got {self.hidden}")

    @property
    def inner_alpha(self) -> float:
        """The step size on the mean support loss that does what `alpha` does on `inner_loss`."""
        return self.alpha * self.ways if self.inner_loss == "sum-over-k" else self.alpha


def _omniglot(ways: int, shots: int, **others: Any) -> dict[str, Any]:
    own = {"steps": 1, "alpha": 0.4, "meta_batch": 32} if ways == 5 else {"steps": 5, "alpha": 0.1, "meta_batch": 16}
    return {"ways": ways, "shots": shots, "query_images": shots, **own, **others}


def _colour(dataset: str, shots: int) -> dict[str, Any]:
    """MiniImagenet's settings. The authors clip the gradient of a loss summed over 75 images and divided by K."""
    return {
        "dataset": dataset,
        "shots": shots,
        "query_images": 15,
        "meta_batch": 4 if shots == 1 else 2,
        "steps": 5,
        "alpha": 0.01,
        "inner_loss": "sum-over-k",
        "filters": 32,
        "downsample": "max-pool",
        "head_start": "xavier-uniform",
        "rotations": False,
        "clip_element": 10 * shots / (5 * 15),
    }


_DENSE = {"network": "mlp", "start": "truncated-normal", "head_start": "truncated-normal"}

# Names of experiments, and in what their settings differ from the defaults.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    **{f"omniglot-{n}way-{k}shot": _omniglot(n, k) for n in (5, 20) for k in (1, 5)},
    **{f"omniglot-5way-{k}shot-noconv": _omniglot(5, k, **_DENSE) for k in (1, 5)},
    **{f"miniimagenet-5way-{k}shot": _colour("miniimagenet", k) for k in (1, 5)},
    **{f"cifar-fs-5way-{k}shot": _colour("cifar_fs", k) for k in (1, 5)},
    "glyphs-5way-1shot": _omniglot(5, 1, dataset="glyphs", iterations=2_000, rotations=False),
}
