"""Sinusoids as a domain (paper, section 5.1 and appendix B): each task is to regress one from a few points.

For an oracle amplitude and phase stand beside x, as inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml import nn
from tinymaml.autodiff.tensor import Array
from tinymaml.methods import CAVIA, IMAML, MAML, ContextVector, MAMLPlusPlus, MultiTask, Reptile
from tinymaml.methods.method import Batch, Episodes
from tinymaml.nn.initialisers import INITIALISERS
from tinymaml.settings import setting
from tinymaml.tasks import sinusoid
from tinymaml.train import sampling
from tinymaml.train.domain import DeviceStream, Domain, Predict, Test
from tinymaml.train.training import Training


@dataclass(frozen=True)
class Sinusoids(Domain):
    """Few-shot regression of sinusoids; the defaults are the paper's."""

    BLOCK: ClassVar[int] = 1000
    METHODS: ClassVar[Mapping[str, Any]] = {
        **Domain.METHODS,
        "meta-sgd": MAML(learn_alpha=True),
        "anil": MAML(adapted=("head",)),
        "context-vector": ContextVector(context=10, alpha=0.1),
        "cavia": CAVIA(context=5, alpha=1.0),
        "reptile": Reptile(),
        "imaml": IMAML(steps=10, alpha=0.001, proximity=50.0, clip_element=1.0),
        "maml++": MAMLPlusPlus(steps=3, alpha=0.002, clip_element=1.0),
        "multi-task": MultiTask(),
        "multi-task-l2": MultiTask(regulariser="l2"),
        "multi-task-l2-to-mean": MultiTask(regulariser="l2-to-mean"),
    }

    shots: int = setting(10, "support points a task in meta-training")
    query_points: int = setting(10, "query points a task in meta-training")
    hidden: tuple[int, ...] = setting((40, 40), "units of each hidden layer")
    activation: str = setting("relu", "nonlinearity between layers", tuple(nn.ACTIVATIONS))
    initialiser: str = setting("he-normal", "how weights start; biases start at 0", tuple(INITIALISERS))
    amplitude: tuple[float, ...] = setting((0.1, 5.0), "range of the sinusoids' amplitudes")
    phase: tuple[float, ...] = setting((0.0, math.pi), "range of the sinusoids' phases, radians")
    x: tuple[float, ...] = setting((-5.0, 5.0), "range of the points")
    eval_shots: tuple[int, ...] = setting((5, 10, 20), "numbers of support points evaluated", evaluation=True)
    eval_query: int = setting(100, "query points a task in an evaluation", evaluation=True)

    # Whether amplitude and phase are inputs too: of the oracle's domain, not a setting.
    task_inputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("amplitude", "phase", "x"):
            if len(getattr(self, name)) != 2 or not getattr(self, name)[0] < getattr(self, name)[1]:
                raise ValueError(f"{name} needs two numbers, the lower first, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        """As results call it."""
        return "sinusoid"

    def model(self) -> nn.Model:
        """The paper's MLP; the oracle's has two more inputs."""
        return nn.mlp([3 if self.task_inputs else 1, *self.hidden, 1], self.activation, self.initialiser)

    def wider_model(self, extra: int) -> nn.Model:
        """With more inputs."""
        return nn.mlp([1 + extra, *self.hidden, 1], self.activation, self.initialiser)

    def informed(self) -> Domain:
        """With amplitude and phase beside x."""
        return InformedSinusoids(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def episodes(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Episodes:
        """The first points are the support set, those after them the query set."""
        drawn = self._draw(seed, split, first_task, tasks, self.shots + self.query_points, dtype)
        return self._batch(drawn, slice(0, self.shots)), self._batch(drawn, slice(self.shots, None))

    def examples(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Batch:
        """The points of both sets."""
        return self._batch(self._draw(seed, split, first_task, tasks, self.shots + self.query_points, dtype))

    def device_stream(self, stream: str, training: Training) -> DeviceStream:
        """Points drawn on the GPU, the same as on the CPU."""
        points = (self.shots, self.query_points) if stream == "episodes" else (self.shots + self.query_points,)

        def draw(place: Any) -> tuple[Any, Any]:
            batches, after = sampling.sinusoids(
                place, dtype=training.dtype, tasks=training.meta_batch, parts=points,
                task_inputs=self.task_inputs, split="train",
                **self._ranges(),
            )  # fmt: skip
            return (tuple(batches) if stream == "episodes" else batches[0]), after

        return DeviceStream(draw)

    def tests(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> list[Test]:
        """For each number of support points the first of the same points; the query points are the same too."""
        return self._tests(self.eval_shots, seed, split, first_task, tasks, dtype)

    def validation_tests(self, seed: int, first_task: int, tasks: int, dtype: Any) -> list[Test]:
        """Of the fewest support points.

        Meta-training goes on improving the first inner step at the price of the later ones, of which it sees nothing:
        some tasks come to the edge of stability, or beyond. The training loss does not show it, validation does.
        """
        return self._tests((min(self.eval_shots),), seed, "validation", first_task, tasks, dtype)

    def _tests(
        self, shots: Sequence[int], seed: int, split: str, first_task: int, tasks: int, dtype: Any
    ) -> list[Test]:
        most = max(self.eval_shots)
        drawn = self._draw(seed, split, first_task, tasks, most + self.eval_query, dtype)
        query = self._batch(drawn, slice(most, None))
        return [
            Test(self._batch(drawn, slice(0, k)), {condition(k): query["x"]}, {condition(k): query["y"]}) for k in shots
        ]

    def protocol(self, training: Training) -> dict[str, Any]:
        """How many points errors are measured at."""
        return {"query_points": self.eval_query}

    def details(self, predict: Predict, training: Training) -> dict[str, Any]:
        """Curves of the first test tasks before and after inner steps, for the paper's figures 2 and 7."""
        tasks = 6
        points = max(self.eval_shots) + self.eval_query
        drawn = self._draw(training.eval_seed, "test", 0, tasks, points, np.dtype(training.dtype))
        x = np.linspace(self.x[0], self.x[1], 100, dtype=training.dtype)
        line = self._batch(drawn._replace(x=np.tile(x[:, None], (tasks, 1, 1)), y=np.zeros((tasks, 100, 1), x.dtype)))
        steps = sorted({0, 1, training.eval_steps})
        sketches = []
        for shots in self.eval_shots:
            support = self._batch(drawn, slice(0, shots))
            curves = predict(condition(shots), support, {"line": line["x"]}, steps)["line"][..., 0]
            for t in range(tasks):
                sketches.append(
                    {
                        "amplitude": float(drawn.amplitude[t]),
                        "phase": float(drawn.phase[t]),
                        "shots": shots,
                        "support_x": support["x"][t, :, 0].tolist(),
                        "support_y": support["y"][t, :, 0].tolist(),
                        "x": x.tolist(),
                        "steps": {str(k): _numbers(curves[i, t]) for i, k in enumerate(steps)},
                    }
                )
        return {"sketches": sketches}

    def least_numbers(self, training: Training) -> int:
        """Parameters with the optimiser's state, and the largest layer's outputs or the test points."""
        sizes = (1, *self.hidden, 1)
        parameters = sum(a * b for a, b in itertools.pairwise(sizes))
        outputs = training.meta_batch * (self.shots + self.query_points) * max(self.hidden)
        return 4 * parameters + max(outputs, training.eval_tasks * self.eval_query)

    def _draw(self, seed: int, split: str, first_task: int, tasks: int, points: int, dtype: Any) -> sinusoid.Sinusoids:
        return sinusoid.sample(seed, split, first_task, tasks, points, **self._ranges(), dtype=dtype)

    def _ranges(self) -> dict[str, Any]:
        return {"amplitude": self.amplitude, "phase": self.phase, "x": self.x}

    def _batch(self, drawn: sinusoid.Sinusoids, part: slice = slice(None)) -> Batch:
        """Some of the points of every task, in C order; for the oracle amplitude and phase stand beside x."""
        x, y = drawn.x[:, part], drawn.y[:, part]
        if self.task_inputs:
            task = [np.broadcast_to(a[:, None, None], x.shape) for a in (drawn.amplitude, drawn.phase)]
            x = np.concatenate([x, *task], axis=2)
        return {"x": np.ascontiguousarray(x), "y": np.ascontiguousarray(y)}


class InformedSinusoids(Sinusoids):
    """Sinusoids whose inputs tell the task."""

    task_inputs: ClassVar[bool] = True


def condition(shots: int) -> str:
    """What figures are of."""
    return f"{shots} support points"


def _numbers(values: Array) -> list[float | None]:
    """For JSON: None where it is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
