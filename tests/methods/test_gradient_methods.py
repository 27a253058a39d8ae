"""Methods by gradients: each update against a formula of its own, in float64 on a tiny problem."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import nn, optim, tree
from tinymaml.experiments.sinusoid.domain import Sinusoids
from tinymaml.methods import CAVIA, IMAML, MAML, ContextVector, MAMLPlusPlus, MultiTask, Problem, Reptile
from tinymaml.methods.gradients import mask_of
from tinymaml.methods.imaml import conjugate_gradient
from tinymaml.methods.maml import parts_of
from tinymaml.methods.reptile import _mini_batches
from tinymaml.ops import as_tensor

RNG = np.random.default_rng


def problem(outputs: int = 1, **changes: Any) -> Problem:
    """A small smooth network, with a wider one beside it."""

    def network(extra: int) -> Any:
        return nn.mlp([2 + extra, 4, outputs], "tanh")

    return Problem(
        network(0),
        tm.mse,
        lambda outputs, y: {},
        lambda model, params, support, inputs: {name: model.apply(params, x) for name, x in inputs.items()},
        wider=network,
        **changes,
    )


def batch(seed: int, tasks: int = 3, examples: int = 5) -> dict[str, Any]:
    rng = RNG(seed)
    return {"x": rng.normal(size=(tasks, examples, 2)), "y": rng.normal(size=(tasks, examples, 1))}


EPISODES = batch(0), batch(1, examples=4)


def close(one: Any, other: Any, rtol: float = 1e-10) -> None:
    for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def adams_gradient(before: Any, after: Any) -> Any:
    """The gradient that Adam's first moment tells, after a first update."""
    assert not np.any(tree.leaves(before["optimiser"]["m"])[0])
    return tree.map(lambda m: np.asarray(m) / 0.1, after["optimiser"]["m"])


def slope(function: Any, params: Any, v: Any, h: float = 1e-5) -> float:
    moved = [tree.map(lambda x, d, s=s: x + s * h * d, params, v) for s in (1, -1)]
    return float((function(moved[0]) - function(moved[1])) / (2 * h))


def inner(one: Any, other: Any) -> float:
    return float(sum((np.asarray(a) * b).sum() for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True)))


# Context vector and CAVIA.


@pytest.mark.parametrize("method", [ContextVector(context=3, alpha=0.3, steps=2), CAVIA(context=3, steps=2, alpha=0.3)])
def test_the_meta_gradient_through_a_context_is_that_of_a_finite_difference(method: Any) -> None:
    p, (support, query) = problem(), EPISODES
    network = p.wider(3)  # type: ignore[misc]  # there is one
    before = method.init(p, RNG(0), np.float64)
    after, figures = method.update(p, before, EPISODES)

    def joined(context: Any, x: Any) -> Any:
        spread = np.zeros((*x.shape[:2], 3)) + as_tensor(context).reshape(-1, 1, 3)
        return tm.concatenate([x, spread], -1)

    def objective(params: Any) -> Any:
        context = np.repeat(params["context"], 3, 0)
        for _ in range(2):
            gradient = tm.grad(
                lambda z: tm.sum(tm.mse(network.apply(params["network"], joined(z, support["x"])), support["y"]))
            )
            context = context - 0.3 * gradient(context)
        return np.mean(tm.mse(network.apply(params["network"], joined(context, query["x"])), query["y"]).numpy())

    assert float(figures["loss"]) == pytest.approx(objective(before["params"]))
    gradient = adams_gradient(before, after)
    v = tree.map(lambda x: RNG(5).normal(size=x.shape), before["params"])
    assert inner(gradient, v) == pytest.approx(slope(objective, before["params"], v), rel=1e-6)
    moved = np.any(np.asarray(after["params"]["context"]) != 0)
    assert moved == method.LEARNS_START


def test_film_of_a_context_of_0_is_the_network_itself_and_scales_and_shifts_channels() -> None:
    network = tm.nets.conv_net((8, 8, 1), 3, 4, 2)
    p = dataclasses.replace(problem(), model=network)
    method = CAVIA(context=5, film_layer=2)
    params = method.init(p, RNG(0), np.float64)["params"]
    x = RNG(1).normal(size=(2, 6, 8, 8, 1))
    contextual = method._network(p)
    np.testing.assert_allclose(
        contextual.apply(params, x).numpy(), network.apply(params["network"]["plain"], x).numpy(), rtol=1e-12
    )
    context = RNG(2).normal(size=(2, 5))
    film = context @ params["network"]["film"][0]
    scale, shift = 1 + film[:, :4], film[:, 4:]
    plain = params["network"]["plain"]
    modulated = {**plain["hidden"][1], "gamma": scale, "beta": shift}  # of gamma 1 and beta 0
    expected = network.apply({**plain, "hidden": [plain["hidden"][0], modulated]}, x).numpy()
    np.testing.assert_allclose(contextual.apply({**params, "context": context}, x).numpy(), expected, rtol=1e-12)
    assert abs(expected - network.apply(plain, x).numpy()).max() > 1e-3


def test_what_has_no_place_for_a_context_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"no hidden layer 3 with batch norm in this network, which has 0 of them"):
        CAVIA(film_layer=3).check(problem())
    with pytest.raises(ValueError, match="there is no hidden layer 3 with batch norm"):
        Sinusoids().trainer(CAVIA(film_layer=3), Sinusoids.TRAINING)
    with pytest.raises(ValueError, match="needs a problem with wider networks"):
        ContextVector().check(dataclasses.replace(problem(), wider=None))


# ANIL.


def test_the_head_is_the_last_layer_of_a_list_of_layers() -> None:
    params = nn.mlp([1, 3, 1]).init(RNG(0))
    assert parts_of(params, ["head"]) == [{"w": False, "b": False}, {"w": True, "b": True}]
    with pytest.raises(ValueError, match="adapted: there is no 'tail' in the network's parameters"):
        MAML(adapted=("tail",)).check(problem())
    p = problem()
    state = MAML(adapted=("head",), alpha=0.2).init(p, RNG(0), np.float64)
    after, _ = MAML(adapted=("head",), alpha=0.2).update(p, state, EPISODES)
    mask = [{"w": False, "b": False}, {"w": True, "b": True}]
    _, expected = tm.meta_value_and_grad(p.objective, state["params"], *EPISODES, 0.2, 1, adapted=mask)
    close(adams_gradient(state, after), expected)


# Reptile.


def test_reptile_against_a_loop_over_tasks_and_mini_batches() -> None:
    method = Reptile(steps=4, inner_batch=4, alpha=0.1, meta_step=0.7, schedule_iterations=10)
    p, (support, query) = problem(), EPISODES
    state = method.init(p, RNG(0), np.float64)
    weights = tree.map(np.array, state["params"]["network"])
    examples = {name: np.concatenate([support[name], query[name]], 1) for name in support}
    for iteration in range(2):
        state, _ = method.update(p, state, EPISODES)
        ends = []
        for t in range(3):
            (w1, b1), (w2, b2) = [(layer["w"][0].copy(), layer["b"][0].copy()) for layer in weights]
            order = [0, 2, 4, 6, 8, 1, 3, 5, 7]
            for k in range(4):
                part = [order[(4 * k + i) % 9] for i in range(4)]
                x, y = examples["x"][t, part], examples["y"][t, part]
                h = np.tanh(x @ w1 + b1)
                d = 2 * (h @ w2 + b2 - y) / 4
                dh = (d @ w2.T) * (1 - h**2)
                w1, b1, w2, b2 = w1 - 0.1 * x.T @ dh, b1 - 0.1 * dh.sum(0), w2 - 0.1 * h.T @ d, b2 - 0.1 * d.sum(0)
            ends.append([{"w": w1, "b": b1}, {"w": w2, "b": b2}])
        rate = 0.7 * (1 - iteration / 10)
        mean = tree.map(lambda *xs: np.mean(xs, 0)[None], *ends)
        weights = tree.map(lambda x, m, rate=rate: x + rate * (m.reshape(x.shape) - x), weights, mean)
        close(state["params"]["network"], weights)


def test_reptiles_adam_goes_on_with_the_mean_second_moments() -> None:
    method, p = Reptile(steps=1, inner_optimiser="adam", alpha=0.1, meta_step=1.0), problem()
    before = method.init(p, RNG(0), np.float64)
    support, query = EPISODES
    after, _ = method.update(p, before, EPISODES)
    examples = {name: np.concatenate([support[name], query[name]], 1) for name in support}
    spread = tree.map(lambda x: np.repeat(x, 3, 0), before["params"]["network"])
    gradient = tm.grad(lambda params: tm.sum(p.objective(params, examples)))(spread)
    close(after["params"]["inner"]["v"], tree.map(lambda g: 0.001 * (g**2).mean(0, keepdims=True), gradient))
    assert int(after["params"]["inner"]["iteration"]) == 1
    way = tree.map(lambda x, y: np.asarray(x) - y, after["params"]["network"], before["params"]["network"])
    close(way, tree.map(lambda g: -0.1 * (g / (abs(g) + 1e-8)).mean(0, keepdims=True), gradient), 1e-6)


@pytest.mark.parametrize(("count", "size"), [(9, 4), (20, 10), (6, 10), (50, 10), (7, 3)])
def test_mini_batches_come_round_and_take_every_example_as_often(count: int, size: int) -> None:
    parts = _mini_batches(count, size)
    if count <= size:
        assert parts == [None]
        return
    taken = np.bincount(np.concatenate(parts), minlength=count)
    assert set(taken.tolist()) == {len(parts) * size // count}
    assert all(len(set(part.tolist())) == size for part in parts)
    if (count, size) == (50, 10):  # five classes of ten, one behind the other: two of each
        assert all(np.bincount(part // 10).tolist() == [2] * 5 for part in parts)


# iMAML.


def test_conjugate_gradient_solves_each_task_and_stands_still_when_it_has() -> None:
    rng = RNG(0)
    roots = rng.normal(size=(3, 4, 4))
    matrices = roots @ roots.swapaxes(1, 2) + np.eye(4)
    b = rng.normal(size=(3, 4))
    b[1] = 0

    def operator(us: Any) -> Any:
        u = tm.concatenate([us[0], us[1].reshape(3, 2)], 1)
        image = tm.matmul(matrices, u.reshape(3, 4, 1)).reshape(3, 4)
        return [image[:, :2], image[:, 2:].reshape(3, 1, 2)]

    parts = [as_tensor(b[:, :2].copy()), as_tensor(b[:, 2:].reshape(3, 1, 2).copy())]
    for steps in (4, 7):
        x = conjugate_gradient(operator, parts, steps)
        solved = np.concatenate([x[0].numpy(), x[1].numpy().reshape(3, 2)], 1)
        np.testing.assert_allclose(solved, np.linalg.solve(matrices, b[..., None])[..., 0], atol=1e-9)


@pytest.mark.parametrize("adapts_all", [True, False])
def test_the_implicit_gradient_is_that_of_the_dense_solve(adapts_all: bool) -> None:
    mask = [{"w": True, "b": True}, {"w": True, "b": adapts_all}]
    p = problem(adapted=lambda params: mask, inner_scale=1.5)
    method = IMAML(steps=3, alpha=0.1, proximity=4.0, cg_steps=30)
    before = method.init(p, RNG(0), np.float64)
    support, query = EPISODES
    after, figures = method.update(p, before, EPISODES)

    leaves, structure = tree.flatten(before["params"])
    masks, sizes = tree.leaves(mask_of(p, before["params"])), [x.size for x in leaves]
    adapted = np.concatenate([np.full(n, m) for n, m in zip(sizes, masks, strict=True)])
    ends = np.cumsum(sizes)[:-1]
    start = np.concatenate([x.ravel() for x in leaves])
    expected, losses = np.zeros(len(start)), []
    for t in range(3):
        one = [{name: x[t : t + 1] for name, x in part.items()} for part in (support, query)]

        def loss(vector: Any, part: Any) -> Any:
            pieces, first = [], 0
            for leaf in leaves:
                pieces.append(vector[first : first + leaf.size].reshape(leaf.shape))
                first += leaf.size
            return tm.sum(p.objective(tree.unflatten(structure, pieces), part))

        phi = start.copy()
        for _ in range(3):
            slope_ = 1.5 * tm.grad(loss)(phi, one[0]) + 4.0 * (phi - start)
            phi = phi - 0.1 * np.where(adapted, slope_, 0)
        hessian = 1.5 * tm.hessian(loss, phi, one[0])
        value, v = tm.value_and_grad(loss)(phi, one[1])
        losses.append(value)
        of_adapted = hessian[np.ix_(adapted, adapted)]
        u = np.linalg.solve(np.eye(adapted.sum()) + of_adapted / 4.0, v[adapted])
        gradient = v.copy()
        gradient[adapted] = u
        gradient[~adapted] -= hessian[np.ix_(~adapted, adapted)] @ u / 4.0
        expected += gradient / 3
    assert float(figures["loss"]) == pytest.approx(np.mean(losses))
    pieces = [x.reshape(leaf.shape) for x, leaf in zip(np.split(expected, ends), leaves, strict=True)]
    close(adams_gradient(before, after), tree.unflatten(structure, pieces), 1e-8)


def test_the_implicit_gradient_is_that_of_where_the_inner_steps_end() -> None:
    """Taken far, the inner steps end at the minimum: a finite difference through all of them agrees."""
    p = problem()
    method = IMAML(steps=150, alpha=0.1, proximity=2.0, cg_steps=30)
    before = method.init(p, RNG(0), np.float64)
    after, _ = method.update(p, before, EPISODES)

    def objective(params: Any) -> float:
        return float(method.update(p, {**before, "params": params}, EPISODES)[1]["loss"])

    v = tree.map(lambda x: RNG(5).normal(size=x.shape), before["params"])
    assert inner(adams_gradient(before, after), v) == pytest.approx(slope(objective, before["params"], v), rel=1e-5)


@pytest.mark.parametrize("method", [IMAML(steps=2, alpha=0.1), MAMLPlusPlus(steps=2, alpha=0.2)])
def test_each_element_of_the_meta_gradient_is_clipped(method: Any) -> None:
    p = problem()
    before = method.init(p, RNG(0), np.float64)
    free, _ = method.update(p, before, EPISODES)
    clipped, _ = dataclasses.replace(method, clip_element=0.05).update(p, before, EPISODES)
    gradient = adams_gradient(before, free)
    assert max(np.abs(g).max() for g in tree.leaves(gradient)) > 0.05
    close(adams_gradient(before, clipped), tree.map(lambda g: np.clip(g, -0.05, 0.05), gradient))


# MAML++.


def plus_plus(**changes: Any) -> MAMLPlusPlus:
    return MAMLPlusPlus(**{"steps": 3, "alpha": 0.2, "learning_rate": 1e-3, "last_learning_rate": 1e-3, **changes})


@pytest.mark.parametrize("mask", [None, [{"w": True, "b": True}, {"w": True, "b": False}]])
def test_with_the_last_step_alone_it_is_maml(mask: Any) -> None:
    p = problem() if mask is None else problem(adapted=lambda params: mask)
    method = plus_plus(multi_step_iterations=0, learn_alpha=False, norm_per_step=False)
    states = [m.init(p, RNG(0), np.float64) for m in (method, MAML(steps=3, alpha=0.2))]
    for _ in range(3):
        states[0], of_plus = method.update(p, states[0], EPISODES)
        states[1], of_maml = MAML(steps=3, alpha=0.2).update(p, states[1], EPISODES)
        assert float(np.mean(of_plus["loss"])) == pytest.approx(float(of_maml["loss"]), rel=1e-12)
    close(states[0]["params"]["network"], states[1]["params"])
    close(states[0]["params"]["alpha"], method.init(p, RNG(0), np.float64)["params"]["alpha"])


def test_its_gradient_is_that_of_a_finite_difference_by_every_parameter() -> None:
    mask = [{"w": True, "b": True}, {"w": True, "b": False}]
    p, (support, query) = problem(adapted=lambda params: mask), EPISODES
    method = plus_plus(multi_step_iterations=10)
    before = method.init(p, RNG(0), np.float64)
    before = {**before, "iteration": np.array(4.0)}
    after, _ = method.update(p, before, EPISODES)

    def objective(params: Any) -> float:
        phi = tree.map(lambda x: np.repeat(x, 3, 0), params["network"])
        total = 0.0
        for k, weight in enumerate([0.6 / 3, 0.6 / 3, 1 / 3 + 0.4 * 2 / 3]):
            if k:
                phi[1]["b"] = np.repeat(params["later"][k - 1][0], 3, 0)
            gradient = tm.grad(lambda q: tm.sum(p.objective(q, support)))(phi)
            rates = iter(params["alpha"][k])
            for i, layer in enumerate(phi):
                for name in ("b", "w"):
                    if mask[i][name]:
                        layer[name] = layer[name] - next(rates) * gradient[i][name]
            total += weight * float(np.mean(p.objective(phi, query).numpy()))
        return total

    v = tree.map(lambda x: RNG(5).normal(size=x.shape), before["params"])
    assert inner(adams_gradient(before, after), v) == pytest.approx(slope(objective, before["params"], v), rel=1e-6)


def test_the_weights_of_the_steps_move_to_the_last() -> None:
    method = MAMLPlusPlus(steps=5, multi_step_iterations=100)

    def at(iteration: float) -> list[float]:
        return [float(w.numpy()) for w in method.weights(as_tensor(np.array(float(iteration))))]

    assert at(0) == pytest.approx([0.2] * 5)
    assert at(50) == pytest.approx([0.1] * 4 + [0.2 + 0.4])
    assert at(99) == pytest.approx([0.03 / 5] * 4 + [1 - 0.03 * 4 / 5])
    assert at(100) == at(1e6) == [0, 0, 0, 0, 1]


def test_second_derivatives_come_in_late() -> None:
    p = problem()
    method = plus_plus(multi_step_iterations=0, first_order_iterations=2)
    before = method.init(p, RNG(0), np.float64)
    for iteration, order in ((0.0, 1), (1.0, 1), (2.0, 2)):
        after, _ = method.update(p, {**before, "iteration": np.array(iteration)}, EPISODES)
        _, expected = tm.meta_value_and_grad(p.objective, before["params"]["network"], *EPISODES, 0.2, 3, order=order)
        close(adams_gradient(before, after)["network"], expected)


# Multi-task averages.


@pytest.mark.parametrize("regulariser", ["none", "l2", "l2-to-mean"])
def test_the_mean_of_networks_is_that_of_a_loop_over_tasks(regulariser: str) -> None:
    p, steps = problem(), 6
    method = MultiTask(steps=steps, learning_rate=0.05, regulariser=regulariser, decay=0.3)
    state = method.init(p, RNG(7), np.float64)
    trained: list[Any] = []
    for seed in (0, 1):
        examples = batch(seed, tasks=2)
        mean = tree.map(lambda *xs: np.mean(xs, 0), *trained) if trained else None
        for t in range(2):
            one = {name: x[t : t + 1] for name, x in examples.items()}
            params = p.model.init(np.random.default_rng([int(state["seed"]), 2 * seed + t]), np.float64)
            optimiser = optim.adam(0.05)
            moments = optimiser.init(params)
            for _ in range(steps):
                gradient = tm.grad(lambda q, one=one: tm.sum(p.objective(q, one)))(params)
                if regulariser == "l2":
                    gradient = tree.map(lambda g, x: g + 0.3 * x, gradient, params)
                elif regulariser == "l2-to-mean" and mean is not None:
                    gradient = tree.map(lambda g, x, m: g + 0.3 * (x - m), gradient, params, mean)
                params, moments = optimiser.update(gradient, moments, params)
            trained.append(params)
        state, _ = method.update(p, state, examples)
    assert int(state["count"]) == 4
    close(state["params"], tree.map(lambda *xs: np.mean(xs, 0), *trained), 1e-9)


def test_multi_task_averages_are_for_the_cpu() -> None:
    with pytest.raises(ValueError, match="multi-task trains on the CPU alone"):
        MultiTask().check(problem(device="gpu"))
