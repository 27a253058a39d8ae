"""Training and evaluating policies (paper, section 5.3, algorithm 3)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.control import outer
from tinymaml.experiments.control.domain import NEW_GOALS, Control, ControlTraining
from tinymaml.experiments.control.methods import PolicyMethod
from tinymaml.experiments.control.workbench import Workbench
from tinymaml.meta.maml import NonFiniteError
from tinymaml.rl.objectives import Batch
from tinymaml.rl.rollouts import Rollouts, pad_to_longest
from tinymaml.train import results
from tinymaml.train.provenance import provenance
from tinymaml.train.trainer import Figures, Trained

# Parts of the random numbers' key: which iteration and step they are of comes after.
_TRAINING, _EVALUATION, _GOALS = 0, 1, 2
VALIDATION_SEED = 1_000_003  # of validation goals, which are not those of the evaluation


class ControlTrainer:
    """A method in an environment; see `tinymaml.train.trainer.Trainer`."""

    images = 0

    def __init__(
        self, domain: Control, method: PolicyMethod, training: ControlTraining, experiment: str, name: str
    ) -> None:
        domain.check(training)
        self.domain, self.method, self.training = domain, method, training
        self.experiment, self.name = experiment, name
        self._bench: Workbench | None = None
        self._sampler: Any = None
        self._clock = _Clock()
        self._evaluation: _Evaluation | None = None

    @property
    def bench(self) -> Workbench:
        """Made when it is first asked for: it makes environments."""
        if self._bench is None:
            self._bench = Workbench(self.domain, self.method, self.training)
        return self._bench

    @property
    def model(self) -> Any:
        """The policy."""
        return self.bench.policy

    def settings(self) -> dict[str, Any]:
        """All settings, for JSON."""
        return {**self.training.as_dict(), **self.domain.as_dict(), **self.method.as_dict()}

    def free(self) -> frozenset[str]:
        """The settings that may differ between a checkpoint and the run that goes on from it."""
        return self.training.names("free") | self.domain.names("free") | self.method.names("free")

    def ready(self) -> None:
        """Raises what can be said before training begins: there is no such environment, say."""
        self.bench.goals(np.random.default_rng(0), 1)

    # Training.

    def start(self) -> Tree:
        """The policy's parameters, from the seed; `best` are those with the highest return in training."""
        rng, dtype = np.random.default_rng(self.training.seed), np.dtype(self.training.dtype)
        params = self.bench.policy.init(rng, dtype)
        state = {"params": params, "iteration": 0, "best": None}
        if self.method.outer != "trpo":
            state["optimiser"] = optim.adam(self.method.learning_rate).init(params)
        return state

    def step(self, state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        """The state after so many meta-iterations, and the figures of each."""
        of_each = []
        for _ in range(count):
            state, figures = self._iteration(state) if self.method.TRAINED else (_counted(state), {"loss": 0.0})
            of_each.append(figures)
        return state, of_each

    def _iteration(self, state: Tree) -> tuple[Tree, Figures]:
        """Sample with the policy and with the adapted ones, and take an outer step."""
        bench, method, clock = self.bench, self.method, self._clock
        clock.clear()
        number, params = state["iteration"], state["params"]
        tasks = self.training.meta_batch if method.ADAPTS else self.domain.pooled_rollouts
        goals = bench.goals(np.random.default_rng((self.training.seed, _GOALS, number)), tasks)
        supports: list[Batch] = []
        phi, figures, unstable = params, {}, 0
        for k in range(method.steps if method.ADAPTS else 0):
            rollouts = self._sample(phi, goals, number, k)
            figures[f"return_{k}"], unstable = float(rollouts.returns().mean()), unstable + rollouts.unstable
            with clock("adaptation"):
                supports.append(bench.batch(rollouts))
                phi = bench.adapted(phi, supports[-1], np.asarray(method.alpha, self.training.dtype))
        rollouts = self._sample(phi, goals, number, len(supports))
        gained, unstable = float(rollouts.returns().mean()), unstable + rollouts.unstable
        with clock("adaptation"):
            *supports, query = pad_to_longest([*supports, bench.batch(rollouts)])
            query |= bench.sampled_with(phi, query)
        with clock("outer"):
            after, of_update = outer.update(bench, state, supports, query)
        best = state["best"]
        if best is None or gained > best["return"]:
            best = {"iteration": number, "return": gained, "params": params}
        figures |= {f"return_{len(supports)}": gained, **of_update, "unstable": float(unstable), **clock.seconds}
        return {**_counted(after), "best": best}, figures

    def _sample(self, params: Tree, goals: Array, number: int, step: int) -> Rollouts:
        """Episodes with the policy, or with each task's own; those of all goals as one task's, where none adapts."""
        if self._sampler is None:
            rollouts = self.domain.rollouts if self.method.ADAPTS else 1
            self._sampler = self.bench.sampler(len(goals), rollouts)
        with self._clock("sampling"):
            sampled: Rollouts = self._sampler(params, goals, (self.training.seed, _TRAINING, number, step))
            return sampled if self.method.ADAPTS else sampled.pooled()

    # Validation and evaluation.

    @property
    def evaluation(self) -> _Evaluation:
        """Made when it is first asked for."""
        if self._evaluation is None:
            self._evaluation = _Evaluation(self.bench)
        return self._evaluation

    def validate(self, state: Tree) -> Figures | None:
        """Minus the mean return on validation goals, over all steps but those before adaptation."""
        if not self.method.TRAINED:
            return None
        returns = self.evaluation.returns(
            state["params"], self._goals(VALIDATION_SEED), self.method.alpha, (VALIDATION_SEED,)
        )
        means = returns.mean(1)
        after = means[1:] if len(means) > 1 else means
        return {"validation": -float(after.mean()), **{f"validation_{k}": float(m) for k, m in enumerate(means)}}

    def evaluate(self, trained: Trained, progress: bool = True) -> dict[str, Any]:
        """The method's entry of results.json: returns on new goals before and after inner steps (paper, table 5)."""
        domain, evaluation = self.domain, self.evaluation
        goals = self._goals(domain.eval_seed)
        searched = self._search(trained.state["params"]) if self.method.FINE_TUNED else {}
        alpha = _best(searched) if searched else self.method.alpha

        def measured(iteration: int, params: Tree) -> Any:
            returns = evaluation.returns(params, goals, alpha, (domain.eval_seed,))
            return results.measured(iteration, {NEW_GOALS: results.figures(returns)})

        parameters = {"last": measured(trained.iterations, trained.state["params"])}
        for name, best in (("best in validation", trained.best), ("best in training", trained.state["best"])):
            if best:
                parameters[name] = measured(best["iteration"], best["params"])
        return results.entry(
            domain=domain.name,
            metric=domain.METRIC,
            unit=domain.UNIT,
            better=domain.BETTER,
            protocol={
                "tasks": domain.eval_goals,
                "rollouts": domain.eval_rollouts,
                "steps": evaluation.steps,
                "alpha": alpha,
                "decay": domain.eval_decay,
            },
            provenance=provenance(self.settings(), trained),
            parameters=parameters,
            step_size_search={NEW_GOALS: {str(a): value for a, value in searched.items()}} if searched else {},
            details={},
        )

    def _goals(self, seed: int) -> Array:
        return self.bench.goals(np.random.RandomState(seed), self.domain.eval_goals)

    def _search(self, params: Tree) -> dict[float, float | None]:
        """The mean return after the steps for each first step size, on validation goals; None where it diverged."""
        goals = self._goals(VALIDATION_SEED)
        searched: dict[float, float | None] = {}
        for alpha in self.method.finetune_alphas:
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    returns = self.evaluation.returns(params, goals, alpha, (VALIDATION_SEED,))
                    searched[alpha] = float(returns[1:].mean())
            except NonFiniteError:
                searched[alpha] = None
        return searched


def _counted(state: Tree) -> Tree:
    return {**state, "iteration": state["iteration"] + 1}


def _best(searched: dict[float, float | None]) -> float:
    """The step size with the highest return; the smallest, if all diverged."""
    return max(searched, key=lambda alpha: (-np.inf if searched[alpha] is None else searched[alpha], -alpha))


class _Evaluation:
    """Returns on goals before and after inner steps."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.steps = 0 if bench.method.INFORMED else bench.domain.eval_steps
        self._samplers: dict[int, Any] = {}

    def returns(self, params: Tree, goals: Array, alpha: float, key: tuple[int, ...]) -> Array:
        """The mean return for each goal after each number of inner steps, [steps + 1, goals]."""
        bench, count = self.bench, len(goals)
        sampler = self._samplers.get(count)
        if sampler is None:
            sampler = self._samplers[count] = bench.sampler(count, bench.domain.eval_rollouts)
        returns = []
        for k in range(self.steps + 1):
            rollouts = sampler(params, goals, (*key, _EVALUATION, k))
            returns.append(rollouts.returns())
            if k < self.steps:
                size = alpha if k == 0 else alpha * bench.domain.eval_decay
                params = bench.adapted(params, bench.batch(rollouts), np.asarray(size, bench.training.dtype))
        return np.array(returns)


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
