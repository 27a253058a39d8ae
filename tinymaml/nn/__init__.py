"""Networks as pairs of pure functions, `init(rng) -> params` and `apply(params, x) -> y`, on the task axis.

Read in this order: initialisers (of weights) · layers (dense layers and perceptrons) · recurrent (networks for
sequences) · multi_head (attention) · nets (the paper's networks for images).
"""

from tinymaml.nn import nets
from tinymaml.nn.initialisers import INITIALISERS, choose, he_normal, standard_normal, truncated_normal, xavier_uniform
from tinymaml.nn.layers import ACTIVATIONS, Model, embedding, linear, mlp
from tinymaml.nn.multi_head import attention
from tinymaml.nn.nets import conv_net, norm_mlp
from tinymaml.nn.recurrent import gru, gru_step, lstm, lstm_step, rnn

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "Model",
    "attention",
    "choose",
    "conv_net",
    "embedding",
    "gru",
    "gru_step",
    "he_normal",
    "linear",
    "lstm",
    "lstm_step",
    "mlp",
    "nets",
    "norm_mlp",
    "rnn",
    "standard_normal",
    "truncated_normal",
    "xavier_uniform",
]
