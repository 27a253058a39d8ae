"""Methods: whatever learns across tasks, as three functions (init, update, predict). One file a method.

Read in this order: method (what a method is, and the problem it is given) · inner (predictions after inner steps) ·
maml (the paper's, of first and second order, with learned step sizes) · pooled (what it is compared with: pretrained on
all tasks, told the task, not trained). Of images: metric (embeddings that are compared) · prototypical · matching ·
siamese · proto_maml · labelled (pretraining on all classes) · nearest_neighbour · fine_tune.
"""

from tinymaml.methods.context import CAVIA, ContextVector
from tinymaml.methods.fine_tune import FineTune
from tinymaml.methods.imaml import IMAML
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.maml import MAML
from tinymaml.methods.maml_plus_plus import MAMLPlusPlus
from tinymaml.methods.matching import Matching
from tinymaml.methods.method import Method, Problem
from tinymaml.methods.multi_task import MultiTask
from tinymaml.methods.nearest_neighbour import NearestNeighbour
from tinymaml.methods.pooled import Oracle, Pretrained, Random
from tinymaml.methods.proto_maml import ProtoMAML
from tinymaml.methods.prototypical import Prototypical
from tinymaml.methods.reptile import Reptile
from tinymaml.methods.siamese import Siamese

__all__ = [
    "CAVIA",
    "IMAML",
    "MAML",
    "ContextVector",
    "FineTune",
    "MAMLPlusPlus",
    "Matching",
    "Method",
    "MultiTask",
    "NearestNeighbour",
    "Oracle",
    "Pretrained",
    "Problem",
    "ProtoMAML",
    "Prototypical",
    "Random",
    "Reptile",
    "Siamese",
    "predictions_after",
]
