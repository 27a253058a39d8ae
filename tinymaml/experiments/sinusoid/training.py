"""The sinusoid experiment (paper, section 5.1 and appendix B): four methods, how each is trained and how each is
evaluated.

maml and fomaml learn a start from which a few inner steps fit a new sinusoid. pretrained is one network trained on all
sinusoids, then fine-tuned on a new one with the step size that suits it best. oracle is told amplitude and phase as
inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinymaml import mean, meta_value_and_grad, mse, nn, optim, tree, value_and_grad
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.experiments.sinusoid.table import condition
from tinymaml.meta.maml import NonFiniteError
from tinymaml.tasks import sinusoid
from tinymaml.train import results, sampling
from tinymaml.train.inner import ORDERS, inner_step, of_tasks, step_of_those_alive
from tinymaml.train.loop import Figures, Step, Trained, one_by_one, provenance
from tinymaml.train.replay import outer_step
from tinymaml.train.stretch import stretches

METHODS: tuple[str, ...] = ("maml", "fomaml", "pretrained", "oracle")

_BLOCK = 1000  # meta-batches drawn at once: drawing many costs little more than drawing one
_TASKS = 25_000  # at most in them, unless one meta-batch has more


def network(settings: SinusoidSettings, method: str) -> nn.Model:
    """The paper's MLP; the oracle's has two more inputs."""
    return nn.mlp([3 if method == "oracle" else 1, *settings.hidden, 1], settings.activation, settings.start)


def loss_of(model: nn.Model) -> Callable[[Tree, Tree], Any]:
    """Mean squared error of each task on a batch {"x": [T, N, I], "y": [T, N, 1]}."""
    return lambda params, batch: mse(model.apply(params, batch["x"]), batch["y"])


def batches(drawn: sinusoid.Sinusoids, method: str, parts: tuple[slice, ...]) -> list[dict[str, Array]]:
    """Parts of the drawn points as batches, in C order; for the oracle amplitude and phase stand beside x."""
    found = []
    for part in parts:
        x, y = drawn.x[:, part], drawn.y[:, part]
        if method == "oracle":
            extra = [np.broadcast_to(a[:, None, None], x.shape) for a in (drawn.amplitude, drawn.phase)]
            x = np.concatenate([x, *extra], axis=2)
        found.append({"x": np.ascontiguousarray(x), "y": np.ascontiguousarray(y)})
    return found


def start_state(settings: SinusoidSettings, method: str) -> Tree:
    """Weights, optimiser and the place in the stream of tasks, from the seed."""
    params = network(settings, method).init(np.random.default_rng(settings.seed), np.dtype(settings.dtype))
    if settings.learn_alpha and method in ORDERS:
        params = {"network": params, "alpha": tree.map(lambda p: np.full_like(p, settings.alpha), params)}
    return {
        "params": params,
        "optimiser": optim.adam(settings.learning_rate).init(params),
        "stream": {"seed": settings.seed, "next_task": 0},
    }


def stepper(settings: SinusoidSettings, method: str) -> Step:
    """Iterations of training, a pure function of the state."""
    loss = loss_of(network(settings, method))
    meta = method in ORDERS
    gradient = _meta_gradient(settings, method, loss) if meta else value_and_grad(lambda p, batch: mean(loss(p, batch)))
    optimiser, size = optim.adam(settings.learning_rate), settings.meta_batch
    points = settings.shots + settings.query_points
    if settings.device == "gpu":
        counts = (settings.shots, settings.query_points) if meta else (points,)
        draw = partial(
            sampling.sinusoids, dtype=settings.dtype, tasks=size, parts=counts, told=method == "oracle", split="train",
            **_ranges(settings),
        )  # fmt: skip

        def loss_and_gradient(params: Tree, *batches: Tree) -> tuple[Tree, Tree]:
            value, grads = gradient(params, *batches)
            return {"loss": value}, grads

        return stretches(draw, loss_and_gradient, optimiser, ("loss",), settings.longest_step, settings.dtype)
    take = outer_step(gradient, optimiser, settings.record)
    parts = (slice(0, settings.shots), slice(settings.shots, points)) if meta else (slice(None),)
    count = max(1, min(_BLOCK, _TASKS // size)) * size
    first, block = -1, []  # the block of meta-batches drawn last, and the index of its first task

    def step(state: Tree) -> tuple[Tree, Figures]:
        nonlocal first, block
        seed, task = state["stream"]["seed"], state["stream"]["next_task"]
        if first < 0 or not first <= task < first + count:
            drawn = _draw(settings, seed, "train", task, count, points)
            first, block = task, batches(drawn, method, parts)
        here = slice(task - first, task - first + size)
        batch = [{k: a[here] for k, a in part.items()} for part in block]
        value, params, own = take(state["params"], state["optimiser"], *batch)
        if not math.isfinite(value):
            raise NonFiniteError("the loss is not finite")
        stream = {"seed": seed, "next_task": task + size}
        return {"params": params, "optimiser": own, "stream": stream}, {"loss": float(value)}

    return one_by_one(step)


def _meta_gradient(settings: SinusoidSettings, method: str, loss: Any) -> Callable[..., tuple[Any, Tree]]:
    options = settings.meta_gradient(ORDERS[method])

    def meta(params: Tree, support: Tree, query: Tree) -> tuple[Any, Tree]:
        if not settings.learn_alpha:
            return meta_value_and_grad(loss, params, support, query, settings.alpha, settings.steps, **options)
        weights, alpha = params["network"], params["alpha"]
        value, (by_weights, by_alpha) = meta_value_and_grad(
            loss, weights, support, query, alpha, settings.steps, learn_alpha=True, **options
        )
        return value, {"network": by_weights, "alpha": by_alpha}

    return meta


def validator(settings: SinusoidSettings, method: str) -> Callable[[Tree], Figures] | None:
    """The error on validation tasks, mean over the inner steps from 1 on, with the fewest support points; MAML only.

    Meta-training goes on improving the first inner step at the price of the later ones, of which it sees nothing: some
    tasks come to the edge of stability, or beyond. The training loss does not show it, this does.
    """
    if method not in ORDERS:
        return None
    model = network(settings, method)
    drawn = _evaluation_tasks(settings, "validation", settings.eval_tasks)

    def validate(state: Tree) -> Figures:
        alpha = None if settings.learn_alpha else settings.alpha
        errors, _ = _curve(settings, method, model, state["params"], alpha, drawn, min(settings.eval_shots))
        return {"validation": float(np.mean(errors[1:], dtype=np.float64))}

    return validate


def evaluate(settings: SinusoidSettings, method: str, trained: Trained) -> dict[str, Any]:
    """The entry of results.json: mean squared error on fresh test tasks after every inner step, with 95 % intervals.

    Every task has `eval_query` query points, and its first 5, 10, 20 (`eval_shots`) of the same support points. The
    figures are of the last parameters, as the paper's; those that were best in validation stand beside them.
    """
    model = network(settings, method)
    params = trained.state["params"]
    drawn = _evaluation_tasks(settings, "test", settings.eval_tasks)
    searched, alphas = {}, dict.fromkeys(map(str, settings.eval_shots), settings.alpha)
    if method == "pretrained":
        searched = {str(k): _search(settings, model, params, k) for k in settings.eval_shots}
        alphas = {k: _best(errors) for k, errors in searched.items()}

    def measured(iteration: int, params: Tree) -> results.Measured:
        found = {
            condition(int(k)): results.figures(*_curve(settings, method, model, params, a, drawn, int(k)))
            for k, a in alphas.items()
        }
        return results.measured(iteration, found)

    best = trained.best
    return results.entry(
        domain="sinusoid",
        metric="mean squared error",
        better="lower",
        protocol={
            "split": "test",
            "seed": settings.eval_seed,
            "first_task": 0,
            "tasks": settings.eval_tasks,
            "query_points": settings.eval_query,
            "alpha": "none" if method == "oracle" else "learned" if _learned(params) else alphas,
            "interval": "mean ± 1.96 sigma / sqrt(tasks)",
        },
        provenance=provenance(settings, trained),
        step_size_search={condition(int(k)): errors for k, errors in searched.items()},
        parameters={
            results.LAST: measured(trained.iterations, params),
            results.BEST_IN_VALIDATION: measured(best["iteration"], best["params"]) if best else None,
        },
        details={"sketches": _sketches(settings, method, model, params, alphas)},
    )


def _evaluation_tasks(settings: SinusoidSettings, split: str, tasks: int) -> sinusoid.Sinusoids:
    points = max(settings.eval_shots) + settings.eval_query
    return _draw(settings, settings.eval_seed, split, 0, tasks, points)


def _draw(
    settings: SinusoidSettings, seed: int, split: str, first_task: int, tasks: int, points: int
) -> sinusoid.Sinusoids:
    return sinusoid.sample(seed, split, first_task, tasks, points, **_ranges(settings), dtype=settings.dtype)


def _ranges(settings: SinusoidSettings) -> dict[str, Any]:
    return {"amplitude": settings.amplitude, "phase": settings.phase, "x": settings.x}


def _learned(params: Tree) -> bool:
    return isinstance(params, dict) and "alpha" in params


def _adaptation(params: Tree, alpha: float | None) -> tuple[Tree, Tree]:
    """(weights, step sizes); None is for the learned ones."""
    return (params["network"], params["alpha"]) if _learned(params) else (params, alpha)


def _curve(
    settings: SinusoidSettings,
    method: str,
    model: nn.Model,
    params: Tree,
    alpha: float | None,
    drawn: sinusoid.Sinusoids,
    shots: int,
) -> tuple[list[Array], Array]:
    """Query error [tasks] after 0, 1, ... inner steps, infinite from where a task left all bounds; and which diverged.

    Diverged is a task whose support loss ends above where it began, which a user sees without any test data. The oracle
    does not adapt: it knows the task.
    """
    most = max(settings.eval_shots)
    support, query = batches(drawn, method, (slice(0, shots), slice(most, None)))
    loss = loss_of(model)
    params, rates = _adaptation(params, alpha)
    errors = [loss(params, query).numpy()]
    if method == "oracle":
        return errors * (settings.eval_steps + 1), np.zeros(len(drawn.x), np.bool_)
    alive = np.arange(len(drawn.x))
    before = loss(params, support).numpy()
    step = inner_step(loss, rates, None, settings)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(settings.eval_steps):
            params, going = step_of_those_alive(step, params, of_tasks(support, alive))
            alive = alive[going]
            errors.append(_losses_of_those_alive(loss, params, query, alive))
        after = _losses_of_those_alive(loss, params, support, alive)
    return errors, ~(after <= before)


def _losses_of_those_alive(loss: Any, params: Tree, batch: Tree, alive: Array) -> Array:
    """The loss of every task [tasks]; infinite where it is not a number, and for tasks that are not alive."""
    found = np.full(len(batch["x"]), np.inf, batch["y"].dtype)
    if len(alive):
        found[alive] = loss(params, of_tasks(batch, alive)).numpy()
    return np.where(np.isnan(found), np.inf, found)


def _search(settings: SinusoidSettings, model: nn.Model, params: Tree, shots: int) -> dict[float, float | None]:
    """Error after the last step on validation tasks for each step size of the grid; None where it is infinite."""
    drawn = _evaluation_tasks(settings, "validation", settings.eval_tasks)
    found = {}
    for alpha in settings.finetune_alphas:
        errors, _ = _curve(settings, "pretrained", model, params, alpha, drawn, shots)
        mean = float(errors[-1].mean(dtype=np.float64))
        found[alpha] = mean if math.isfinite(mean) else None
    return found


def _best(searched: dict[float, float | None]) -> float:
    """The step size with the smallest error; the smallest step size, if all diverged."""
    return min(searched, key=lambda alpha: (math.inf if searched[alpha] is None else searched[alpha], alpha))


def _sketches(
    settings: SinusoidSettings, method: str, model: nn.Model, params: Tree, alphas: dict[str, Any], tasks: int = 6
) -> list[dict[str, Any]]:
    """Curves of the first test tasks after 0, 1 and all inner steps, for the pictures."""
    drawn = _evaluation_tasks(settings, "test", tasks)
    low, high = settings.x
    x = np.linspace(low, high, 100, dtype=settings.dtype)
    line = drawn._replace(x=np.broadcast_to(x[None, :, None], (tasks, 100, 1)), y=np.zeros((tasks, 100, 1), x.dtype))
    (grid,) = batches(line, method, (slice(None),))
    found = []
    for shots in settings.eval_shots:
        (support,) = batches(drawn, method, (slice(0, shots),))
        adapted, rates = _adaptation(params, alphas[str(shots)])
        take = inner_step(loss_of(model), rates, None, settings)
        alive = np.arange(tasks)
        curves = {0: _lines_of_those_alive(model, adapted, grid["x"], alive)}
        for step in range(1, settings.eval_steps + 1):
            if method != "oracle":
                with np.errstate(over="ignore", invalid="ignore"):
                    adapted, going = step_of_those_alive(take, adapted, of_tasks(support, alive))
                alive = alive[going]
            curves[step] = _lines_of_those_alive(model, adapted, grid["x"], alive)
        for t in range(tasks):
            found.append(
                {
                    "amplitude": float(drawn.amplitude[t]),
                    "phase": float(drawn.phase[t]),
                    "shots": shots,
                    "support_x": support["x"][t, :, 0].tolist(),
                    "support_y": support["y"][t, :, 0].tolist(),
                    "x": x.tolist(),
                    "steps": {str(k): curves[k][t] for k in sorted({0, 1, settings.eval_steps})},
                }
            )
    return found


def _lines_of_those_alive(model: nn.Model, params: Tree, x: Array, alive: Array) -> list[list[float | None]]:
    """The network's outputs at x[tasks, N, I], for JSON: None where not finite, and for tasks that are not alive."""
    found = np.full(x.shape[:2], np.nan)
    if len(alive):
        with np.errstate(over="ignore", invalid="ignore"):
            found[alive] = model.apply(params, x[alive]).numpy()[..., 0]
    return [[value if math.isfinite(value) else None for value in line] for line in found.tolist()]
