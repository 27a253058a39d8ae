"""Model-agnostic meta-learning on an autodiff of its own, with explicit Hessian-vector products.

Read the source in this order: autodiff (the recorded graph and its two sweeps), ops (the primitives), transforms (grad,
hvp and the rest), nn and optim, meta (adaptation and the explicit meta-gradient), compile (a recorded step as a
program), methods (what learns across tasks), rl (policies), train (the loop, results), experiments (the paper's), cli.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinymaml import command as command  # first: it minds signals while the rest is imported
from tinymaml import nn, ops, optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.sweeps import pull, push
from tinymaml.autodiff.tensor import Tensor
from tinymaml.compile.program import Program, record
from tinymaml.draw import draw
from tinymaml.meta import maml
from tinymaml.meta.maml import NonFiniteError, adapt, meta_value_and_grad
from tinymaml.nn import nets
from tinymaml.ops import *  # noqa: F403
from tinymaml.ops import __all__ as _ops
from tinymaml.transforms import grad, grad_and_hvp, hessian, hvp, jvp, value_and_grad, vjp

if TYPE_CHECKING:
    from tinymaml import device, methods, rl, testing
    from tinymaml.experiments.control.domain import Control
    from tinymaml.experiments.fit import evaluate, fit, load
    from tinymaml.methods import Method, Problem
    from tinymaml.settings import setting
    from tinymaml.train.domain import Domain
    from tinymaml.train.experiment import Experiment
    from tinymaml.train.loop import Interrupted, TrainingDiverged
    from tinymaml.train.training import Training

__version__ = "0.1.0"

# Public names that are imported when they are first asked for: (module, attribute), or ("module", "") for the module.
_LAZY = {
    "Control": ("tinymaml.experiments.control.domain", "Control"),
    "Domain": ("tinymaml.train.domain", "Domain"),
    "Experiment": ("tinymaml.train.experiment", "Experiment"),
    "Interrupted": ("tinymaml.train.loop", "Interrupted"),
    "Method": ("tinymaml.methods", "Method"),
    "Problem": ("tinymaml.methods", "Problem"),
    "Training": ("tinymaml.train.training", "Training"),
    "TrainingDiverged": ("tinymaml.train.loop", "TrainingDiverged"),
    "device": ("tinymaml.device", ""),
    "evaluate": ("tinymaml.experiments.fit", "evaluate"),
    "fit": ("tinymaml.experiments.fit", "fit"),
    "load": ("tinymaml.experiments.fit", "load"),
    "methods": ("tinymaml.methods", ""),
    "rl": ("tinymaml.rl", ""),
    "setting": ("tinymaml.settings", "setting"),
    "testing": ("tinymaml.testing", ""),
}

__all__ = [
    "Control",
    "Domain",
    "Experiment",
    "Interrupted",
    "Method",
    "NonFiniteError",
    "Problem",
    "Program",
    "Tensor",
    "Training",
    "TrainingDiverged",
    "adapt",
    "device",
    "draw",
    "evaluate",
    "fit",
    "grad",
    "grad_and_hvp",
    "hessian",
    "hvp",
    "jvp",
    "load",
    "maml",
    "meta_value_and_grad",
    "methods",
    "nets",
    "nn",
    "ops",
    "optim",
    "pull",
    "push",
    "record",
    "rl",
    "setting",
    "testing",
    "tree",
    "value_and_grad",
    "vjp",
    *_ops,
]


def __getattr__(name: str) -> Any:
    """A lazy public name, imported. Raises AttributeError for any other name that there is not."""
    if name not in _LAZY:
        raise AttributeError(f"module 'tinymaml' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    """The public names, which docs/api.md lists, and the version."""
    return sorted(["__version__", *__all__])
