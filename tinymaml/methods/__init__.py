"""Methods: whatever learns across tasks, as three functions (init, update, predict). One file a method.

Read in this order: method (what a method is, and the problem it is given) · inner (predictions after inner steps) ·
maml (the paper's, of first and second order, with learned step sizes) · pooled (what it is compared with: pretrained on
all tasks, told the task, not trained).
"""

from tinymaml.methods.context import CAVIA, ContextVector
from tinymaml.methods.imaml import IMAML
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.maml import MAML
from tinymaml.methods.maml_plus_plus import MAMLPlusPlus
from tinymaml.methods.method import Method, Problem
from tinymaml.methods.multi_task import MultiTask
from tinymaml.methods.pooled import Oracle, Pretrained, Random
from tinymaml.methods.reptile import Reptile

__all__ = [
    "CAVIA",
    "IMAML",
    "MAML",
    "ContextVector",
    "MAMLPlusPlus",
    "Method",
    "MultiTask",
    "Oracle",
    "Pretrained",
    "Problem",
    "Random",
    "Reptile",
    "predictions_after",
]
