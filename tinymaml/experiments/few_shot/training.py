"""The image-classification experiments (paper, section 5.2): how they are trained and evaluated.

maml and fomaml (first order) learn a start from which a few inner steps on K images a class tell N new classes apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinymaml import meta_value_and_grad, optim, softmax_cross_entropy, tree
from tinymaml.autodiff.tensor import Array, known
from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.few_shot import data as image_data
from tinymaml.experiments.few_shot.data import Batch
from tinymaml.experiments.few_shot.settings import ImageSettings
from tinymaml.experiments.few_shot.table import condition
from tinymaml.nn import nets
from tinymaml.tasks.imageset import ImageSet
from tinymaml.train import results, sampling
from tinymaml.train.inner import ORDERS, inner_step, of_tasks, step_of_those_alive
from tinymaml.train.loop import Figures, Step, Trained, one_by_one, provenance
from tinymaml.train.progress import Progress
from tinymaml.train.replay import outer_step, replayed
from tinymaml.train.stretch import right, stretches

METHODS: tuple[str, ...] = tuple(ORDERS)

# How the query images are normalised: all of a task by their own statistics, or each by those of the support images.
KINDS = ("transductive", "inductive")


def network(settings: ImageSettings) -> nets.ImageModel:
    """The experiment's network, for images of its data set."""
    image = image_data.shape(settings)
    if settings.network == "mlp":
        return nets.norm_mlp(image, settings.ways, settings.hidden, settings.start, settings.head_start)
    return nets.conv_net(
        image,
        settings.ways,
        settings.filters,
        settings.layers,
        downsample=settings.downsample,
        start=settings.start,
        head_start=settings.head_start,
    )


def adapted_of(settings: ImageSettings, params: Tree) -> Tree:
    """Which parameters the inner steps adapt: all but batch norm's gamma and beta, or these too."""
    norm = {"gamma": settings.adapt_norm, "beta": settings.adapt_norm}
    return {"hidden": [tree.map(lambda _: True, own) | norm for own in params["hidden"]], "head": True}


def start_state(settings: ImageSettings, method: str) -> Tree:
    """Weights, optimiser and the place in the stream of tasks, from the seed."""
    params = network(settings).init(np.random.default_rng(settings.seed), np.dtype(settings.dtype))
    return {
        "params": params,
        "optimiser": optim.adam(settings.learning_rate).init(params),
        "stream": {"seed": settings.seed, "next_task": 0, "data": image_data.identity(settings)},
    }


def stepper(settings: ImageSettings, method: str) -> Step:
    """Iterations of training, a pure function of the state."""
    images, data = image_data.read(settings, "train", settings.query_images), image_data.identity(settings)
    model, options = network(settings), settings.meta_gradient(ORDERS[method])

    def gradient(params: Tree, support: Batch, query: Batch) -> tuple[Tree, Tree]:
        logits: Any = None  # of the query images

        def loss(params: Tree, batch: Tree) -> Any:
            nonlocal logits
            found = model.apply(params, batch["x"])
            logits = found if batch is query else logits
            return softmax_cross_entropy(found, batch["y"])

        value, grads = meta_value_and_grad(
            loss,
            params,
            support,
            query,
            settings.inner_alpha,
            settings.steps,
            adapted=adapted_of(settings, params),
            **options,
        )
        return {"loss": value, "logits": logits}, grads

    optimiser = optim.adam(settings.learning_rate)
    iterate = (_on_gpu if settings.device == "gpu" else _on_cpu)(settings, images, gradient, optimiser)

    def step(state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        if state["stream"]["data"] != data:
            raise ValueError(
                f"{settings.dataset} has changed since this run began: take another --out, or the old data"
            )
        return iterate(state, count)

    return step


def _on_cpu(settings: ImageSettings, images: ImageSet, gradient: Any, optimiser: optim.Optimiser) -> Step:
    take = outer_step(gradient, optimiser, settings.record)

    def step(state: Tree) -> tuple[Tree, Figures]:
        seed, task = state["stream"]["seed"], state["stream"]["next_task"]
        support, query = image_data.draw(settings, images, seed, task, settings.meta_batch, settings.query_images)
        found, params, own = take(state["params"], state["optimiser"], support, query)
        right = _right(np.asarray(found["logits"]), query["y"]).mean()
        stream = {**state["stream"], "next_task": task + settings.meta_batch}
        figures = {"loss": float(found["loss"]), "accuracy": float(right)}
        return {"params": params, "optimiser": own, "stream": stream}, figures

    return one_by_one(step)


def _on_gpu(settings: ImageSettings, images: ImageSet, gradient: Any, optimiser: optim.Optimiser) -> Step:
    draw = partial(
        sampling.episodes,
        dtype=settings.dtype,
        tasks=settings.meta_batch,
        ways=settings.ways,
        shots=settings.shots,
        queries=settings.query_images,
        split=images.split,
        rotations=settings.rotations,
    )

    def figures_and_gradient(params: Tree, support: Tree, query: Tree) -> tuple[Tree, Tree]:
        found, grads = gradient(params, support, query)
        return {"loss": found["loss"], "accuracy": right(found["logits"], query["y"])}, grads

    names, data = ("loss", "accuracy"), (images.images, images.first)
    return stretches(draw, figures_and_gradient, optimiser, names, settings.longest_step, settings.dtype, data)


def validator(settings: ImageSettings, method: str) -> Callable[[Tree], Figures]:
    """The share of query images taken for another class, and of those that are not, on validation tasks.

    Measured as the paper does: after the inner steps of meta-test, K query images a class, normalised together.
    """
    images = image_data.read(settings, "validation", settings.query_images)

    def validate(state: Tree) -> Figures:
        kind, query = "transductive", settings.query_images
        tasks, steps = settings.validation_tasks, [settings.test_steps]
        found, _ = _accuracies(settings, state["params"], images, tasks, [query], steps, [kind])
        accuracy = float(found[kind][query].mean())
        return {"validation": 1 - accuracy, "validation_accuracy": accuracy}

    return validate


def evaluate(settings: ImageSettings, method: str, trained: Trained) -> dict[str, Any]:
    """The entry of results.json: accuracy on fresh tasks of the test classes after every inner step.

    Transductive, as the published figures, and inductive, where no query image matters for another.
    """
    queries = sorted({settings.shots, settings.eval_query})
    images = image_data.read(settings, "test", max(queries))

    best = trained.best
    again = best is not None and best["iteration"] != trained.iterations  # else the best parameters are the last
    steps, tasks, began, finished = range(settings.eval_steps + 1), settings.eval_tasks, time.perf_counter(), 0
    progress = Progress(f"{method}, test", tasks * (1 + again), unit="task")

    def done(count: int) -> None:
        nonlocal finished
        finished += count
        progress.update(finished, time.perf_counter() - began)

    def figures(params: Tree) -> dict[str, results.Figures]:
        found, diverged = _accuracies(settings, params, images, tasks, queries, steps, KINDS, done)
        return {
            condition(kind, q): results.figures(accuracies, diverged)
            for kind, own in found.items()
            for q, accuracies in own.items()
        }

    last = figures(trained.state["params"])
    of_best = figures(best["params"]) if best is not None and again else last
    progress.close()
    return results.entry(
        domain="few-shot",
        metric="accuracy",
        unit="%",
        better="higher",
        protocol={
            "dataset": images.name,
            "data": image_data.identity(settings),
            "split": images.split,
            "classes": len(images.classes),
            "seed": settings.eval_seed,
            "first_task": 0,
            "tasks": settings.eval_tasks,
            "ways": settings.ways,
            "shots": settings.shots,
            "query_per_class": queries,
            "batch_norm": list(KINDS),
            "adapt_norm": settings.adapt_norm,
            "alpha": settings.alpha,
            "inner_loss": settings.inner_loss,
            "test_steps": settings.test_steps,
            "interval": "mean ± 1.96 sigma / sqrt(tasks)",
        },
        provenance=provenance(settings, trained),
        parameters={
            results.LAST: results.measured(trained.iterations, last),
            results.BEST_IN_VALIDATION: results.measured(best["iteration"], of_best) if best else None,
        },
    )


def _right(logits: Array, labels: Array) -> Array:
    """The share of each task's examples whose largest logit is their label's, [T]; none is, where it is not finite."""
    return ((logits.argmax(-1) == labels) & np.isfinite(logits).all(-1)).mean(-1)


Accuracies = dict[str, dict[int, Array]]  # [inner steps measured, tasks], by kind and query images a class


def _accuracies(
    settings: ImageSettings,
    params: Tree,
    images: ImageSet,
    tasks: int,
    queries: Sequence[int],
    measured: Sequence[int],
    kinds: Sequence[str],
    done: Callable[[int], None] = lambda tasks: None,
) -> tuple[Accuracies, Array]:
    """Accuracies on the first tasks of a split, and which of them left all bounds, [tasks]: these count as wrong from
    there.

    Args:
        queries: numbers of query images a class.
        measured: numbers of inner steps, rising.
        kinds: "transductive", "inductive".
        done: is told, now and then, how many more tasks were evaluated.
    """
    model, adapted = network(settings), adapted_of(settings, params)

    def loss(params: Tree, batch: Tree) -> Any:
        return softmax_cross_entropy(model.apply(params, batch["x"]), batch["y"])

    step = inner_step(loss, settings.inner_alpha, adapted, settings)

    def apply_with(params: Tree, support: Array, x: Array) -> Any:
        return known(model.apply(params, x, model.statistics(params, support)))

    transductive = replayed(lambda params, x: known(model.apply(params, x)), settings.record, settings.device)
    inductive = replayed(apply_with, settings.record, settings.device)

    def measure(params: Tree, support: Batch, query: Batch) -> dict[tuple[str, int], Array]:
        """The accuracy of each task, [T], by kind and number of query images."""
        found, x, y = {}, query["x"], query["y"]
        # The examples are ordered class by class; these are the first q of each.
        first = {q: (np.arange(settings.ways)[:, None] * max(queries) + np.arange(q)).ravel() for q in queries}
        if "transductive" in kinds:
            for q, own in first.items():
                found["transductive", q] = _right(transductive(params, x[:, own]), y[:, own])
        if "inductive" in kinds:  # so the other images make no difference
            logits = inductive(params, support["x"], x)
            found |= {("inductive", q): _right(logits[:, own], y[:, own]) for q, own in first.items()}
        return found

    total: Accuracies = {kind: {q: np.zeros((len(measured), tasks)) for q in queries} for kind in kinds}
    diverged = np.ones(tasks, np.bool_)
    for first in range(0, tasks, settings.eval_batch):
        count = min(settings.eval_batch, tasks - first)
        support, query = image_data.draw(settings, images, settings.eval_seed, first, count, max(queries))
        alive, own = np.arange(count), params
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(measured[-1] + 1):
                if k:
                    own, going = step_of_those_alive(step, own, of_tasks(support, alive))
                    alive = alive[going]
                if k in measured and len(alive):
                    for (kind, q), right in measure(own, of_tasks(support, alive), of_tasks(query, alive)).items():
                        total[kind][q][measured.index(k), first + alive] = right
        diverged[first + alive] = False
        done(count)
    return total, diverged
