"""The experiments on images with the paper's settings (section 5.2 and appendix A.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

from tinymaml.experiments.few_shot import table
from tinymaml.experiments.few_shot.domain import DRAWN, LARGE, FewShotImages, ImageTraining, first_order
from tinymaml.experiments.few_shot.plots import PICTURES
from tinymaml.methods import MAML, Prototypical
from tinymaml.train.experiment import Experiment

_LINEAR: dict[str, Any] = {
    "network": "mlp",
    "initialiser": "truncated-normal",
    "head_initialiser": "truncated-normal",
}

# As Snell et al. train on Omniglot.
_WIDE = Prototypical(train_ways=60, train_queries=5, train_tasks=1, half_life=2_000)


def _experiment(name: str, domain: FewShotImages, method: MAML, training: ImageTraining) -> Experiment:
    network = "" if domain.network == "conv" else ", no convolutions"
    return Experiment(
        domain,
        name,
        {**FewShotImages.METHODS, "maml": method, "fomaml": first_order(method)},
        training,
        f"{domain.ways}-way {domain.shots}-shot classification of {domain.dataset} images{network}",
        frozenset({"ways", "shots", "network"}),
        table.table,
        PICTURES,
        shows="task",
    )


def _omniglot(name: str, ways: int, shots: int, training: dict[str, Any] | None = None, **others: Any) -> Experiment:
    twenty = ways == 20
    experiment = _experiment(
        name,
        FewShotImages(ways=ways, shots=shots, query_images=shots, **{"test_steps": 5 if twenty else 3, **others}),
        MAML(steps=5 if twenty else 1, alpha=0.1 if twenty else 0.4),
        dataclasses.replace(
            ImageTraining(meta_batch=16, eval_batch=8) if twenty else ImageTraining(), **training or {}
        ),
    )
    methods = {**experiment.methods, "prototypical": _WIDE}
    return dataclasses.replace(experiment, methods=methods)


def _colour(name: str, dataset: str, shots: int) -> Experiment:
    """The network and settings of MiniImagenet.

    The authors clip the gradient of the query loss at 10, summed over its images and divided by the shots; ours is of
    the mean.
    """
    ways, query = 5, 15
    return _experiment(
        name,
        FewShotImages(
            dataset=dataset,
            ways=ways,
            shots=shots,
            query_images=query,
            test_steps=10,
            inner_loss="sum-over-k",
            filters=32,
            downsample="max-pool",
            head_initialiser="xavier-uniform",
            rotations=False,
        ),
        MAML(steps=5, alpha=0.01, clip_element=10 * shots / (ways * query)),
        ImageTraining(
            meta_batch=4 if shots == 1 else 2, validate_every=2_000, eval_batch=4 if dataset == LARGE else 20
        ),
    )


IMAGES = dataclasses.replace(
    _experiment("images", FewShotImages(), MAML(alpha=0.4), ImageTraining()),
    summary="N-way K-shot classification of any prepared set of images: --dataset NAME --ways N --shots K",
    fixed=frozenset(),
    general=True,
)

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        *(_omniglot(f"omniglot-{n}way-{k}shot", n, k) for n in (5, 20) for k in (1, 5)),
        *(_omniglot(f"omniglot-5way-{k}shot-noconv", 5, k, **_LINEAR) for k in (1, 5)),
        *(_colour(f"miniimagenet-5way-{k}shot", LARGE, k) for k in (1, 5)),
        *(_colour(f"cifar-fs-5way-{k}shot", "cifar_fs", k) for k in (1, 5)),
        # Short, for a first look.
        _omniglot(
            "glyphs-5way-1shot", 5, 1, {"iterations": 2_000, "validate_every": 250}, dataset=DRAWN, rotations=False
        ),
    )
}
