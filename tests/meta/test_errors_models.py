"""Bad input to the transforms, the layers and the optimisers: errors that name the argument, and the place in it."""

import re

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.maml_cases import problem

P = problem(0)

# gradients of one's own functions


def test_gradients_of_integers():
    with pytest.raises(TypeError, match=r"\['n'\].* must be float32 or float64, got int64"):
        tm.grad(lambda params: tm.sum(params["n"]))({"n": np.arange(3)})
    with pytest.raises(TypeError, match="must be float32 or float64, got int"):
        tm.grad(lambda x: x * x)(3)


def test_gradients_of_more_than_one_number():
    with pytest.raises(ValueError, match=r"must return one number, got shape \(3,\); take sum\(\) or mean\(\)"):
        tm.grad(lambda x: x * x)(np.ones(3))


# nn


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, 1.5, 1], [-1, 2]])
def test_sizes(sizes):
    with pytest.raises(
        ValueError, match=f"^mlp: sizes must be two whole numbers >= 1 or more.*{re.escape(str(sizes))}"
    ):
        tm.nn.mlp(sizes)


@pytest.mark.parametrize(("inputs", "outputs", "name"), [(0, 1, "inputs"), (1, 0, "outputs"), (1.5, 1, "inputs")])
def test_linear_layers(inputs, outputs, name):
    with pytest.raises(ValueError, match=f"^linear: {name} must be a whole number >= 1"):
        tm.nn.linear(inputs, outputs)


def test_choices():
    with pytest.raises(ValueError, match=r"^activation must be one of relu, tanh, .*, got 'gelu'"):
        tm.nn.mlp([1, 2, 1], activation="gelu")
    with pytest.raises(ValueError, match=r"^start must be one of he-normal, .*, got 'zeros'"):
        tm.nn.mlp([1, 2, 1], start="zeros")


def test_the_dtype_of_a_model():
    with pytest.raises(TypeError, match=r"^dtype must be float32 or float64, got int64"):
        tm.nn.mlp([1, 2, 1]).init(np.random.default_rng(0), np.int64)


def test_another_number_of_layers():
    model = tm.nn.mlp([2, 3, 1])
    with pytest.raises(ValueError, match=r"^params has 1 layers, mlp\(\[2, 3, 1\]\) has 2"):
        model.apply(P.params[:1], P.support["x"])


def test_data_without_a_task_axis():
    with pytest.raises(ValueError, match="x needs three axes"):
        tm.nn.mlp([2, 3, 1]).apply(P.params, P.support["x"][0])


# optim

OPTIMISERS = {"sgd": tm.optim.sgd, "momentum": tm.optim.momentum, "adam": tm.optim.adam}
each = pytest.mark.parametrize("name", OPTIMISERS)


@each
@pytest.mark.parametrize("rate", [0, -1e-3, np.nan, np.inf, "0.1", None])
def test_learning_rates(name, rate):
    with pytest.raises(ValueError, match=r"^learning_rate .*must be a positive number, got"):
        OPTIMISERS[name](rate)


@each
@pytest.mark.parametrize("rate", [np.nan, -1.0, np.inf])
def test_schedules_that_give_no_rate(name, rate):
    optimiser = OPTIMISERS[name](lambda iteration: rate)
    with pytest.raises(
        ValueError, match=f"^learning_rate: the schedule gave {rate} at iteration 0, expected a number >= 0"
    ):
        optimiser.update(np.ones(2), optimiser.init(np.ones(2)), np.ones(2))


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan, "0.9"])
def test_decays(value):
    for make, name in ((tm.optim.momentum, "decay"), (tm.optim.adam, "beta1"), (tm.optim.adam, "beta2")):
        with pytest.raises(ValueError, match=rf"^{name} must be in \[0, 1\), got"):
            make(0.1, **{name: value})


def test_epsilon():
    with pytest.raises(ValueError, match=r"^epsilon must be a positive number, got 0"):
        tm.optim.adam(epsilon=0)


@each
@pytest.mark.parametrize("value", [1.0, np.float32(1), np.arange(3), tm.Tensor(1.0)], ids=repr)
def test_optimised_parameters(name, value):
    with pytest.raises(TypeError, match=r"^params\['w'\] must be an array of float32 or float64, got"):
        OPTIMISERS[name](0.1).init({"w": value})


@each
@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"v": np.ones(3)}, r"^grads has another structure than expected: at the top expected dict with keys \['w'\]"),
        ({"w": [np.ones(3)]}, r"^grads has another structure than expected: at \['w'\]"),
        ({"w": np.ones((1, 3))}, r"^grads\['w'\] must be an array like its parameter, \(3,\) float64; got \(1, 3\)"),
        ({"w": np.ones(3, np.float32)}, r"^grads\['w'\] must be .* got \(3,\) float32"),
        ({"w": 1.0}, r"^grads\['w'\] must be .* got float"),
    ],
    ids=str,
)
def test_gradients_unlike_the_parameters(name, grads, message):
    optimiser = OPTIMISERS[name](0.1)
    params = {"w": np.ones(3)}
    with pytest.raises(ValueError, match=message):
        optimiser.update(grads, optimiser.init(params), params)


def test_schedules():
    for make in (lambda n: tm.optim.cosine(0.1, n), lambda n: tm.optim.warmup(0.1, n)):
        with pytest.raises(ValueError, match=r"^iterations must be a positive number, got 0"):
            make(0)
    with pytest.raises(ValueError, match=r"^every must be a positive number, got 0"):
        tm.optim.exponential(0.1, 0.5, every=0)
    with pytest.raises(ValueError, match=r"^learning_rate"):
        tm.optim.warmup(-0.1, 5)
