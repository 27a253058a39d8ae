"""What a method needs to sample and to learn in an environment: its policy, samplers, and steps that are replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.compile.replayed import replayed
from tinymaml.experiments.control.domain import Control, ControlTraining
from tinymaml.experiments.control.methods import PolicyMethod
from tinymaml.rl import policies
from tinymaml.rl.advantages import advantages
from tinymaml.rl.learner import Learner
from tinymaml.rl.objectives import Batch
from tinymaml.rl.rollouts import Rollouts, batch_of


class Workbench:
    """Of a method in a domain; an environment is made to ask for its spaces.

    Raises:
        ValueError: there is no such environment, or it is none to learn in.
    """

    def __init__(self, domain: Control, method: PolicyMethod, training: ControlTraining) -> None:
        from tinymaml.rl import vector_env

        self.domain, self.method, self.training, self._vector_env = domain, method, training, vector_env
        env = vector_env.make(domain.environment, 1, domain.horizon, **domain.options)
        observations, actions, discrete = vector_env.sizes(env)
        env.close()
        observations += self.goals(np.random.default_rng(0), 1).shape[1] if method.INFORMED else 0
        if discrete:
            self.policy = policies.categorical(observations, actions, domain.hidden, domain.activation)
        else:
            self.policy = policies.gaussian(
                observations, actions, domain.hidden, domain.activation, domain.log_std, domain.min_std
            )
        self.learner = Learner(self.policy, method.alpha, method.ppo_clip if method.outer == "ppo" else None)

    def goals(self, rng: Any, n: int) -> Array:
        """n goals [n, g]."""
        goals: Array = self._vector_env.sample_goals(self.domain.environment, rng, n, **self.domain.options)
        return goals

    def single(self, render_mode: str) -> Any:
        """One environment, whose episodes end after the horizon."""
        domain = self.domain
        return self._vector_env.make_single(
            domain.environment, render_mode=render_mode, max_episode_steps=domain.horizon, **domain.options
        )

    def sampler(self, tasks: int, rollouts: int) -> Any:
        """See `tinymaml.rl.sampler.Sampler`."""
        from tinymaml.rl.sampler import Sampler

        return Sampler(
            self.domain.environment,
            self.policy,
            tasks,
            rollouts,
            self.domain.horizon,
            self.training.workers,
            self.method.INFORMED,
            self.training.dtype,
            **self.domain.options,
        )

    def batch(self, rollouts: Rollouts) -> Batch:
        """What the losses read of rollouts."""
        domain = self.domain
        estimates = advantages(rollouts, domain.discount, domain.gae)
        return batch_of(rollouts, estimates, domain.horizon, self.training.dtype)

    def _replayed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return replayed(function, self.training.record)

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
