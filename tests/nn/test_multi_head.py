"""Attention of several heads and embeddings: the values of plain NumPy, derivatives, sizes and what is refused."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import nn


def drawn(own, size=4, heads=2, shape=(2, 3, 4), context=(2, 5, 4)):
    """A model, its parameters, per task if `own`, and what they are applied to."""
    rng = np.random.default_rng(0)
    model = nn.attention(size, heads)
    tasks = shape[0] if own else 1
    params = tm.tree.map(lambda p: p + 0.3 * rng.standard_normal((tasks, *p.shape[1:])), model.init(rng, np.float64))
    return model, params, rng.standard_normal(shape), rng.standard_normal(context)


def by_hand(params, x, context, mask, heads):
    """One task, head and query at a time."""
    y = np.zeros(x.shape)
    for t in range(len(x)):
        q, k, v, o = (params[name] for name in ("queries", "keys", "values", "outputs"))
        q, k, v, o = ({n: p[t if len(p) > 1 else 0] for n, p in part.items()} for part in (q, k, v, o))
        queries, keys, values = x[t] @ q["w"] + q["b"], context[t] @ k["w"] + k["b"], context[t] @ v["w"] + v["b"]
        seen = np.zeros(queries.shape)
        for part in np.split(np.arange(x.shape[-1]), heads):
            for n in range(x.shape[1]):
                weights = np.exp(keys[:, part] @ queries[n, part] / np.sqrt(len(part))) * mask[t, n]
                seen[n, part] = weights @ values[:, part] / (weights.sum() or 1)
        y[t] = seen @ o["w"] + o["b"]
    return y


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_as_by_hand(own, heads):
    model, params, x, context = drawn(own, heads=heads)
    mask = np.random.default_rng(1).random((2, 3, 5)) < 0.6
    mask[0, 0] = False
    everything = np.ones((2, 3, 5), bool)
    for given, meant in ((None, everything), (mask, mask), (mask[1], np.broadcast_to(mask[1], mask.shape))):
        expected = by_hand(params, x, context, meant, heads)
        np.testing.assert_allclose(model.apply(params, x, context, given).numpy(), expected, rtol=1e-11, atol=1e-13)
    of_itself = by_hand(params, x, x, np.ones((2, 3, 3), bool), heads)
    np.testing.assert_allclose(model.apply(params, x).numpy(), of_itself, rtol=1e-11, atol=1e-13)


def test_several_sequences_of_a_task():
    model, params, x, _ = drawn(True, shape=(2, 3, 5, 4))
    mask = np.tri(5, dtype=bool)
    one_by_one = [model.apply(params, x[:, i], mask=mask).numpy() for i in range(3)]
    np.testing.assert_allclose(model.apply(params, x, mask=mask).numpy(), np.stack(one_by_one, 1), rtol=1e-12)
    changed = x.copy()
    changed[:, :, 3:] += 1
    early = [model.apply(params, y, mask=mask).numpy()[:, :, :3] for y in (x, changed)]
    np.testing.assert_array_equal(*early)


@pytest.mark.parametrize("own", [False, True])
def test_derivatives(own):
    model, params, x, context = drawn(own, shape=(2, 2, 2), context=(2, 3, 2), size=2)
    mask = np.array([[True, False, True], [False, False, False]])
    leaves, structure = tm.tree.flatten(params)
    tm.testing.check_derivatives(
        lambda x, context, *leaves: model.apply(tm.tree.unflatten(structure, leaves), x, context, mask),
        x, context, *leaves,
    )  # fmt: skip


def test_a_recorded_meta_gradient_is_the_eager_one():
    model, params, x, _ = drawn(False)

    def step(params, x, mask):
        def loss(params, batch):
            return tm.mse(model.apply(params, batch["x"], mask=batch["mask"]), batch["x"])

        batch = {"x": x, "mask": mask}
        return tm.meta_value_and_grad(loss, params, batch, batch, 0.1, 1)

    mask = np.broadcast_to(np.tri(3, dtype=bool), (2, 3, 3)).copy()
    eager, recorded = step(params, x, mask), tm.record(step, params, x, mask)(params, x, mask)
    for one, other in zip(tm.tree.leaves(eager), tm.tree.leaves(recorded), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("sizes", [(0, 1), (4, 0), (4, 1.5)])
def test_sizes_are_whole_numbers(sizes):
    with pytest.raises(ValueError, match=r"attention: .* must be a whole number >= 1"):
        nn.attention(*sizes)
    with pytest.raises(ValueError, match=r"embedding: .* must be a whole number >= 1"):
        nn.embedding(*sizes)


def test_what_attention_refuses():
    with pytest.raises(ValueError, match="attention: 3 heads do not divide a size of 4"):
        nn.attention(4, 3)
    model, params, x, _ = drawn(False)
    with pytest.raises(ValueError, match=r"attention: context must be \[T, ..., N, 4\], got \(2, 3, 3\)"):
        model.apply(params, x, x[..., :3])


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 2, 3), (2, 0)])
def test_an_embedding_is_a_row(own, shape):
    rng = np.random.default_rng(0)
    model = nn.embedding(5, 3)
    w = rng.standard_normal((2 if own else 1, 5, 3))
    labels = rng.integers(0, 5, shape)
    expected = np.stack([w[t if own else 0][labels[t]] for t in range(2)])
    np.testing.assert_array_equal(model.apply({"w": w}, labels).numpy(), expected)
    tm.testing.check_derivatives(lambda w: model.apply({"w": w}, labels), w)
    assert model.init(rng)["w"].shape == (1, 5, 3)


def test_an_embedding_has_its_symbols_alone():
    model = nn.embedding(5, 3)
    params = model.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"embedding: labels must be in \[0, 5\), got 0 to 5"):
        model.apply(params, np.array([[0, 5]]))
    with pytest.raises(TypeError, match=r"embedding: labels \[T, ...\] must be integers, got float64"):
        model.apply(params, np.ones((1, 2)))
    with pytest.raises(ValueError, match="embedding: w is for 2 tasks, labels for 3"):
        model.apply({"w": np.ones((2, 5, 3))}, np.zeros((3, 1), int))
