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

LARGEST_SEED = 2**64 - 1


def setting(
    default: Any,
    text: str,
    choices: tuple[Any, ...] | None = None,
    fixed: bool = False,
    *,
    least: float | None = None,
    most: float | None = None,
    positive: bool = False,
) -> Any:
    """A field with its help text, and the range of its numbers, or of each of them.

    Integers are counts, from 1, where nothing else is said. Floating-point numbers are finite; `positive` ones above 0.
    What is fixed belongs to the experiment: it is no option of the command line.
    """
    given = {"help": text, "choices": choices, "fixed": fixed, "least": least, "most": most, "positive": positive}
    return field(default=default, metadata=given)


def kind_of(hint: Any) -> type:
    """Of a setting's values, or of each where there are several: int, float, bool or str."""
    kind: type = typing.get_args(hint)[0] if typing.get_args(hint) else hint
    return kind


def hints_of(settings: type) -> dict[str, Any]:
    """The types of a class's settings, by name."""
    return typing.get_type_hints(settings)


@dataclass(frozen=True)
class Settings:
    """What every experiment has."""

    seed: int = setting(0, "seed of the start of the weights and of the stream of tasks", least=0, most=LARGEST_SEED)
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
        hints = hints_of(type(self))
        for own in dataclasses.fields(self):
            value, choices = getattr(self, own.name), own.metadata["choices"]
            if choices and value not in choices:
                raise ValueError(f"{own.name} must be one of {', '.join(map(str, choices))}, got {value!r}")
            kind = kind_of(hints[own.name])
            if kind in (int, float) and value is not None:
                self._check_range(own, kind, value)

    def _check_range(self, own: dataclasses.Field[Any], kind: type, value: Any) -> None:
        """Raises ValueError, which says what is right, if a number is none that the setting can have."""
        least, most, positive = (own.metadata[name] for name in ("least", "most", "positive"))
        if kind is int:
            least, most = 1 if least is None else least, 2**63 - 1 if most is None else most
        several = isinstance(value, tuple)
        numbers = value if several else (value,)

        def good(number: Any) -> bool:
            above, below = least is None or number >= least, most is None or number <= most
            return above and below and math.isfinite(number) and (number > 0 or not positive)

        if numbers and all(map(good, numbers)):
            return
        if several:
            right = f"needs {'positive' if positive or least else 'finite'} numbers"
        elif positive:
            right = "must be a positive number"
        elif kind is int:
            right = f"must be at least {least}" if value < least else f"must be at most {most}"
        else:
            right = "must be a finite number" if least is None else f"must be in [{least:g}, {most:g}]"
        raise ValueError(f"{own.name} {right}, got {value}")

    def least_numbers(self) -> int:
        """How many numbers a run holds in memory at once, at the very least."""
        return 0

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
    alpha: float = setting(0.01, "step size of the inner steps", positive=True)
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)
    hvp_mode: str = setting(MODES[0], "how Hessian-vector products are made", MODES)
    records: str = setting(
        "keep", "records of the inner steps: kept, or recomputed to save memory", ("keep", "recompute")
    )
    clip_element: float | None = setting(None, "bound on each element of the meta-gradient", positive=True)
    clip_norm: float | None = setting(None, "bound on the norm of the meta-gradient", positive=True)
    dtype: str = setting("float32", "of parameters and data", ("float32", "float64"))
    eval_seed: int = setting(
        0, "seed of the validation and test tasks: the same tasks for every training seed", least=0, most=LARGEST_SEED
    )
    eval_tasks: int = setting(600, "fresh test tasks in an evaluation")
    eval_steps: int = setting(10, "inner steps evaluated")

    def meta_gradient(self, order: int) -> dict[str, Any]:
        """The options of `tinymaml.meta_value_and_grad`."""
        return {
            "order": order,
            "mode": self.hvp_mode,
            "records": self.records,
            "clip_element": self.clip_element,
            "clip_norm": self.clip_norm,
        }
