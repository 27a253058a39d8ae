"""Training and evaluation replay their steps to the bits of the eager path."""

import dataclasses

import numpy as np
import pytest

import tinymaml as tm
from tests.compile.test_record import same
from tinymaml.cli.main import _parser
from tinymaml.experiments.sinusoid import training as sinusoid
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.optim import sgd
from tinymaml.train.replay import outer_step, replayed

SETTINGS = SinusoidSettings(meta_batch=4, hidden=(8, 8), eval_tasks=6, eval_steps=3, eval_query=7)


def trained(method, record, iterations=7, **changes):
    settings = dataclasses.replace(SETTINGS, record=record, **changes)
    state, step = sinusoid.start_state(settings, method), sinusoid.stepper(settings, method)
    losses = []
    for _ in range(iterations):
        state, (figures,) = step(state)
        losses.append(figures["loss"])
    return losses, state["params"], state["optimiser"]


@pytest.mark.parametrize("method", sinusoid.METHODS)
def test_every_method_trains_to_the_same_bits(method):
    same(trained(method, True), trained(method, False))


@pytest.mark.parametrize("changes", [{"learn_alpha": True}, {"clip_norm": 0.5}, {"steps": 3, "records": "recompute"}])
def test_settings_that_change_the_step(changes):
    same(trained("maml", True, **changes), trained("maml", False, **changes))


def test_validation_is_the_same():
    params = sinusoid.start_state(SETTINGS, "maml")["params"]
    found = [
        sinusoid.validator(dataclasses.replace(SETTINGS, record=record), "maml")({"params": params})
        for record in (True, False)
    ]
    assert found[0] == found[1]


def test_a_step_that_leaves_all_bounds_raises_as_the_eager_one():
    def run(record):
        settings = dataclasses.replace(SETTINGS, record=record, alpha=1e30)
        state, step = sinusoid.start_state(settings, "maml"), sinusoid.stepper(settings, "maml")
        with np.errstate(all="ignore"), pytest.raises(tm.NonFiniteError) as error:
            for _ in range(50):
                state, _ = step(state)
        return str(error.value)

    assert run(True) == run(False)


def test_programs_for_several_shapes_are_kept_and_old_ones_dropped():
    calls = []

    def step(x):
        calls.append(x.shape)
        return x * 2

    take = replayed(step, True)
    for n in (1, 2, 3, 1, 2, 3):
        same(take(np.ones(n)), np.full(n, 2.0))
    assert calls == [(1,), (2,), (3,)]
    for n in (4, 5, 1):
        take(np.ones(n))
    assert calls == [(1,), (2,), (3,), (4,), (5,), (1,)]
    assert replayed(step, False) is step


@pytest.mark.parametrize("record", [True, False])
def test_the_iteration_reaches_the_optimiser(record):
    optimiser = sgd(lambda iteration: 0.5 / (1 + iteration))
    take = outer_step(tm.value_and_grad(lambda p: tm.sum(p["w"] ** 2) / 2), optimiser, record)
    params, expected = {"w": np.ones(2)}, 1.0
    state = optimiser.init(params)
    for i in range(4):
        value, params, state = take(params, state)
        assert float(value) == pytest.approx(expected**2)
        expected *= 1 - 0.5 / (1 + i)
        np.testing.assert_allclose(params["w"], expected)
    assert int(state["iteration"]) == 4


def test_the_option():
    arguments = _parser().parse_args(["train", "sinusoid", "--no-record"])
    assert arguments.record is False
