"""Settings of experiments: frozen dataclasses whose fields are documented, and are the options of the command line."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from tinymaml.train.schema import MOST, is_number
from tinymaml.transforms import MODES


def setting(default: Any, text: str, choices: tuple[Any, ...] | None = None, fixed: bool = False) -> Any:
    """A field with its help text. What is fixed belongs to the experiment: it is no option of the command line."""
    return field(default=default, metadata={"help": text, "choices": choices, "fixed": fixed})


@dataclass(frozen=True)
class Settings:
    """What every experiment has."""

    seed: int = setting(0, "seed of the start of the weights and of the stream of tasks")
    iterations: int = setting(70_000, "meta-iterations")
    log_every: int = setting(500, "iterations between two lines of metrics")
    checkpoint_every: int = setting(5_000, "iterations between two checkpoints")
    keep: int = setting(3, "checkpoints kept")
    validate_every: int = setting(
        2_500, "iterations between two validations; the best parameters are kept beside the last"
    )

    record: bool = setting(True, "record the training step once and replay it, to the same bits")
    device: str = setting("cpu", "where to compute", ("cpu", "gpu"))
    precision: str = setting(
        "fp32",
        "of products on a GPU: fp32, or tf32, by the matrix units, whose operands have 10 bits",
        ("fp32", "tf32"),
    )

    # What may differ between a checkpoint and the run that resumes it.
    FREE: ClassVar[tuple[str, ...]] = ("iterations", "log_every", "checkpoint_every", "keep", "record", "device")

    # What only the evaluation after training takes, or the validation too: it may be given anew to evaluate again.
    EVALUATION: ClassVar[tuple[str, ...]] = ("device",)

    def __post_init__(self) -> None:
        for own in dataclasses.fields(self):
            value, choices = getattr(self, own.name), own.metadata["choices"]
            if choices and value not in choices:
                raise ValueError(f"{own.name} must be one of {', '.join(map(str, choices))}, got {value!r}")
        self._check_counts("iterations", "log_every", "checkpoint_every", "keep", "validate_every")

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")

    @property
    def images(self) -> int:
        """Images in a meta-iteration; 0 where the data are no images."""
        return 0

    @property
    def longest_step(self) -> int:
        """Iterations at most in one step of training: on a GPU the host looks on only now and then."""
        return 500 if self.device == "gpu" else 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what `as_dict` gave, read back from JSON; other entries are passed over. Raises ValueError: one is of a
        wrong type, or out of bounds."""
        hints = typing.get_type_hints(cls)
        given: dict[str, Any] = {}
        for name in (own.name for own in dataclasses.fields(cls)):
            if name in values:
                given[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
                if not _is_of(given[name], hints[name]):
                    raise ValueError(f"{name} cannot be {values[name]!r}")
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: tuples become lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


def _is_of(value: Any, hint: Any) -> bool:
    """Whether it is of the type of a field: a number, a boolean, text, a tuple of them, or None where that is one."""
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, typing.get_args(hint)[0]) for item in value)
    if typing.get_origin(hint) is types.UnionType:
        return any(_is_of(value, own) for own in typing.get_args(hint))
    if hint is float:
        return is_number(value)
    return type(value) is hint and (hint is not int or abs(value) < MOST)


@dataclass(frozen=True)
class MetaSettings(Settings):
    """What every supervised experiment has: the meta-gradient's settings, and how many tasks are evaluated."""

    meta_batch: int = setting(25, "tasks a meta-iteration")
    steps: int = setting(1, "inner steps in meta-training")
    alpha: float = setting(0.01, "step size of the inner steps")
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser")
    hvp_mode: str = setting(MODES[0], "how Hessian-vector products are made", MODES)
    records: str = setting(
        "keep", "records of the inner steps: kept, or recomputed to save memory", ("keep", "recompute")
    )
    clip_element: float | None = setting(None, "bound on each element of the meta-gradient")
    clip_norm: float | None = setting(None, "bound on the norm of the meta-gradient")
    dtype: str = setting("float32", "of parameters and data", ("float32", "float64"))
    eval_seed: int = setting(0, "seed of the validation and test tasks: the same tasks for every training seed")
    eval_tasks: int = setting(600, "fresh test tasks in an evaluation")
    eval_steps: int = setting(10, "inner steps evaluated")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("meta_batch", "steps", "eval_tasks", "eval_steps")
        self._check_positive("alpha", "learning_rate", "clip_element", "clip_norm")

    def meta_gradient(self, order: int) -> dict[str, Any]:
        """The options of `tinymaml.meta_value_and_grad`."""
        return {
            "order": order,
            "mode": self.hvp_mode,
            "records": self.records,
            "clip_element": self.clip_element,
            "clip_norm": self.clip_norm,
        }


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
        self._check_counts("shots", "query_points", "eval_query")
        for name in ("amplitude", "phase", "x"):
            if len(getattr(self, name)) != 2 or not getattr(self, name)[0] < getattr(self, name)[1]:
                raise ValueError(f"{name} needs two numbers, the lower first, got {getattr(self, name)}")
        for name in ("hidden", "eval_shots", "finetune_alphas"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise ValueError(f"{name} needs positive numbers, got {getattr(self, name)}")
