"""The image networks are what NumPy gives, with the batch's statistics and with those of another."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import nets

EPS = 1e-3


def perturbed(model, rng, dtype=np.float64, tasks=1):
    """Parameters in which nothing is 0 or 1, for each task."""
    params = tm.tree.map(lambda x: np.repeat(x, tasks, 0), model.init(rng, dtype))
    return tm.tree.map(lambda x: (x + 0.3 * rng.normal(size=x.shape)).astype(dtype), params)


def normalised(h, layer, statistics=None):
    axes = tuple(range(h.ndim - 1))
    mean, variance = (h.mean(axes), h.var(axes)) if statistics is None else statistics
    return np.maximum((h - mean) / np.sqrt(variance + EPS) * layer["gamma"] + layer["beta"], 0)


def convolved(x, w, b, stride):
    """x[N, H, W, C], w[3, 3, C, O], padded as TensorFlow does."""
    size = [-(-n // stride) for n in x.shape[1:3]]
    total = [max((m - 1) * stride + 3 - n, 0) for m, n in zip(size, x.shape[1:3], strict=True)]
    x = np.pad(x, ((0, 0), *[(t // 2, t - t // 2) for t in total], (0, 0)))
    y = np.zeros((len(x), *size, w.shape[-1]))
    for i in range(size[0]):
        for j in range(size[1]):
            window = x[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            y[:, i, j] = np.tensordot(window, w, 3) + b.reshape(-1)
    return y


def pooled(x):
    h, w = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * h, : 2 * w].reshape(len(x), h, 2, w, 2, -1).max((2, 4))


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize(("downsample", "bias"), [("stride", True), ("stride", False), ("max-pool", True)])
def test_the_convolutional_network_is_what_numpy_gives(downsample, bias, tasks):
    rng = np.random.default_rng(0)
    model = nets.conv_net((9, 6, 2), 3, 4, 2, downsample=downsample, bias=bias)
    params = perturbed(model, rng, tasks=tasks)
    x, other = rng.normal(size=(3, 5, 9, 6, 2)), rng.normal(size=(3, 2, 9, 6, 2))
    y = model.apply(params, x).numpy()
    statistics = model.statistics(params, x)
    y_other = model.apply(params, other, statistics).numpy()
    assert y.shape == (3, 5, 3)
    for t in range(3):
        h, g = x[t], other[t]
        for k, layer in enumerate(tm.tree.map(lambda p, t=t: p[t % tasks], params)["hidden"]):
            h, g = (
                convolved(z, layer["w"], layer.get("b", np.zeros(4)), 2 if downsample == "stride" else 1)
                for z in (h, g)
            )
            moments = h.mean((0, 1, 2)), h.var((0, 1, 2))
            for got, expected in zip(statistics[k], moments, strict=True):
                np.testing.assert_allclose(got.numpy()[t], expected, rtol=1e-10)
            h, g = normalised(h, layer), normalised(g, layer, moments)
            if downsample == "max-pool":
                h, g = pooled(h), pooled(g)
        last = {name: p[t % tasks] for name, p in params["head"].items()}
        for z, got in ((h, y), (g, y_other)):
            features = z.mean((1, 2)) if downsample == "stride" else z.reshape(len(z), -1)
            np.testing.assert_allclose(got[t], features @ last["w"] + last["b"], rtol=1e-9, atol=1e-9)


def test_the_linear_network_is_what_numpy_gives():
    rng = np.random.default_rng(0)
    model = nets.norm_mlp((3, 4, 1), 3, (7, 5))
    params = perturbed(model, rng)
    x, other = rng.normal(size=(2, 5, 3, 4, 1)), rng.normal(size=(2, 2, 3, 4, 1))
    y, y_other = model.apply(params, x).numpy(), model.apply(params, other, model.statistics(params, x)).numpy()
    for t in range(2):
        h, g = x[t].reshape(5, 12), other[t].reshape(2, 12)
        for layer in tm.tree.map(lambda p: p[0], params)["hidden"]:
            h, g = h @ layer["w"] + layer["b"], g @ layer["w"] + layer["b"]
            h, g = normalised(h, layer), normalised(g, layer, (h.mean(0), h.var(0)))
        last = {name: p[0] for name, p in params["head"].items()}
        for z, got in ((h, y), (g, y_other)):
            np.testing.assert_allclose(got[t], z @ last["w"] + last["b"], rtol=1e-9, atol=1e-9)
