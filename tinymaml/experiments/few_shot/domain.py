"""Few-shot classification of images as a domain (paper, section 5.2): tell N new classes apart by K images of each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np

from tinymaml import softmax_cross_entropy, tree
from tinymaml.autodiff.tensor import Array, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods import (
    CAVIA,
    IMAML,
    MAML,
    ContextVector,
    FineTune,
    MAMLPlusPlus,
    Matching,
    NearestNeighbour,
    ProtoMAML,
    Prototypical,
    Reptile,
    Siamese,
)
from tinymaml.methods.method import Batch, Episodes
from tinymaml.nn import nets
from tinymaml.nn.initialisers import INITIALISERS
from tinymaml.settings import setting
from tinymaml.tasks import episodes, glyphs, imageset
from tinymaml.tasks.imageset import ImageSet
from tinymaml.train import sampling
from tinymaml.train.device_loop import share_of_correct
from tinymaml.train.domain import DeviceStream, Domain, Test
from tinymaml.train.training import Training

DRAWN = "glyphs"  # by a program: there is no file of them
LARGE = "miniimagenet"  # stays in its file, from which every meta-batch is read

# How query images are normalised: all of a task by their own statistics, or each by those of the support images.
TRANSDUCTIVE, INDUCTIVE = "transductive", "inductive"


@dataclass(frozen=True)
class ImageTraining(Training):
    """Settings of training on images."""

    iterations: int = setting(60_000, "meta-iterations", free=True)
    log_every: int = setting(100, "iterations between two lines of metrics", free=True)
    checkpoint_every: int = setting(1_000, "iterations between two checkpoints", free=True)
    validate_every: int = setting(
        1_000, "iterations between two validations; the best parameters are kept beside the last"
    )
    meta_batch: int = setting(32, "tasks a meta-iteration")
    validation_tasks: int = setting(300, "tasks of the validation classes in a validation")
    eval_steps: int = setting(10, "inner steps evaluated", free=True, evaluation=True)
    eval_batch: int = setting(25, "tasks evaluated at a time; more take more memory", free=True, evaluation=True)


@dataclass(frozen=True)
class FewShotImages(Domain):
    """N-way K-shot classification; the defaults are those of Omniglot, 5-way 1-shot, with convolutions."""

    METRIC: ClassVar[str] = "accuracy"
    UNIT: ClassVar[str] = "%"  # scores are shares
    BETTER: ClassVar[Literal["lower", "higher"]] = "higher"
    STREAMS: ClassVar[tuple[str, ...]] = ("episodes", "labelled")
    METHODS: ClassVar[Mapping[str, Any]] = {
        "maml": MAML(alpha=0.4),
        "fomaml": MAML(alpha=0.4, order=1),
        "meta-sgd": MAML(alpha=0.4, learn_alpha=True),
        "anil": MAML(alpha=0.1, steps=5, adapted=("head",)),
        "context-vector": ContextVector(context=10, alpha=0.4),
        "cavia": CAVIA(context=100, film_layer=3, alpha=1.0, steps=2),
        "reptile": Reptile(inner_optimiser="adam", alpha=1e-3, meta_step=1.0, schedule_iterations=100_000),
        "imaml": IMAML(alpha=0.1),
        "maml++": MAMLPlusPlus(schedule_iterations=50_000),
        "prototypical": Prototypical(),
        "matching": Matching(),
        "siamese": Siamese(),
        "proto-maml": ProtoMAML(alpha=0.01),
        "nearest-neighbour": NearestNeighbour(),
        "fine-tune": FineTune(finetune_alphas=(0.5, 0.2, 0.1, 0.05, 0.01, 0.001)),
    }
    TRAINING: ClassVar[Training] = ImageTraining()
    CHECKS_FIT: ClassVar[bool] = False  # tasks diverge where their predictions cease to be finite

    dataset: str = setting("omniglot", "the set of images: a prepared file, NAME.h5, or glyphs, which code draws")
    data: str | None = setting(
        None, "folder of the prepared file; if not given, $TINYMAML_DATA or ./data", free=True, evaluation=True
    )
    ways: int = setting(5, "classes a task", least=2)
    shots: int = setting(1, "support images a class")
    network: str = setting("conv", "convolutions, or linear layers alone", ("conv", "mlp"))
    query_images: int = setting(1, "query images a class in meta-training")
    batch_images: int = setting(64, "labelled images a step, for methods that learn to tell all training classes apart")
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
    initialiser: str = setting("xavier-uniform", "how weights start; biases start at 0", tuple(INITIALISERS))
    head_initialiser: str = setting("standard-normal", "how the last layer's weights start", tuple(INITIALISERS))
    rotations: bool = setting(True, "turn each class of a task by a multiple of 90 degrees, drawn at random")
    test_steps: int = setting(3, "inner steps at meta-test: the table's, and validation's", evaluation=True)
    eval_query: int = setting(
        15, "query images a class in an evaluation, beside as many as shots", free=True, evaluation=True
    )

    @property
    def name(self) -> str:
        """As results call it."""
        return "few-shot"

    @property
    def folder_name(self) -> str:
        """Of the data set and the tasks."""
        return f"{self.dataset}-{self.ways}way-{self.shots}shot"

    # The network.

    def model(self) -> nets.ImageModel:
        """The paper's network, for images of the data set."""
        return self.wider_model(0)

    def wider_model(self, extra: int) -> nets.ImageModel:
        """With more channels of the image."""
        height, width, channels = self.shape
        shape = (height, width, channels + extra)
        if self.network == "mlp":
            return nets.norm_mlp(shape, self.ways, self.hidden, self.initialiser, self.head_initialiser)
        return nets.conv_net(
            shape,
            self.ways,
            self.filters,
            self.layers,
            downsample=self.downsample,
            initialiser=self.initialiser,
            head_initialiser=self.head_initialiser,
        )

    def adapted(self, params: Tree) -> Tree:
        """All parameters but batch norm's gamma and beta, or these too."""
        norm = {"gamma": self.adapt_norm, "beta": self.adapt_norm}
        return {"hidden": [tree.map(lambda _: True, layer) | norm for layer in params["hidden"]], "head": True}

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The mean cross-entropy of each task."""
        return softmax_cross_entropy(outputs, targets)

    def figures(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """The share of query images that are classified correctly."""
        return {"accuracy": share_of_correct(outputs, targets)}

    def score(self, outputs: Array, targets: Any) -> Array:
        """The share of images whose largest logit is their label's; none is, where it is not finite."""
        correct: Array = ((outputs.argmax(-1) == targets) & np.isfinite(outputs).all(-1)).mean(-1)
        return correct

    def answer(self, model: nets.ImageModel, params: Tree, support: Batch, inputs: Tree) -> Tree:
        """Logits of images that are normalised together, or each by the statistics of the support images."""
        statistics = None
        if any(name.startswith(INDUCTIVE) for name in inputs):
            statistics = model.statistics(params, support["x"])
        return {
            name: model.apply(params, x, statistics if name.startswith(INDUCTIVE) else None)
            for name, x in inputs.items()
        }

    @property
    def inner_scale(self) -> float:
        """Of the mean cross-entropy, as the inner loss has it."""
        return self.ways if self.inner_loss == "sum-over-k" else 1

    # The data.

    @property
    def path(self) -> Path:
        """The prepared file: in the folder given, else in $TINYMAML_DATA, else in ./data."""
        path = imageset.default_path(self.dataset)
        return path if self.data is None else Path(self.data) / path.name

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images. Raises FileNotFoundError: the message says how to prepare them."""
        if self.dataset == DRAWN:
            return glyphs.SIDE, glyphs.SIDE, 1
        height, width, channels = imageset.describe(self.path)["shape"]
        return height, width, channels

    def identity(self) -> str:
        """The hash of the data set's content."""
        return DRAWN if self.dataset == DRAWN else str(imageset.describe(self.path)["content"])

    @cached_property
    def _splits(self) -> dict[str, ImageSet]:
        return {}

    def images_of(self, split: str) -> ImageSet:
        """A split of the data set, read when it is first asked for.

        Raises:
            FileNotFoundError: it was not prepared; the message names the command that does it.
            ValueError: it is damaged.
        """
        if split not in self._splits:
            if self.dataset == DRAWN:
                self._splits[split] = glyphs.images(split)
            else:
                self._splits[split] = imageset.read(self.path, split, lazy=self.dataset == LARGE)
        return self._splits[split]

    def draw(self, seed: int, split: str, first_task: int, tasks: int, queries: int, dtype: Any) -> Episodes:
        """Support and query sets of tasks with so many query images a class, the examples class by class.

        Raises ValueError: there are too few classes, or images in a class.
        """
        images = self.images_of(split)
        drawn = episodes.sample(
            images,
            seed,
            split,
            first_task,
            tasks,
            ways=self.ways,
            shots=self.shots,
            queries=queries,
            rotations=self.rotations,
        )

        def batch(part: Batch) -> Batch:
            return {"x": part["x"].astype(dtype, copy=False), "y": part["y"]}

        return batch(drawn.support), batch(drawn.query)

    # Streams and tests.

    def episodes(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Episodes:
        """As in meta-training."""
        return self.draw(seed, split, first_task, tasks, self.query_images, dtype)

    def in_training(self, stream: str, **settings: Any) -> FewShotImages:
        """With other settings; for single labelled images all training classes are told apart."""
        other = cast(FewShotImages, super().in_training(stream, **settings))
        return other if stream == "episodes" else AllClasses(**_values(other)).with_all_ways()

    def device_stream(self, stream: str, training: Training) -> DeviceStream:
        """Episodes drawn on the GPU, where the data set is, the same as on the CPU."""
        images = self.images_of("train")

        def draw(place: Tensor, pixels: Tensor, first: Tensor) -> tuple[Any, Tensor]:
            batches, after = sampling.episodes(
                place, pixels, first, dtype=training.dtype, tasks=training.meta_batch, ways=self.ways,
                shots=self.shots, queries=self.query_images, split=images.split, rotations=self.rotations,
            )  # fmt: skip
            return tuple(batches), after

        return DeviceStream(draw, (images.images, images.first))

    def tests(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> list[Test]:
        """One support set, and as many query images a class as shots, or `eval_query`, normalised either way."""
        conditions = [(kind, q) for kind in (TRANSDUCTIVE, INDUCTIVE) for q in sorted({self.shots, self.eval_query})]
        return [self._test(conditions, seed, split, first_task, tasks, dtype)]

    def validation_tests(self, seed: int, first_task: int, tasks: int, dtype: Any) -> list[Test]:
        """Measured as the paper does: as many query images as in meta-training, normalised together."""
        return [self._test([(TRANSDUCTIVE, self.query_images)], seed, "validation", first_task, tasks, dtype)]

    def _test(
        self, conditions: Sequence[tuple[str, int]], seed: int, split: str, first_task: int, tasks: int, dtype: Any
    ) -> Test:
        most = max(q for _, q in conditions)
        support, query = self.draw(seed, split, first_task, tasks, most, dtype)
        inputs, targets = {}, {}
        for kind, q in conditions:
            # The examples are ordered class by class; these are the first q of each.
            first = (np.arange(self.ways)[:, None] * most + np.arange(q)).ravel()
            inputs[condition(kind, q)], targets[condition(kind, q)] = query["x"][:, first], query["y"][:, first]
        return Test(support, inputs, targets)

    def validation_steps(self, training: Training) -> Sequence[int]:
        """After the inner steps of meta-test alone."""
        return [self.test_steps]

    def validation(self, scores: Mapping[str, Array]) -> dict[str, float]:
        """The share of query images taken for another class, and of those that are not."""
        (accuracies,) = scores.values()
        accuracy = float(accuracies.mean())
        return {"validation": 1 - accuracy, "validation_accuracy": accuracy}

    def protocol(self, training: Training) -> dict[str, Any]:
        """Of which classes, and how images are normalised."""
        images = self.images_of("test")
        return {
            "dataset": images.name,
            "classes": len(images.classes),
            "ways": self.ways,
            "shots": self.shots,
            "query_per_class": sorted({self.shots, self.eval_query}),
            "batch_norm": [TRANSDUCTIVE, INDUCTIVE],
            "adapt_norm": self.adapt_norm,
            "inner_loss": self.inner_loss,
            "test_steps": self.test_steps,
        }

    def images(self, training: Training) -> int:
        """Images in a meta-iteration."""
        return training.meta_batch * self.ways * (self.shots + self.query_images)

    def least_numbers(self, training: Training) -> int:
        """Parameters with the optimiser's state, and a layer's outputs."""
        if self.network == "conv":
            parameters, width = 9 * self.filters * (1 + self.filters * (self.layers - 1)), self.filters
        else:
            parameters, width = sum(a * b for a, b in itertools.pairwise(self.hidden)), max(self.hidden)
        return 4 * parameters + max(self.images(training) * width, training.eval_tasks)

    def check(self, training: Training) -> None:
        """Raises ValueError: more steps at meta-test than are evaluated, or data that do not suffice."""
        if self.test_steps > training.eval_steps:
            raise ValueError(f"test_steps must be at most eval_steps, {training.eval_steps}, got {self.test_steps}")


class AllClasses(FewShotImages):
    """All training classes to be told apart at once, by single labelled images.

    Where classes are turned in tasks, each quarter turn of a class is a class of its own here.
    """

    def with_all_ways(self) -> AllClasses:
        """With as many ways as there are classes."""
        if self.dataset == DRAWN:
            classes = len(self.images_of("train").classes)
        else:
            classes = len(imageset.describe(self.path)["classes"].get("train", ()))
        return replace(self, ways=classes * self._turns)

    @property
    def _turns(self) -> int:
        return 4 if self.rotations else 1

    def labelled(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Batch:
        """`batch_images` images a task, each drawn from all of a split: x [tasks, N, H, W, C], y int64 [tasks, N]."""
        x, y = episodes.labelled(
            self.images_of(split), seed, split, first_task, tasks, count=self.batch_images, turns=self._turns
        )
        return {"x": x.astype(dtype, copy=False), "y": y}

    def device_stream(self, stream: str, training: Training) -> DeviceStream:
        """Raises ValueError: they are drawn by the CPU alone."""
        raise ValueError("single labelled images are drawn on the CPU: there is no --device gpu for methods that do so")

    def images(self, training: Training) -> int:
        """Images in an iteration."""
        return training.meta_batch * self.batch_images


def _values(domain: FewShotImages) -> dict[str, Any]:
    return {field.name: getattr(domain, field.name) for field in fields(domain)}


def condition(kind: str, query: int) -> str:
    """What figures are of: how images are normalised, and how many query images a class there are."""
    return f"{kind}, {query} query"


def first_order(method: MAML) -> MAML:
    """The same method without second derivatives."""
    return replace(method, order=1)
