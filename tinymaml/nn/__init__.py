"""Networks as pairs of pure functions, `init(rng) -> params` and `apply(params, x) -> y`, on the task axis.

Read in this order: initialisers (of weights) · layers (dense layers and perceptrons) · recurrent (networks for
sequences) · nets (the paper's networks for images).
"""

from tinymaml.nn import nets
from tinymaml.nn.initialisers import INITIALISERS, choose, he_normal, standard_normal, truncated_normal, xavier_uniform
from tinymaml.nn.layers import ACTIVATIONS, Model, linear, mlp
from tinymaml.nn.nets import conv_net, norm_mlp
from tinymaml.nn.recurrent import lstm, rnn

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "Model",
    "choose",
    "conv_net",
    "he_normal",
    "linear",
    "lstm",
    "mlp",
    "nets",
    "norm_mlp",
    "rnn",
    "standard_normal",
    "truncated_normal",
    "xavier_uniform",
]
