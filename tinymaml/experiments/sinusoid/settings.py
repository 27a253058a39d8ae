"""The settings of the sinusoid experiment."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from tinymaml.train.settings import MetaSettings, Settings, setting


@dataclass(frozen=True)
class SinusoidSettings(MetaSettings):
    """Few-shot regression of sinusoids (paper, section 5.1); the defaults are the paper's."""

    shots: int = setting(10, "support points a task in meta-training")
    query_points: int = setting(10, "query points a task in meta-training")
    hidden: tuple[int, ...] = setting((40, 40), "units of each hidden layer")
    activation: str = setting("relu", "nonlinearity between layers", ("relu", "tanh", "sigmoid", "softplus"))
    start: str = setting(
        "he-normal", "how weights start; biases start at 0", ("he-normal", "xavier-uniform", "truncated-normal")
    )
    learn_alpha: bool = setting(False, "learn a step size for every parameter (Meta-SGD)")
    amplitude: tuple[float, ...] = setting((0.1, 5.0), "range of the sinusoids' amplitudes")
    phase: tuple[float, ...] = setting((0.0, math.pi), "range of the sinusoids' phases, radians")
    x: tuple[float, ...] = setting((-5.0, 5.0), "range of the points")
    eval_shots: tuple[int, ...] = setting((5, 10, 20), "numbers of support points evaluated")
    eval_query: int = setting(100, "query points a task in an evaluation")
    finetune_alphas: tuple[float, ...] = setting(
        (3e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
        "step sizes among which the pretrained network's fine-tuning finds the best, on validation tasks",
        positive=True,
    )

    EVALUATION: ClassVar[tuple[str, ...]] = (
        *Settings.EVALUATION,
        "eval_seed",
        "eval_tasks",
        "eval_shots",
        "eval_steps",
        "eval_query",
        "finetune_alphas",
    )
    FREE: ClassVar[tuple[str, ...]] = (*Settings.FREE, "finetune_alphas")  # validation uses the rest of EVALUATION

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("amplitude", "phase", "x"):
            if len(getattr(self, name)) != 2 or not getattr(self, name)[0] < getattr(self, name)[1]:
                raise ValueError(f"{name} needs two numbers, the lower first, got {getattr(self, name)}")

    def least_numbers(self) -> int:
        sizes = (1, *self.hidden, 1)
        parameters = sum(a * b for a, b in itertools.pairwise(sizes))
        training = self.meta_batch * (self.shots + self.query_points) * max(self.hidden)
        return 4 * parameters + max(training, self.eval_tasks * self.eval_query)
