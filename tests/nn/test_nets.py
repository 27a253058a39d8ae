"""The paper's image networks: sizes, starts, batch statistics, gradients through all of it."""

import math

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import nets, tree

OMNIGLOT, COLOUR = (28, 28, 1), (84, 84, 3)


def count(params):
    return sum(x.size for x in tree.leaves(params))


def convolutions(params):
    return sum(layer["w"].size + layer["b"].size for layer in params["hidden"])


def test_omniglot_has_the_papers_number_of_parameters():
    params = nets.conv_net(OMNIGLOT, 5).init(np.random.default_rng(0))
    assert convolutions(params) == 111_424
    assert count(params["head"]) == 325
    assert count(params) == 111_424 + 325 + 2 * 4 * 64  # batch-norm's own
    assert count(nets.conv_net(OMNIGLOT, 20).init(np.random.default_rng(0))["head"]) == 1300


def test_miniimagenet_has_the_papers_number_of_parameters():
    params = nets.conv_net(COLOUR, 5, 32, downsample="max-pool").init(np.random.default_rng(0))
    assert convolutions(params) == 28_640
    assert count(params["head"]) == 4005
    cifar = nets.conv_net((32, 32, 3), 5, 32, downsample="max-pool").init(np.random.default_rng(0))
    assert cifar["head"]["w"].shape == (1, 128, 5)


def test_dense_network_has_the_papers_layers():
    params = nets.norm_mlp(OMNIGLOT, 5).init(np.random.default_rng(0))
    assert [layer["w"].shape[1:] for layer in params["hidden"]] == [(784, 256), (256, 128), (128, 64), (64, 64)]
    assert params["head"]["w"].shape == (1, 64, 5)


def test_starts():
    conv = nets.conv_net(OMNIGLOT, 5).init(np.random.default_rng(0))
    for layer, inputs in zip(conv["hidden"], (1, 64, 64, 64), strict=True):
        limit = math.sqrt(6 / (9 * (inputs + 64)))
        assert 0.95 * limit < np.abs(layer["w"]).max() <= limit
        assert not layer["b"].any() and not layer["beta"].any() and (layer["gamma"] == 1).all()
    assert 0.8 < conv["head"]["w"].std() < 1.2 and not conv["head"]["b"].any()
    dense = nets.norm_mlp(OMNIGLOT, 5).init(np.random.default_rng(0))
    for layer in (*dense["hidden"], dense["head"]):
        assert 0.015 < np.abs(layer["w"]).max() <= 0.02


MODELS = {
    "stride": (nets.conv_net((9, 8, 2), 3, 4, layers=2), (9, 8, 2)),
    "max-pool": (nets.conv_net((9, 8, 2), 3, 4, layers=2, downsample="max-pool"), (9, 8, 2)),
    "no bias": (nets.conv_net((5, 5, 1), 2, 3, layers=1, bias=False), (5, 5, 1)),
    "dense": (nets.norm_mlp((4, 3, 1), 3, (6, 5)), (4, 3, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_weights_for_each_task(name):
    model, image = MODELS[name]
    rng = np.random.default_rng(1)
    params, x = model.init(rng, np.float64), rng.random((3, 4, *image))
    shared = model.apply(params, x)
    assert shared.shape[:2] == (3, 4) and np.isfinite(shared.data).all()
    own = model.apply(tree.map(lambda p: np.repeat(p, 3, 0), params), x)
    np.testing.assert_allclose(own.data, shared.data, rtol=1e-10, atol=1e-12)
    one = model.apply(params, x[1:2])  # no task sees another
    np.testing.assert_allclose(one.data[0], shared.data[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_given_statistics(name):
    model, image = MODELS[name]
    rng = np.random.default_rng(2)
    params, x, other = model.init(rng, np.float64), rng.random((2, 4, *image)), rng.random((2, 3, *image))
    results = model.statistics(params, x)
    assert [m.shape for m, _ in results] == [(2, layer["gamma"].shape[1]) for layer in params["hidden"]]
    np.testing.assert_allclose(model.apply(params, x, results).data, model.apply(params, x).data, rtol=1e-9, atol=1e-12)
    # With them every image is classified by itself: the rest of the batch makes no difference.
    alone = model.apply(params, other[:, :1], results).data
    np.testing.assert_allclose(alone, model.apply(params, other, results).data[:, :1], rtol=1e-9, atol=1e-12)
    assert not np.allclose(model.apply(params, other[:, :2]).data, model.apply(params, other).data[:, :2])


@pytest.mark.parametrize("name", ["stride", "dense"])
def test_meta_gradient_is_that_of_the_recorded_adaptation(name):
    model, image = MODELS[name]
    rng = np.random.default_rng(3)
    params = tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), model.init(rng, np.float64))
    ways = params["head"]["w"].shape[2]

    def batch(n):
        return {"x": rng.random((2, n, *image)), "y": rng.integers(0, ways, (2, n))}

    def loss(p, b):
        return tm.softmax_cross_entropy(model.apply(p, b["x"]), b["y"])

    support, query = batch(4), batch(3)
    norm = {"gamma": False, "beta": False}
    adapted = {"hidden": [tree.map(lambda _: True, own) | norm for own in params["hidden"]], "head": True}
    value, grads = tm.meta_value_and_grad(loss, params, support, query, 0.1, 2, adapted=adapted)

    def whole(p):
        return tm.mean(loss(tm.adapt(loss, p, support, 0.1, 2, adapted=adapted), query))

    other, expected = tm.value_and_grad(whole)(params)
    assert abs(value - other) < 1e-12
    for a, b in zip(tree.leaves(grads), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_bias_before_batch_norm_makes_no_difference():
    model, image = MODELS["stride"]
    rng = np.random.default_rng(4)
    params, x = model.init(rng, np.float64), rng.random((1, 3, *image))
    moved = params | {"hidden": [own | {"b": own["b"] + 5} for own in params["hidden"]]}
    np.testing.assert_allclose(model.apply(moved, x).data, model.apply(params, x).data, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((7, 7, 3), 5), {"downsample": "max-pool"}, "4 layers shrink an image of"),
        (((28, 28, 0), 5), {}, "channels must be a whole number >= 1"),
        ((OMNIGLOT, 5), {"filters": 2.5}, "filters must be"),
        ((OMNIGLOT, 5), {"downsample": "pool"}, "downsample must be one of stride, max-pool"),
        ((OMNIGLOT, 5), {"initialiser": "zeros"}, "initialiser must be one of"),
        ((OMNIGLOT, 5), {"layers": 0}, "layers must be"),
    ],
)
def test_bad_sizes(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        nets.conv_net(*arguments, **options)


def test_bad_dtype():
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        nets.conv_net(OMNIGLOT, 5).init(np.random.default_rng(0), np.int64)
