"""Methods that compare embeddings, and baselines pretrained on all classes: what they descend and predict, in NumPy."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

import tinymaml as tm
from tests.cases.experiment_cases import small, tiny, write_small
from tests.nn.test_nets_numpy import normalised, perturbed
from tinymaml import nets, tree
from tinymaml.experiments.few_shot.domain import FewShotImages
from tinymaml.experiments.few_shot.experiments import EXPERIMENTS
from tinymaml.methods import (
    FineTune,
    Matching,
    NearestNeighbour,
    Problem,
    ProtoMAML,
    Prototypical,
    Siamese,
)
from tinymaml.train import results
from tinymaml.train.trainer import Trained

WAYS, SHOTS, QUERIES, TASKS = 3, 2, 2, 2
METRIC = {
    "prototypical": Prototypical(),
    "matching": Matching(temperature=3.0),
    "matching, learned": Matching(temperature=3.0, learn_temperature=True),
    "siamese": Siamese(),
    "siamese, cosine": Siamese(nearest="cosine"),
}
ALL = {
    **METRIC,
    "proto-maml": ProtoMAML(alpha=0.1, steps=2),
    "nearest-neighbour": NearestNeighbour(),
    "fine-tune": FineTune(finetune_alphas=(0.3,)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("data"))


def problem(classes=WAYS, record=False):
    model = nets.norm_mlp((2, 3, 1), classes, (5, 4))
    return Problem(
        model=model,
        loss=tm.softmax_cross_entropy,
        figures=lambda outputs, y: {},
        answer_with=lambda network, params, support, inputs: {
            name: network.apply(params, x) for name, x in inputs.items()
        },
        record=record,
    )


def batch(rng, each):
    """The examples in no order: a class is not where it was in another task."""
    labels = np.stack([rng.permutation(np.repeat(np.arange(WAYS), each)) for _ in range(TASKS)])
    return {"x": rng.normal(size=(*labels.shape, 2, 3, 1)), "y": labels}


def drawn(method, seed=0):
    """(the state with parameters at random, support, query)."""
    rng = np.random.default_rng(seed)
    state = method.init(problem(), rng, np.float64)
    params = tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), state["params"])
    return {**state, "params": params}, batch(rng, SHOTS), batch(rng, QUERIES)


def gradient_of(state):
    """What Adam was given in its first step."""
    return tree.map(lambda m: np.asarray(m) / (1 - 0.9), state["optimiser"]["m"])


def assert_is_gradient(gradient, function, params, rtol=1e-6):
    """By a central difference in every parameter."""
    leaves, structure = tree.flatten(params)
    for i, (leaf, got) in enumerate(zip(leaves, tree.leaves(gradient), strict=True)):
        expected = np.zeros_like(leaf)
        for j in np.ndindex(leaf.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = leaf.copy()
                moved[j] += step
                values.append(function(tree.unflatten(structure, [*leaves[:i], moved, *leaves[i + 1 :]])))
            expected[j] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-8)


# The formulas, one task, one query, one class at a time.


def embedded(params, x, statistics=None):
    """[N, 4] of one task's images."""
    h = x.reshape(len(x), -1)
    for k, layer in enumerate(tree.map(lambda p: p[0], params["hidden"])):
        given = None if statistics is None else [np.ravel(s) for s in statistics[k]]
        h = normalised(h @ layer["w"] + layer["b"], layer, given)
    return h


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


def logit(params, a, b):
    return float(np.sum(np.ravel(params["alpha"]) * np.abs(a - b)) + params["bias"].item())


def prototypical_scores(params, q, s, labels):
    return np.array([-np.sum((q - s[labels == c].mean(0)) ** 2) for c in range(WAYS)])


def matching_scores(params, q, s, labels):
    factor = np.exp(params["log_temperature"]).item() if "log_temperature" in params else 3.0
    weights = np.exp([factor * cosine(q, one) for one in s])
    return np.log(np.array([weights[labels == c].sum() for c in range(WAYS)]) / weights.sum())


def siamese_scores(params, q, s, labels):
    return np.array([max(logit(params, q, one) for one in s[labels == c]) for c in range(WAYS)])


def nearest_scores(params, q, s, labels):
    return np.array([max(cosine(q, one) for one in s[labels == c]) for c in range(WAYS)])


SCORES = {
    "prototypical": prototypical_scores,
    "matching": matching_scores,
    "matching, learned": matching_scores,
    "siamese": siamese_scores,
    "siamese, cosine": nearest_scores,
}


def cross_entropy(scores, label):
    return np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[label]


def loss(name, params, support, query):
    """The mean over tasks."""
    losses = []
    for t in range(TASKS):
        s, q = embedded(params, support["x"][t]), embedded(params, query["x"][t])
        ys, yq = support["y"][t], query["y"][t]
        if name.startswith("siamese"):
            pairs = [
                (logit(params, a, b), y == z) for a, y in zip(q, yq, strict=True) for b, z in zip(s, ys, strict=True)
            ]
            of_pairs = np.array([np.log1p(np.exp(-z if same else z)) for z, same in pairs])
            same = np.array([same for _, same in pairs])
            losses.append((of_pairs[same].mean() + of_pairs[~same].mean()) / 2)
        else:
            scores = [SCORES[name](params, a, s, ys) for a in q]
            losses.append(np.mean([cross_entropy(one, y) for one, y in zip(scores, yq, strict=True)]))
    return np.mean(losses)


@pytest.mark.parametrize("name", METRIC)
def test_what_a_metric_method_descends(name):
    method = METRIC[name]
    state, support, query = drawn(method)
    after, figures = method.update(problem(), state, (support, query))
    assert np.asarray(figures["loss"]) == pytest.approx(loss(name, state["params"], support, query), rel=1e-12)
    assert_is_gradient(gradient_of(after), lambda params: loss(name, params, support, query), state["params"])


@pytest.mark.parametrize("name", METRIC)
def test_what_a_metric_method_predicts(name):
    state, support, query = drawn(METRIC[name])
    outputs = METRIC[name].predict(problem(), state, support, {"new": query["x"]}, [0, 3])["new"]
    assert outputs.shape == (2, TASKS, WAYS * QUERIES, WAYS)
    for t in range(TASKS):
        s, q = (embedded(state["params"], part["x"][t]) for part in (support, query))
        expected = np.array([SCORES[name](state["params"], one, s, support["y"][t]) for one in q])
        for got in outputs[:, t]:
            if name.startswith("matching"):  # up to a number for each query
                got, expected = got - got[:, :1], expected - expected[:, :1]
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


def test_the_cross_entropy_of_a_matching_network_is_of_its_attention():
    """No second softmax: the exponentials of the logits, normalised, are each class's share."""
    state, support, query = drawn(METRIC["matching"])
    outputs = METRIC["matching"].predict(problem(), state, support, {"new": query["x"]}, [0])["new"][0]
    shares = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    for t in range(TASKS):
        s, q = (embedded(state["params"], part["x"][t]) for part in (support, query))
        expected = [np.exp(matching_scores(state["params"], one, s, support["y"][t])) for one in q]
        np.testing.assert_allclose(shares[t], expected, rtol=1e-10)


# Proto-MAML.


def test_the_head_of_proto_maml_starts_as_a_prototypical_network():
    state, support, query = drawn(ALL["proto-maml"])
    head = {"params": state["params"]}
    one, other = (
        method.predict(problem(), head, support, {"new": query["x"]}, [0])["new"][0]
        for method in (ALL["proto-maml"], Prototypical())
    )
    np.testing.assert_allclose(one - one[..., :1], other - other[..., :1], rtol=1e-10, atol=1e-10)


def proto_objective(params, support, query, alpha, steps):
    """The mean query loss after inner steps from the prototypes: no derivative but those of the inner steps."""
    heads = {"w": np.zeros((TASKS, 4, WAYS)), "b": np.zeros((TASKS, 1, WAYS))}
    for t in range(TASKS):
        s = embedded(params, support["x"][t])
        for c in range(WAYS):
            mean = s[support["y"][t] == c].mean(0)
            heads["w"][t, :, c], heads["b"][t, 0, c] = 2 * mean, -np.sum(mean**2)
    start = {**params, "head": heads}
    phi = tm.adapt(problem().objective, start, support, alpha, steps)
    return problem().objective(phi, query).numpy().mean()


def test_the_meta_gradient_of_proto_maml_goes_through_the_heads_start():
    method = ProtoMAML(alpha=0.1, steps=2, order=2)
    state, support, query = drawn(method)
    after, figures = method.update(problem(), state, (support, query))
    value = proto_objective(state["params"], support, query, 0.1, 2)
    assert np.asarray(figures["loss"]) == pytest.approx(value, rel=1e-10)
    assert_is_gradient(
        gradient_of(after),
        lambda params: proto_objective(params, support, query, 0.1, 2),
        state["params"],
        rtol=1e-5,
    )


def test_proto_maml_of_first_order_leaves_out_the_inner_steps_derivative_alone():
    """With tiny inner steps both orders are the same; with larger ones they are not."""

    def gradient(order, alpha):
        method = ProtoMAML(alpha=alpha, steps=2, order=order)
        state, support, query = drawn(method)
        return np.concatenate(
            [g.ravel() for g in tree.leaves(gradient_of(method.update(problem(), state, (support, query))[0]))]
        )

    one, two = gradient(1, 1e-9), gradient(2, 1e-9)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-8)
    one, two = gradient(1, 0.1), gradient(2, 0.1)
    assert np.abs(one - two).max() > 1e-3


# Pretrained on all classes.


def labelled(rng, classes=4, count=9):
    return {"x": rng.normal(size=(1, count, 2, 3, 1)), "y": rng.integers(0, classes, (1, count))}


def pretraining_loss(params, images):
    h = embedded(params, images["x"][0])
    scores = h @ params["head"]["w"][0] + params["head"]["b"][0]
    return np.mean([cross_entropy(one, y) for one, y in zip(scores, images["y"][0], strict=True)])


def test_pretraining_descends_the_cross_entropy_and_keeps_running_averages():
    rng = np.random.default_rng(0)
    method, given = NearestNeighbour(), problem(classes=4)
    state = method.init(given, rng, np.float64)
    moved = tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), state["params"])
    params = {**moved, "statistics": state["params"]["statistics"]}
    state, images = {**state, "params": params}, labelled(rng)
    after, figures = method.update(given, state, images)
    network = {"hidden": params["hidden"], "head": params["head"]}
    assert np.asarray(figures["loss"]) == pytest.approx(pretraining_loss(params, images), rel=1e-12)
    assert_is_gradient(gradient_of(after), lambda network: pretraining_loss(network, images), network)

    h = images["x"][0].reshape(9, -1)
    for layer, averages in zip(params["hidden"], after["params"]["statistics"], strict=True):
        h = h @ layer["w"][0] + layer["b"][0]
        np.testing.assert_allclose(averages[0][0], 0.1 * h.mean(0), rtol=1e-10)
        np.testing.assert_allclose(averages[1][0], 0.9 + 0.1 * h.var(0), rtol=1e-10)
        h = normalised(h, tree.map(lambda p: p[0], layer))


def test_pretraining_overfits_one_batch(folder):
    trainer = small(folder, batch_images=30, filters=8, learning_rate=0.01).trainer("nearest-neighbour")
    images = trainer.source.labelled(0, "train", 0, 1, np.float32)
    state = {name: part for name, part in trainer.start().items() if name != "stream"}
    program = tm.record(trainer.update, state, images)
    for _ in range(200):
        state, figures = program(state, images)
    assert float(figures["loss"]) < 0.01 and float(np.mean(figures["accuracy"])) == 1


def pretrained(method, rng):
    """A state after some steps of pretraining on 4 classes."""
    state = method.init(problem(classes=4), rng, np.float64)
    for _ in range(5):
        state, _ = method.update(problem(classes=4), state, labelled(rng))
    return {"params": tree.map(np.asarray, state["params"])}


def test_the_nearest_neighbour_is_by_cosine_under_the_statistics_of_the_pretraining():
    rng = np.random.default_rng(0)
    state, support, query = pretrained(NearestNeighbour(), rng), batch(rng, SHOTS), batch(rng, QUERIES)
    outputs = NearestNeighbour().predict(problem(), state, support, {"new": query["x"]}, [0])["new"][0]
    params = state["params"]
    for t in range(TASKS):
        s, q = (embedded(params, part["x"][t], params["statistics"]) for part in (support, query))
        expected = [nearest_scores(params, one, s, support["y"][t]) for one in q]
        np.testing.assert_allclose(outputs[t], expected, rtol=1e-10)


def test_fine_tuning_takes_steps_of_all_weights_from_a_head_of_zeros():
    rng = np.random.default_rng(0)
    method = FineTune(finetune_alphas=(0.3,))
    state, support, query = pretrained(method, rng), batch(rng, SHOTS), batch(rng, QUERIES)
    outputs = method.predict(problem(), state, support, {"new": query["x"]}, [0, 1, 2])["new"]
    assert (outputs[0] == 0).all()
    params = state["params"]

    def logits(network, x):
        return embedded(network, x, params["statistics"]) @ network["head"]["w"][0] + network["head"]["b"][0]

    for t in range(TASKS):
        network = {
            "hidden": params["hidden"],
            "head": {"w": np.zeros((1, 4, WAYS)), "b": np.zeros((1, 1, WAYS))},
        }
        for k in (1, 2):

            def objective(network, t=t):
                scores = logits(network, support["x"][t])
                return np.mean([cross_entropy(one, y) for one, y in zip(scores, support["y"][t], strict=True)])

            leaves, structure = tree.flatten(network)
            moved = [leaf.copy() for leaf in leaves]
            for i, leaf in enumerate(leaves):
                for j in np.ndindex(leaf.shape):
                    values = []
                    for step in (1e-5, -1e-5):
                        other = [x.copy() for x in leaves]
                        other[i][j] += step
                        values.append(objective(tree.unflatten(structure, other)))
                    moved[i][j] -= 0.3 * (values[0] - values[1]) / 2e-5
            network = tree.unflatten(structure, moved)
            np.testing.assert_allclose(outputs[k, t], logits(network, query["x"][t]), rtol=1e-6, atol=1e-8)


# What all of them hold.


@pytest.mark.parametrize("name", ALL)
def test_other_names_of_the_labels_move_the_predictions_alone(name):
    method, rng = ALL[name], np.random.default_rng(1)
    if name in ("nearest-neighbour", "fine-tune"):
        state, support, query = pretrained(method, rng), batch(rng, SHOTS), batch(rng, QUERIES)
    else:
        state, support, query = drawn(method)
    order = np.array([2, 0, 1])  # label c is called order[c]
    renamed = {**support, "y": order[support["y"]]}
    one, other = (
        method.predict(problem(), state, given, {"new": query["x"]}, [0, 2])["new"] for given in (support, renamed)
    )
    np.testing.assert_allclose(other[..., order], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["prototypical", "matching", "siamese", "nearest-neighbour"])
def test_methods_without_inner_steps_have_one_figure(name, folder):
    experiment = small(folder)
    trainer = experiment.trainer(name)
    state = trainer.start()
    entry = trainer.evaluate(Trained(trainer.settings(), state, 0, 0.0, None))
    for figures in entry["parameters"]["last"]["figures"].values():
        assert len(figures["mean"]) == len(figures["half_width"]) == 1
    assert entry["protocol"]["alpha"] == "none"
    content = {"format": 2, "experiment": "images", "methods": {name: entry}}
    lines = experiment.table(content).splitlines()
    mean = 100 * entry["parameters"]["last"]["figures"]["transductive, 2 query"]["mean"][0]
    row = next(line for line in lines if line.startswith(results.name_of(name)))
    assert f"{mean:.2f} ± " in row  # as after the inner steps of meta-test, of which there are none
    assert f"{name}: seed 0, 0 iterations, 0 s; 7 test tasks, no inner steps" in lines
    assert [line for line in lines if "inner step" in line[:16]] == [
        line for line in lines if line.startswith("0 inner steps")
    ]


def test_methods_with_inner_steps_have_a_figure_after_each(folder):
    trainer = small(folder, finetune_alphas=(0.1, 0.01)).trainer("fine-tune")
    entry = trainer.evaluate(Trained(trainer.settings(), trainer.start(), 0, 0.0, None))
    assert all(len(figures["mean"]) == 5 for figures in entry["parameters"]["last"]["figures"].values())
    assert set(entry["step_size_search"]["transductive, 2 query"]) == {"0.1", "0.01"}


# The shapes that they learn from.


def test_prototypical_networks_learn_from_wider_episodes_than_they_are_tested_on(folder):
    trainer = small(folder, train_ways=6, train_queries=4, train_tasks=2).trainer("prototypical")
    assert trainer.images == 2 * 6 * (2 + 4)
    shapes = []
    update = Prototypical.update

    class Watched(Prototypical):
        def update(self, given, state, batch):
            shapes.append([part["x"].shape for part in batch])
            assert given.model.classes == 6
            return update(self, given, state, batch)

    trainer.method = Watched(**{f.name: getattr(trainer.method, f.name) for f in dataclasses.fields(Prototypical)})
    state, _ = trainer.step(trainer.start())
    assert shapes == [[(2, 12, 8, 8, 1), (2, 24, 8, 8, 1)]]
    assert state["stream"]["next_task"] == 2
    assert trainer.validate(state)["validation"] >= 0  # on tasks of 3 ways
    assert trainer.domain.ways == trainer.settings()["ways"] == 3


def test_on_omniglot_prototypical_networks_learn_from_60_ways():
    method = EXPERIMENTS["omniglot-5way-1shot"].methods["prototypical"]
    assert method.in_training() == {"ways": 60, "query_images": 5, "meta_batch": 1}
    assert FewShotImages.METHODS["prototypical"].in_training() == {}


def test_all_training_classes_are_told_apart_by_single_labelled_images(folder):
    trainer = small(folder, batch_images=50, rotations=True).trainer("nearest-neighbour")
    assert trainer.images == 50
    assert trainer.start()["params"]["head"]["b"].shape == (1, 1, 8 * 4)  # a quarter turn is a class of its own
    plain = small(folder, batch_images=50, rotations=False).trainer("nearest-neighbour")
    assert plain.start()["params"]["head"]["b"].shape == (1, 1, 8)
    images = plain.source.labelled(0, "train", 3, 2, np.float64)
    assert images["x"].shape == (2, 50, 8, 8, 1) and images["x"].dtype == np.float64
    assert images["y"].shape == (2, 50) and set(np.unique(images["y"])) == set(range(8))
    state, _ = plain.step(plain.start())
    assert state["stream"]["next_task"] == 1


# Refusals.


def test_what_does_not_go_together_is_refused(folder):
    for method in (Matching(), Prototypical(), Siamese(), ProtoMAML()):
        with pytest.raises(ValueError, match="it needs a network with features"):
            experiment = tiny()
            dataclasses.replace(experiment, methods={"this": method}).trainer("this")
    with pytest.raises(ValueError, match="fine-tune learns from a stream of labelled, sinusoid has one of"):
        dataclasses.replace(tiny(), methods={"fine-tune": FineTune()}).trainer("fine-tune")
    with pytest.raises(ValueError, match="sinusoid has no setting 'ways', so that it cannot be another in training"):
        dataclasses.replace(tiny(), methods={"this": Prototypical(train_ways=60)}).trainer("this")
    with pytest.raises(ValueError, match="60 ways, but small has 8 train classes"):
        small(folder, train_ways=60).trainer("prototypical").ready()
    with pytest.raises(ValueError, match="train_ways must be at least 2, got 1"):
        Prototypical(train_ways=1)
    with pytest.raises(ValueError, match="single labelled images are drawn on the CPU"):
        trainer = small(folder).trainer("fine-tune")
        trainer.source.device_stream("labelled", trainer.training)


def test_the_embedding_is_what_the_head_is_given():
    rng = np.random.default_rng(0)
    strided, pooled = (nets.conv_net((8, 8, 1), 3, 4, 2, downsample) for downsample in ("stride", "max-pool"))
    for model in (nets.norm_mlp((8, 8, 1), 3, (5, 4)), strided, pooled):
        params = perturbed(model, rng)
        x = rng.normal(size=(2, 5, 8, 8, 1))
        collected = []
        features = model.features({"hidden": params["hidden"]}, x, collected=collected).numpy()
        assert features.shape == (2, 5, model.width) and model.classes == 3
        expected = features @ params["head"]["w"] + params["head"]["b"]
        np.testing.assert_allclose(model.apply(params, x).numpy(), expected, rtol=1e-10)
        for got, wanted in zip(tree.leaves(collected), tree.leaves(model.statistics(params, x)), strict=True):
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())
