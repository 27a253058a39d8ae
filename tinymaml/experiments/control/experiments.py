"""The experiments in reinforcement learning with the paper's settings, where it says (section 5.3, appendix A.2)."""

from __future__ import annotations

import dataclasses
from typing import Any

from tinymaml.experiments.control import table
from tinymaml.experiments.control.domain import Control, ControlTraining, Locomotion, Navigation
from tinymaml.experiments.control.methods import METHODS
from tinymaml.experiments.control.plots import PICTURES
from tinymaml.train.experiment import Experiment


def experiment(
    name: str, domain: Control, training: ControlTraining | None = None, fixed: bool = True, **method: Any
) -> Experiment:
    """Of an environment; `method` are settings of all methods."""
    return Experiment(
        domain,
        name,
        {key: dataclasses.replace(one, **method) for key, one in METHODS.items()},
        training or ControlTraining(),
        f"meta reinforcement learning: {name.replace('-', ', ')}",
        frozenset({"environment"} if fixed else ()),
        table.table,
        PICTURES,
        "policy",
        needs=(("gymnasium", "rl"), ("mujoco", "rl")) if fixed else (("gymnasium", "rl"),),
    )


ENVIRONMENT = dataclasses.replace(
    experiment("control", Control(), fixed=False),
    summary="meta reinforcement learning in any environment of Gymnasium: --environment ID",
    general=True,
)

EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        experiment("navigation", Navigation(), ControlTraining(iterations=150, validate_every=10, meta_batch=20)),
        # KL .02 as in the authors' code; lambda .95, as with 1 adaptation is too noisy: docs/results/README.md.
        experiment("cheetah-direction", Locomotion(environment="tinymaml/HalfCheetahDirection-v0", gae=0.95), max_kl=0.02),
        # 10 episodes as in the authors' code; the larger trust region as with .01 it learns half as fast.
        experiment(
            "cheetah-velocity",
            Locomotion(environment="tinymaml/HalfCheetahVelocity-v0", rollouts=10, gae=0.95),
            max_kl=0.03,
        ),
        experiment(
            "ant-direction",
            Locomotion(environment="tinymaml/AntDirection-v0", rollouts=40, eval_rollouts=40, eval_goals=2),
        ),
        # With a quarter of the transitions an iteration, and what half cheetah needed, the authors' figures in an hour.
        experiment(
            "ant-velocity",
            Locomotion(environment="tinymaml/AntVelocity-v0", rollouts=10, gae=0.95),
            ControlTraining(meta_batch=20),
            max_kl=0.02,
        ),
    )
}
