"""Settings of the training loop, and of evaluations on tasks."""

from __future__ import annotations

from dataclasses import dataclass

from tinymaml.settings import LARGEST_SEED, Settings, setting


@dataclass(frozen=True)
class Loop(Settings):
    """What the loop reads."""

    seed: int = setting(0, "seed of the parameters at the start and of the stream of tasks", least=0, most=LARGEST_SEED)
    iterations: int = setting(70_000, "meta-iterations", free=True)
    log_every: int = setting(500, "iterations between two lines of metrics", free=True)
    checkpoint_every: int = setting(5_000, "iterations between two checkpoints", free=True)
    keep: int = setting(3, "checkpoints kept", free=True)
    validate_every: int = setting(
        2_500, "iterations between two validations; the best parameters are kept beside the last"
    )
    record: bool = setting(True, "record the training step once and replay it, to the same bits", free=True)
    device: str = setting("cpu", "where to compute", ("cpu", "gpu"), free=True, evaluation=True)
    precision: str = setting(
        "fp32",
        "of products on a GPU: fp32, or tf32, by the matrix units, whose operands have 10 bits",
        ("fp32", "tf32"),
    )
    dtype: str = setting("float32", "of parameters and data", ("float32", "float64"))
    meta_batch: int = setting(25, "tasks a meta-iteration")

    @property
    def longest_step(self) -> int:
        """Iterations at most in one step of training: on a GPU the host looks on only now and then."""
        return 500 if self.device == "gpu" else 1


@dataclass(frozen=True)
class Training(Loop):
    """Settings of training on tasks with support and query sets, and of their evaluation."""

    eval_seed: int = setting(
        0,
        "seed of the validation and test tasks: the same tasks for every training seed",
        least=0,
        most=LARGEST_SEED,
        evaluation=True,
    )
    validation_tasks: int = setting(600, "validation tasks in a validation, and in the search of a step size")
    eval_tasks: int = setting(600, "fresh test tasks in an evaluation", free=True, evaluation=True)
    eval_steps: int = setting(10, "inner steps evaluated", evaluation=True)
    eval_batch: int = setting(600, "tasks evaluated at a time; more take more memory", free=True, evaluation=True)
