"""Where a run computes, and how: its settings `device` and `precision`."""

from __future__ import annotations

from tinymaml.device import set_precision, to_device
from tinymaml.train.training import Loop


class DeviceError(ValueError):
    """What was asked for cannot be computed here; the message says what is missing."""


def use(settings: Loop) -> None:
    """Make ready for a run's device. Raises DeviceError if it is not there."""
    if settings.device == "gpu":
        try:
            to_device((), "gpu")
        except (ImportError, RuntimeError) as reason:
            raise DeviceError(f"--device gpu: {reason}") from reason
        set_precision(settings.precision)


def check_training(settings: Loop) -> None:
    """As `use`, and raises DeviceError for settings of training that the device does not have."""
    if settings.device == "cpu" and settings.precision != "fp32":
        raise DeviceError(f"--precision {settings.precision} is of GPUs alone: add --device gpu")
    if settings.device == "gpu" and not settings.record:
        raise DeviceError("--no-record is for the CPU: on a GPU a training step is always recorded")
    use(settings)
