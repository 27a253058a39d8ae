"""Meta reinforcement learning (paper, section 5.3, algorithm 3): four methods, how each is trained and evaluated.

maml learns a start from which a few policy gradient steps suit the policy to a new task. pretrained is one policy
trained on all tasks at once, oracle one that is told the goal, random is not trained at all. Then pretrained and random
are fine-tuned on a new task as maml is, with the step size that suits them best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinymaml import optim, tree
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.control.settings import RLSettings
from tinymaml.experiments.control.table import CONDITION
from tinymaml.meta.maml import NonFiniteError
from tinymaml.rl import policies, trpo
from tinymaml.rl.advantages import advantages
from tinymaml.rl.learner import Learner
from tinymaml.rl.objectives import Batch
from tinymaml.rl.rollouts import Rollouts, alike, batch_of, thinned
from tinymaml.train import results
from tinymaml.train.loop import Figures, Step, Trained, one_by_one, provenance
from tinymaml.train.replay import replayed

METHODS: tuple[str, ...] = ("maml", "pretrained", "oracle", "random")

# Parts of the random numbers' key: which iteration and step they are of comes after.
_TRAINING, _EVALUATION, _GOALS = 0, 1, 2
VALIDATION_SEED = 1_000_003  # of validation goals, which are not those of the evaluation


class Workbench:
    """What a method needs to sample and to learn, made when first asked for."""

    def __init__(self, settings: RLSettings, method: str) -> None:
        from tinymaml.rl import lanes

        self.settings, self.told = settings, method == "oracle"
        self._lanes = lanes
        env = lanes.make(settings.environment, 1, settings.horizon, **settings.options)
        observations, actions, discrete = lanes.sizes(env)
        env.close()
        observations += self.goals(np.random.default_rng(0), 1).shape[1] if self.told else 0
        if discrete:
            self.policy = policies.categorical(observations, actions, settings.hidden, settings.activation)
        else:
            self.policy = policies.gaussian(
                observations, actions, settings.hidden, settings.activation, settings.log_std, settings.min_std
            )
        self.learner = Learner(self.policy, settings.alpha, settings.ppo_clip if settings.outer == "ppo" else None)

    def goals(self, rng: Any, n: int) -> Array:
        """n goals [n, g]."""
        return self._lanes.sample_goals(self.settings.environment, rng, n, **self.settings.options)

    def single(self, render_mode: str) -> Any:
        """One environment, whose episodes end after the horizon."""
        own = self.settings
        return self._lanes.make_single(
            own.environment, render_mode=render_mode, max_episode_steps=own.horizon, **own.options
        )

    def sampler(self, tasks: int, rollouts: int) -> Any:
        """See `tinymaml.rl.sampler.Sampler`."""
        from tinymaml.rl.sampler import Sampler

        own = self.settings
        return Sampler(
            own.environment,
            self.policy,
            tasks,
            rollouts,
            own.horizon,
            own.workers,
            self.told,
            own.dtype,
            **own.options,
        )

    def batch(self, rollouts: Rollouts) -> Batch:
        """What the losses read of rollouts."""
        own = self.settings
        return batch_of(rollouts, advantages(rollouts, own.discount, own.gae), own.horizon, own.dtype)

    def _replayed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return replayed(function, self.settings.record)

    @cached_property
    def adapted(self) -> Callable[..., Any]:
        return self._replayed(self.learner.adapted)

    @cached_property
    def sampled_with(self) -> Callable[..., Any]:
        return self._replayed(self.learner.sampled_with)

    @cached_property
    def losses(self) -> Callable[..., Any]:
        return self._replayed(self.learner.losses)

    @cached_property
    def gradient(self) -> Callable[..., Any]:
        return self._replayed(self.learner.gradient)

    @cached_property
    def divergence_gradient(self) -> Callable[..., Any]:
        return self._replayed(self.learner.divergence_gradient)

    @cached_property
    def curvature(self) -> Callable[..., Any]:
        return self._replayed(self.learner.curvature)


def start_state(settings: RLSettings, method: str) -> Tree:
    """The policy's parameters, from the seed; `best` are those with the highest return in training."""
    params = Workbench(settings, method).policy.init(np.random.default_rng(settings.seed), np.dtype(settings.dtype))
    state = {"params": params, "iteration": 0, "best": None}
    return state if settings.outer == "trpo" else state | {"optimiser": optim.adam(settings.learning_rate).init(params)}


def stepper(settings: RLSettings, method: str) -> Step:
    """Iterations of training, a pure function of the state."""
    if method == "random":
        return one_by_one(lambda state: ({**state, "iteration": state["iteration"] + 1}, {"loss": 0.0}))
    bench = Workbench(settings, method)
    meta = method == "maml"
    sampler = (
        bench.sampler(settings.meta_batch, settings.rollouts) if meta else bench.sampler(settings.pooled_rollouts, 1)
    )
    tasks = settings.meta_batch if meta else settings.pooled_rollouts
    clock = _Clock()

    def sample(params: Tree, goals: Array, number: int, step: int) -> Rollouts:
        with clock("sampling"):
            found: Rollouts = sampler(params, goals, (settings.seed, _TRAINING, number, step))
            return found if meta else found.pooled()

    def step(state: Tree) -> tuple[Tree, Figures]:
        clock.clear()
        number, params = state["iteration"], state["params"]
        goals = bench.goals(np.random.default_rng((settings.seed, _GOALS, number)), tasks)
        supports: list[Batch] = []
        phi, figures, unstable = params, {}, 0
        for k in range(settings.steps if meta else 0):
            rollouts = sample(phi, goals, number, k)
            figures[f"return_{k}"], unstable = float(rollouts.returns().mean()), unstable + rollouts.unstable
            with clock("adaptation"):
                supports.append(bench.batch(rollouts))
                phi = bench.adapted(phi, supports[-1], np.asarray(settings.alpha, settings.dtype))
        rollouts = sample(phi, goals, number, len(supports))
        gained, unstable = float(rollouts.returns().mean()), unstable + rollouts.unstable
        with clock("adaptation"):
            *supports, query = alike([*supports, bench.batch(rollouts)])
            query |= bench.sampled_with(phi, query)
        with clock("outer"):
            after, found = _update(settings, bench, state, supports, query)
        best = state["best"]
        if best is None or gained > best["return"]:
            best = {"iteration": number, "return": gained, "params": params}
        figures |= {f"return_{len(supports)}": gained, **found, "unstable": float(unstable), **clock.seconds}
        return {**after, "iteration": number + 1, "best": best}, figures

    return one_by_one(step)


def _update(
    settings: RLSettings, bench: Workbench, state: Tree, supports: Sequence[Batch], query: Batch
) -> tuple[Tree, Figures]:
    """The outer update, and what there is to say of it."""
    params = state["params"]
    if settings.outer != "trpo":
        return _adam_steps(settings, bench, state, supports, query)
    loss, gradient = bench.gradient(params, supports, query)

    def losses(x: Array) -> tuple[float, float]:
        found, divergence = bench.losses(_like(params, x), supports, query)
        return float(found), float(divergence)

    done = trpo.step(
        _vector(params),
        float(loss),
        _vector(gradient),
        _product(settings, bench, params, supports, query),
        losses,
        settings.max_kl,
        settings.cg_iterations,
        settings.damping,
    )
    moved = _like(params, done.params) if done.accepted else params
    figures = {"loss": done.loss, "kl": done.divergence, "tries": float(done.tries), "accepted": float(done.accepted)}
    return {**state, "params": moved}, figures


def _adam_steps(
    settings: RLSettings, bench: Workbench, state: Tree, supports: Sequence[Batch], query: Batch
) -> tuple[Tree, Figures]:
    """Adam on the meta-gradient: once, where the ratio is 1 (vpg), or several times with the ratio clipped (ppo)."""
    optimiser = optim.adam(settings.learning_rate)
    params, moments = state["params"], state["optimiser"]
    loss = 0.0
    for _ in range(settings.ppo_steps if settings.outer == "ppo" else 1):
        value, gradient = bench.gradient(params, supports, query)
        params, moments = optimiser.update(gradient, moments, params)
        loss = float(value)
    _, divergence = bench.losses(params, supports, query)
    return {**state, "params": params, "optimiser": moments}, {"loss": loss, "kl": float(divergence)}


def _product(
    settings: RLSettings, bench: Workbench, params: Tree, supports: Sequence[Batch], query: Batch
) -> trpo.Product:
    """The KL's Hessian times a vector, on a share of the transitions."""
    few, asked = [thinned(own, settings.curvature_share) for own in supports], thinned(query, settings.curvature_share)
    if settings.curvature == "exact":
        seen = {name: asked[name] for name in ("observations", "weights", "shares")}
        return lambda v: _vector(bench.curvature(params, few, seen, _like(params, v)))
    centre = _vector(params)
    size = 1 / (np.linalg.norm(centre) + 1e-8)  # as the authors have it

    def difference(v: Array) -> Array:
        ahead, behind = [
            _vector(bench.divergence_gradient(_like(params, x), few, asked)[1])
            for x in (centre + size * v, centre - size * v)
        ]
        return (ahead - behind) / (2 * size)

    return difference


def _vector(params: Tree) -> Array:
    """All numbers of a tree, float64[P]."""
    return np.concatenate([x.ravel() for x in tree.leaves(params)]).astype(np.float64)


def _like(params: Tree, vector: Array) -> Tree:
    """A vector as a tree like params."""
    leaves, structure = tree.flatten(params)
    cuts = np.cumsum([x.size for x in leaves])[:-1]
    parts = np.split(vector, cuts)
    return tree.unflatten(structure, [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)])


class _Clock:
    """Seconds spent on the parts of an iteration."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._began = "", 0.0

    def clear(self) -> None:
        self.seconds = {}

    def __call__(self, name: str) -> _Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        name = f"seconds_{self._name}"
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._began


def validator(settings: RLSettings, method: str) -> Callable[[Tree], Figures] | None:
    """Minus the mean return on validation goals, over all steps but those before adaptation."""
    if method == "random":
        return None
    evaluation = _Evaluation(settings, method)
    goals = evaluation.bench.goals(np.random.RandomState(VALIDATION_SEED), settings.eval_goals)

    def validate(state: Tree) -> Figures:
        found = evaluation.returns(state["params"], goals, settings.alpha, (VALIDATION_SEED,))
        means = found.mean(1)
        after = means[1:] if len(means) > 1 else means
        return {"validation": -float(after.mean()), **{f"validation_{k}": float(m) for k, m in enumerate(means)}}

    return validate


class _Evaluation:
    """Returns on goals before and after inner steps."""

    def __init__(self, settings: RLSettings, method: str) -> None:
        self.settings, self.bench = settings, Workbench(settings, method)
        self.steps = 0 if method == "oracle" else settings.eval_steps
        self._samplers: dict[int, Any] = {}

    def returns(self, params: Tree, goals: Array, alpha: float, key: tuple[int, ...]) -> Array:
        """The mean return for each goal after each number of inner steps, [steps + 1, goals]."""
        own, count = self.settings, len(goals)
        sampler = self._samplers.get(count)
        if sampler is None:
            sampler = self._samplers[count] = self.bench.sampler(count, own.eval_rollouts)
        found = []
        for k in range(self.steps + 1):
            rollouts = sampler(params, goals, (*key, _EVALUATION, k))
            found.append(rollouts.returns())
            if k < self.steps:
                size = alpha if k == 0 else alpha * own.eval_decay
                params = self.bench.adapted(params, self.bench.batch(rollouts), np.asarray(size, own.dtype))
        return np.array(found)


def evaluate(settings: RLSettings, method: str, trained: Trained) -> dict[str, Any]:
    """The method's entry of results.json: returns on new goals before and after inner steps (paper, table 5)."""
    evaluation = _Evaluation(settings, method)
    goals = evaluation.bench.goals(np.random.RandomState(settings.eval_seed), settings.eval_goals)
    searched = {} if method in ("maml", "oracle") else _search(settings, evaluation, trained.state["params"])
    alpha = _best(searched) if searched else settings.alpha

    def measured(iteration: int, params: Tree) -> results.Measured:
        found = evaluation.returns(params, goals, alpha, (settings.eval_seed,))
        return results.measured(iteration, {CONDITION: results.figures(found)})

    chosen, gained = trained.best, trained.state["best"]
    return results.entry(
        domain="control",
        metric="return",
        better="higher",
        protocol={
            "tasks": settings.eval_goals,
            "rollouts": settings.eval_rollouts,
            "steps": evaluation.steps,
            "alpha": alpha,
            "decay": settings.eval_decay,
        },
        provenance=provenance(settings, trained),
        step_size_search={CONDITION: searched} if searched else {},
        parameters={
            results.LAST: measured(trained.iterations, trained.state["params"]),
            results.BEST_IN_VALIDATION: measured(chosen["iteration"], chosen["params"]) if chosen else None,
            results.BEST_IN_TRAINING: measured(gained["iteration"], gained["params"]) if gained else None,
        },
    )


def _search(settings: RLSettings, evaluation: _Evaluation, params: Tree) -> dict[float, float | None]:
    """The mean return after the steps for each first step size, on validation goals; None where it diverged."""
    goals = evaluation.bench.goals(np.random.RandomState(VALIDATION_SEED), settings.eval_goals)
    found: dict[float, float | None] = {}
    for alpha in settings.finetune_alphas:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found[alpha] = float(evaluation.returns(params, goals, alpha, (VALIDATION_SEED,))[1:].mean())
        except NonFiniteError:
            found[alpha] = None
    return found


def _best(searched: dict[float, float | None]) -> float:
    """The step size with the highest return; the smallest, if all diverged."""
    return max(searched, key=lambda alpha: (-np.inf if searched[alpha] is None else searched[alpha], -alpha))
