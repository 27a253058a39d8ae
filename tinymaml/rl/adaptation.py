"""Adaptation as a map of parameters, theta -> phi_K, and its derivative J, forwards and backwards.

With phi_{k+1} = phi_k - alpha g_k(phi_k), where g_k is the gradient on the k-th step's own samples, and H_k the Hessian
there, which is symmetric,

    J u  = (I - alpha H_{K-1}) ... (I - alpha H_0) u        (push)
    Jᵀ v = (I - alpha H_0) ... (I - alpha H_{K-1}) v        (pull)

so each is K Hessian-vector products. A meta-gradient is Jᵀ times the gradient at phi_K. And the Hessian by theta of a
divergence between the adapted policies at theta and at theta' is, at theta = theta', Jᵀ M J with M the Fisher matrix at
phi_K: the divergence has no gradient there, so the derivatives of J do not count, which would be third ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, constant, now
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.arguments import Loss, Arguments
from tinymaml.ops import broadcast_to, multiply, subtract
from tinymaml.ops.shape import sum_to
from tinymaml.transforms import Record


class Adaptation:
    """Inner steps from params, each on samples of its own, recorded.

    Args:
        loss: `loss(params, batch) -> Tensor [T]`.
        params: pytree of arrays [1, ...], or tensors.
        supports: a batch for each inner step, none perhaps.
        alpha: the step size, a number or an array ().
        tasks: T.
    """

    def __init__(self, loss: Loss, params: Tree, supports: Sequence[Tree], alpha: Any, tasks: int) -> None:
        leaves, self.structure = tree.flatten(params)
        self.shapes = [leaf.shape for leaf in leaves]
        self.tasks, self.alpha = tasks, alpha
        self.records: list[Record] = []
        mark = now()
        phi = [self._spread(leaf) for leaf in leaves]
        for k, support in enumerate(supports):
            problem = Arguments.of(loss, tree.unflatten(self.structure, phi), support, alpha, 1, None)
            record = problem.record(phi, k)
            phi = problem.step(record, mark)
            self.records.append(record)
        self.leaves = phi

    @property
    def phi(self) -> Tree:
        """The adapted parameters, leaves [T, ...]."""
        return tree.unflatten(self.structure, self.leaves)

    def push(self, u: Tree) -> list[Tensor]:
        """J u: a tangent of every task's adapted parameters, [T, ...] each, from one of the parameters."""
        us = [self._spread(leaf) for leaf in tree.leaves_like(self.structure, u, "u")]
        for record in self.records:
            us = self._step(record, us)
        return us

    def pull(self, vs: Sequence[Tensor]) -> Tree:
        """Jᵀ v: summed over the tasks, a cotangent of the parameters from those of every task's adapted ones."""
        vs = list(vs)
        for record in reversed(self.records):
            vs = self._step(record, vs)
        return tree.unflatten(self.structure, [sum_to(v, shape) for v, shape in zip(vs, self.shapes, strict=True)])

    def _step(self, record: Record, vs: Sequence[Tensor]) -> list[Tensor]:
        """(I - alpha H) v."""
        products = record.hessian_product(vs)
        return [v if h is None else subtract(v, multiply(h, self.alpha)) for v, h in zip(vs, products, strict=True)]

    def _spread(self, leaf: Tensor) -> Tensor:
        x = leaf if isinstance(leaf, Tensor) else constant(leaf)
        return broadcast_to(x, (self.tasks, *x.shape[1:]))
