"""Few-shot classification of images (paper, section 5.2): a start from which a few inner steps tell new classes apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from tinymaml import adapt, meta_value_and_grad, nets, optim, softmax_cross_entropy, tree
from tinymaml.tasks import episodes, imageset
from tinymaml.tensor import Array
from tinymaml.train.image_settings import ImageSettings
from tinymaml.tree import Tree

_CHUNK = 25  # tasks evaluated at a time, so that memory stays small


@lru_cache(maxsize=8)
def images_of(dataset: str, split: str) -> imageset.ImageSet:
    """The images of a split, in memory. Raises FileNotFoundError, naming the command that prepares them."""
    return imageset.read(imageset.default_path(dataset), split)


def network(settings: ImageSettings) -> nets.ImageModel:
    """The network for the data set's images."""
    image = images_of(settings.dataset, "train").images.shape[1:]
    if settings.network == "mlp":
        return nets.norm_mlp(image, settings.ways, settings.hidden, settings.start, settings.head_start)
    return nets.conv_net(
        image,
        settings.ways,
        settings.filters,
        downsample=settings.downsample,
        start=settings.start,
        head_start=settings.head_start,
    )


def _loss(model: nets.ImageModel) -> Callable[[Tree, Tree], Any]:
    """Mean cross-entropy of each task."""
    return lambda params, batch: softmax_cross_entropy(model.apply(params, batch["x"]), batch["y"])


def _adapted(settings: ImageSettings, params: Tree) -> Tree:
    """Which parameters the inner steps move: all but batch-norm's, unless asked."""
    norm = {"gamma": settings.adapt_norm, "beta": settings.adapt_norm}
    return {"hidden": [tree.map(lambda _: True, own) | norm for own in params["hidden"]], "head": True}


def _draw(
    settings: ImageSettings, split: str, seed: int, first_task: int, tasks: int, queries: int
) -> episodes.Episodes:
    return episodes.sample(
        images_of(settings.dataset, split),
        seed,
        split,
        first_task,
        tasks,
        ways=settings.ways,
        shots=settings.shots,
        queries=queries,
        rotations=settings.rotations,
    )


def start_state(settings: ImageSettings) -> Tree:
    """Weights, optimiser and the place in the stream of tasks, from the seed."""
    params = network(settings).init(np.random.default_rng(settings.seed), np.dtype(settings.dtype))
    return {
        "params": params,
        "optimiser": optim.adam(settings.learning_rate).init(params),
        "stream": {"seed": settings.seed, "next_task": 0},
    }


def stepper(settings: ImageSettings, method: str) -> Callable[[Tree], tuple[Tree, float]]:
    """One iteration of training, a pure function of the state."""
    loss = _loss(network(settings))
    optimiser = optim.adam(settings.learning_rate)

    def step(state: Tree) -> tuple[Tree, float]:
        params, stream = state["params"], state["stream"]
        drawn = _draw(
            settings, "train", stream["seed"], stream["next_task"], settings.meta_batch, settings.query_images
        )
        value, grads = meta_value_and_grad(
            loss,
            params,
            drawn.support,
            drawn.query,
            settings.inner_alpha,
            settings.steps,
            order=1 if method == "fomaml" else 2,
            mode=settings.hvp_mode,
            records=settings.records,
            adapted=_adapted(settings, params),
            clip_element=settings.clip_element,
            clip_norm=settings.clip_norm,
        )
        params, moments = optimiser.update(grads, state["optimiser"], params)
        stream = stream | {"next_task": stream["next_task"] + settings.meta_batch}
        return {"params": params, "optimiser": moments, "stream": stream}, float(value)

    return step


def accuracies(
    settings: ImageSettings, params: Tree, split: str, tasks: int, steps: int, queries: int
) -> Iterator[tuple[int, dict[str, Array]]]:
    """(first task, {"transductive", "inductive": [steps + 1, tasks]}) for some tasks of a split at a time.

    Transductive: batch-norm takes the statistics of the query images; inductive: of the support images, through the
    same adapted weights, so that every query image is classified by itself.
    """
    model = network(settings)
    loss = _loss(model)
    for first in range(0, tasks, _CHUNK):
        drawn = _draw(settings, split, settings.eval_seed, first, min(_CHUNK, tasks - first), queries)
        phi, labels = params, drawn.query["y"]
        found: dict[str, list[Array]] = {"transductive": [], "inductive": []}
        for k in range(steps + 1):
            if k:
                phi = adapt(loss, phi, drawn.support, settings.inner_alpha, 1, adapted=_adapted(settings, params))
            for name, statistics in (
                ("transductive", None),
                ("inductive", model.statistics(phi, drawn.support["x"])),
            ):
                logits = model.apply(phi, drawn.query["x"], statistics).data
                found[name].append((logits.argmax(-1) == labels).mean(1))
        yield first, {name: np.stack(rows) for name, rows in found.items()}


def validator(settings: ImageSettings) -> Callable[[Tree], float]:
    """The share of query images of validation tasks told wrong after the inner steps of meta-training."""

    def validate(state: Tree) -> float:
        parts = accuracies(
            settings, state["params"], "validation", settings.validation_tasks, settings.steps, settings.query_images
        )
        return 1 - float(np.concatenate([found["transductive"][-1] for _, found in parts]).mean())

    return validate
