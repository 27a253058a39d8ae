"""Training and evaluation replay their steps to the bits of the eager path."""

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.experiment_cases import tiny
from tests.compile.test_record import same
from tinymaml.compile.replayed import replayed
from tinymaml.optim import sgd

SMALL = tiny(hidden=(8, 8), shots=10, query_points=10, validation_tasks=6, eval_tasks=6, eval_steps=3, eval_query=7)


def trained(method, record, iterations=7, **changes):
    trainer = SMALL.replaced(record=record, **changes).trainer(method)
    state, losses = trainer.start(), []
    for _ in range(iterations):
        state, (figures,) = trainer.step(state)
        losses.append(figures["loss"])
    return losses, state["params"], state["optimiser"]


@pytest.mark.parametrize("changes", [{"learn_alpha": True}, {"clip_norm": 0.5}, {"steps": 3, "records": "recompute"}])
def test_settings_that_change_the_step(changes):
    same(trained("maml", True, **changes), trained("maml", False, **changes))


def test_validation_is_the_same():
    trainers = [SMALL.replaced(record=record).trainer("maml") for record in (True, False)]
    recorded, eager = (trainer.validate(trainer.start()) for trainer in trainers)
    assert recorded == eager


def test_a_step_that_leaves_all_bounds_raises_as_the_eager_one():
    def run(record):
        trainer = SMALL.replaced(record=record, alpha=1e30).trainer("maml")
        state = trainer.start()
        with np.errstate(all="ignore"), pytest.raises(tm.NonFiniteError) as error:
            for _ in range(50):
                state, _ = trainer.step(state)
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
    gradient = tm.value_and_grad(lambda p: tm.sum(p["w"] ** 2) / 2)

    def step(params, state):
        value, grads = gradient(params)
        return value, *optimiser.update(grads, state, params)

    take = replayed(step, record)
    params, expected = {"w": np.ones(2)}, 1.0
    state = optimiser.init(params)
    for i in range(4):
        value, params, state = take(params, state)
        assert float(value) == pytest.approx(expected**2)
        expected *= 1 - 0.5 / (1 + i)
        np.testing.assert_allclose(params["w"], expected)
    assert int(state["iteration"]) == 4
