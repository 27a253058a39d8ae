"""The paper's networks for images (section 5.2): convolutional, and with dense layers only, both with batch-norm.

As in `tinymaml.nn` they are pairs of pure functions on the task axis. Batch-norm uses the statistics of the batch that
it is given (transductive), or those that `statistics` took from another batch, the support set (inductive).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff.tensor import FLOATS, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.nn.initialisers import INITIALISERS, choose
from tinymaml.nn.layers import linear
from tinymaml.ops import (
    as_tensor,
    batch_norm_relu,
    batch_statistics,
    conv2d,
    dense,
    max_pool2d,
    reshape,
    spatial_mean,
)

EPS = 1e-3  # batch-norm's, as in the authors' code
KERNEL = (3, 3)

Statistics = Sequence[tuple[Tensor, Tensor]]


class ImageModel(NamedTuple):
    """A network of hidden layers, each with batch-norm, and a linear head.

    init(rng, dtype=float32) -> params
    apply(params, x[T, N, H, W, C], statistics=None, collected=None) -> logits [T, N, classes]
    statistics(params, x) -> (mean, variance), each [T, channels], of every hidden layer on the batch x
    features(params, x, statistics=None, collected=None) -> [T, N, width], what the head is given; params["head"] is not
        needed. The statistics of x in every layer are added to `collected`, a list.
    """

    init: Callable[..., Tree]
    apply: Callable[..., Tensor]
    statistics: Callable[[Tree, Any], list[tuple[Tensor, Tensor]]]
    features: Callable[..., Tensor]
    width: int
    classes: int


class _Layer(NamedTuple):
    """A hidden layer: what comes before batch-norm with ReLU, and what comes after."""

    init: Callable[[np.random.Generator, Any], Tree]
    before: Callable[[Tree, Tensor], Tensor]
    after: Callable[[Tensor], Tensor]


def conv_net(
    image: tuple[int, int, int],
    classes: int,
    filters: int = 64,
    layers: int = 4,
    downsample: str = "stride",
    initialiser: str = "xavier-uniform",
    head_initialiser: str = "standard-normal",
    bias: bool = True,
) -> ImageModel:
    """The paper's convolutional network: layers of 3x3 convolution, batch-norm, ReLU.

    Args:
        image: height, width, channels.
        classes: how many the head tells apart.
        filters: of every layer. The paper has 64 on Omniglot, 32 on MiniImagenet.
        layers: how many.
        downsample: "stride": every convolution has stride 2, and the mean over pixels goes to the head (Omniglot);
            "max-pool": stride 1, a 2x2 max-pool after each ReLU, and all pixels go to the head (MiniImagenet).
        initialiser, head_initialiser: of the weights, names in `nn.INITIALISERS`; biases start at 0.
        bias: whether convolutions have biases, as the paper's do. Batch-norm takes them out again.

    Raises:
        ValueError: a size < 1, an image that the layers shrink to nothing, an unknown name.
    """
    for name, n in (("height", image[0]), ("width", image[1]), ("channels", image[2]), ("classes", classes),
                    ("filters", filters), ("layers", layers)):  # fmt: skip
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"conv_net: {name} must be a whole number >= 1, got {n!r}")
    draw = choose("initialiser", initialiser, INITIALISERS)
    strided = choose("downsample", downsample, {"stride": True, "max-pool": False})
    height, width = image[:2]
    for _ in range(layers):
        height, width = ((height + 1) // 2, (width + 1) // 2) if strided else (height // 2, width // 2)
    if height * width == 0:
        raise ValueError(f"conv_net: {layers} layers shrink an image of {image[:2]} to nothing")
    features = filters if strided else height * width * filters

    def layer(inputs: int) -> _Layer:
        def init(rng: np.random.Generator, dtype: Any) -> Tree:
            weights = {"w": draw(rng, inputs, filters, KERNEL).astype(dtype)}
            return weights | {"b": np.zeros((1, 1, 1, 1, filters), dtype)} if bias else weights

        def before(params: Tree, x: Tensor) -> Tensor:
            return conv2d(x, params["w"], params.get("b"), stride=2 if strided else 1)

        return _Layer(init, before, (lambda x: x) if strided else max_pool2d)

    def flat(x: Tensor) -> Tensor:
        return spatial_mean(x) if strided else reshape(x, (*x.shape[:2], features))

    hidden = [layer(inputs) for inputs in (image[2], *[filters] * (layers - 1))]
    return _model(lambda x: x, hidden, [filters] * layers, flat, features, classes, head_initialiser)


def norm_mlp(
    image: tuple[int, int, int],
    classes: int,
    hidden: Sequence[int] = (256, 128, 64, 64),
    initialiser: str = "truncated-normal",
    head_initialiser: str = "truncated-normal",
) -> ImageModel:
    """The paper's network without convolutions: dense layers, each with batch-norm and ReLU, on the image's pixels.

    Raises:
        ValueError: a size < 1, an unknown name.
    """
    sizes = [math.prod(image), *hidden]

    def layer(inputs: int, outputs: int) -> _Layer:
        dense_layer = linear(inputs, outputs, initialiser)
        return _Layer(dense_layer.init, lambda params, x: dense(x, params["w"], params["b"]), lambda x: x)

    def flat(x: Tensor) -> Tensor:
        return reshape(x, (*x.shape[:2], sizes[0]))

    layers = [layer(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    return _model(flat, layers, sizes[1:], lambda x: x, sizes[-1], classes, head_initialiser)


def _model(
    first: Callable[[Tensor], Tensor],
    hidden: Sequence[_Layer],
    widths: Sequence[int],
    last: Callable[[Tensor], Tensor],
    features: int,
    classes: int,
    head_initialiser: str,
) -> ImageModel:
    head = linear(features, classes, head_initialiser)

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        norms = [{"gamma": np.ones((1, n), dtype), "beta": np.zeros((1, n), dtype)} for n in widths]
        return {
            "hidden": [layer.init(rng, dtype) | norm for layer, norm in zip(hidden, norms, strict=True)],
            "head": head.init(rng, dtype),
        }

    def features_of(
        params: Tree, x: Any, statistics: Statistics | None = None, collected: list[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        x = first(as_tensor(x))
        for i, (layer, layer_params) in enumerate(zip(hidden, params["hidden"], strict=True)):
            x = layer.before(layer_params, x)
            if collected is not None:
                collected.append(batch_statistics(x))
            given = None if statistics is None else statistics[i]
            x = layer.after(batch_norm_relu(x, layer_params["gamma"], layer_params["beta"], eps=EPS, statistics=given))
        return last(x)

    def apply(
        params: Tree, x: Any, statistics: Statistics | None = None, collected: list[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        return head.apply(params["head"], features_of(params, x, statistics, collected))

    def statistics(params: Tree, x: Any) -> list[tuple[Tensor, Tensor]]:
        moments: list[tuple[Tensor, Tensor]] = []
        features_of(params, x, collected=moments)
        return moments

    return ImageModel(init, apply, statistics, features_of, features, classes)
