"""Model-agnostic meta-learning on an autodiff of its own, with explicit Hessian-vector products.

Read the source in this order: autodiff (the recorded graph and its two sweeps), ops (the primitives), transforms (grad,
hvp and the rest), nn and optim, meta (adaptation and the explicit meta-gradient), compile (a recorded step as a
program), rl (policies), train.
"""

import importlib as _importlib
from typing import Any as _Any

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

__version__ = "0.1.0"

__all__ = [
    "NonFiniteError",
    "Tensor",
    "adapt",
    "draw",
    "record",
    "Program",
    "grad",
    "grad_and_hvp",
    "hessian",
    "hvp",
    "jvp",
    "maml",
    "meta_value_and_grad",
    "nets",
    "nn",
    "ops",
    "optim",
    "pull",
    "push",
    "tree",
    "value_and_grad",
    "vjp",
    *_ops,
]

# Names that are imported when they are first asked for, as they need more than NumPy: where they are.
_LATER = {
    "Control": "tinymaml.experiments.control.domain",
    "Domain": "tinymaml.train.domain",
    "Experiment": "tinymaml.train.experiment",
    "Interrupted": "tinymaml.train.loop",
    "Method": "tinymaml.methods",
    "Problem": "tinymaml.methods",
    "Training": "tinymaml.train.training",
    "TrainingDiverged": "tinymaml.train.loop",
    "evaluate": "tinymaml.experiments.fit",
    "fit": "tinymaml.experiments.fit",
    "load": "tinymaml.experiments.fit",
    "methods": "",
    "rl": "",
    "setting": "tinymaml.settings",
    "testing": "",
}
__all__ += list(_LATER)


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module 'tinymaml' has no attribute {name!r}")
    module = _importlib.import_module(_LATER[name] or f"tinymaml.{name}")
    return getattr(module, name) if _LATER[name] else module
