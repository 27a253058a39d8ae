"""Adaptation as a map theta -> phi_K, and products with its derivative J, forwards and backwards.

An inner step is phi_{k+1} = phi_k - alpha * g_k(phi_k), with g_k the gradient of the support loss on the k-th step's
batch, from phi_0 = theta. With H_k the loss's Hessian at phi_k, which is symmetric,

    J u  = (I - alpha H_{K-1}) ... (I - alpha H_0) u        push
    Jᵀ v = (I - H_0 alpha) ... (I - H_{K-1} alpha) v        pull

where alpha is the diagonal matrix of the step sizes, so that each is one Hessian-vector product a step and needs no
graph through the updates. A parameter psi that is not adapted has a step size of 0 there: the same products give it
its cross term, - d/dpsi <g_k, alpha v>. The derivative by alpha itself is collected on the way, - v * g_k for each
step, with v taken after the step.

A meta-gradient is Jᵀ times the query loss's gradient at phi_K. The Hessian by theta of a divergence between the adapted
policies at theta and at theta' is, at theta = theta', Jᵀ M J with M the Fisher matrix at phi_K: the divergence has no
gradient there, so the derivatives of J do not count, which would be third ones.

Everything is done for all tasks at once, on the leading task axis; where the tasks share parameters, J u has a part for
each task, and Jᵀ v is the sum over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import CONSTANT, Tensor, as_tensor, constant, now
from tinymaml.autodiff.tracing import declare_tasks
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.arguments import Arguments
from tinymaml.meta.finite import check_finite
from tinymaml.ops import broadcast_to, multiply, subtract
from tinymaml.ops.elementwise import descend
from tinymaml.ops.shape import sum_to
from tinymaml.transforms import MODES, Record, enter


@dataclass(frozen=True)
class Derivative:
    """Which derivative of the inner steps `push` and `pull` multiply with, and how.

    Args:
        order: 2, or 1 for first-order MAML, which takes the Hessians for zero; then no record is kept.
        mode: how the Hessian-vector products are made, see `tinymaml.hvp`.
        records: "keep" the record of every inner step, or "recompute" it from where the step started.
        learn_alpha: also by the step sizes.
        alpha_last: `pull` too multiplies by alpha after the product with the Hessian, as `push` does and as is right
            where one number is the step size of all parameters. The same but for rounding.
    """

    order: int = 2
    mode: str = MODES[0]
    records: str = "keep"
    learn_alpha: bool = False
    alpha_last: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order!r}")
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.records not in ("keep", "recompute"):
            raise ValueError(f"records must be 'keep' or 'recompute', got {self.records!r}")


NO_DERIVATIVE = Derivative(order=1)  # where only phi is asked for


class Adaptation:
    """phi after the inner steps, and products with its derivative J.

    Args:
        arguments: the parameters, their loss and their step sizes.
        supports: a batch for each inner step, pytrees of arrays [T, ...]; none perhaps.
        derivative: what `push` and `pull` do.

    Raises:
        NonFiniteError: a support loss is not finite.
        ValueError: an adapted parameter that the loss never uses; alpha_last with several step sizes.
    """

    leaves: list[Tensor]  # of the adapted parameters phi, [T, ...]

    def __init__(self, arguments: Arguments, supports: Sequence[Tree], derivative: Derivative) -> None:
        has_one_rate = set(arguments.alpha_of) == {0} and arguments.alphas[0].size == 1
        if derivative.alpha_last and not has_one_rate:
            raise ValueError("alpha_last needs all parameters adapted, with one number as the step size")
        self.arguments, self.supports, self.derivative = arguments, supports, derivative
        self.mark = now()
        self._steps: list[Record | list[Tensor]] = []  # the record of each step, or phi_k to record it again
        self.leaves = on_task_axis(arguments.leaves, arguments.tasks)
        for k in range(len(supports)):
            self.leaves = self._inner_step(self.leaves, k)

    @property
    def phi(self) -> Tree:
        """The adapted parameters, a tree like the parameters with leaves [T, ...]."""
        return self.tree_of(self.leaves)

    def tree_of(self, leaves: Sequence[Tensor | None]) -> Tree:
        """A tree like the parameters with these leaves."""
        return tree.unflatten(self.arguments.structure, leaves)

    def value_and_grad(self, objective: Callable[[Sequence[Tensor]], Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """A function of phi's leaves there, and its gradient by each task's parameters; for `pull`."""
        record = Record(objective, [enter(x) for x in self.leaves])
        value, *gradient = without_history([record.value, *record.gradient], self.mark)
        return value, gradient  # type: ignore[return-value]  # the value is not missing

    def push(self, tangent: Tree, alpha_tangent: Tree = None) -> list[Tensor]:
        """J u: the tangent of phi's leaves, [T, ...] each, from the parameters' and, with learn_alpha, alpha's."""
        arguments = self.arguments
        us = [as_tensor(u) for u in tree.leaves_like(arguments.structure, tangent, "the tangent")]
        alphas: list[Tensor] = []
        if alpha_tangent is not None:
            if not self.derivative.learn_alpha:
                raise ValueError("a tangent of alpha needs learn_alpha")
            structure = arguments.alpha_structure
            alphas = [as_tensor(a) for a in tree.leaves_like(structure, alpha_tangent, "the tangent of alpha")]
        mark = self._mark([*us, *alphas])
        us = on_task_axis(us, arguments.tasks)
        for k in range(len(self._steps)):
            us = self._push_step(k, us, alphas, mark)
        return us

    def pull(self, cotangent: Sequence[Tensor | None]) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Jᵀ v: from a cotangent of phi's leaves, [T, ...] each, those of the parameters' leaves and, with learn_alpha,
        of alpha's. In each None is zero."""
        arguments = self.arguments
        mark = self._mark(cotangent)
        vs: list[Tensor | None] = list(cotangent)
        by_alpha: list[Tensor | None] = [None] * len(arguments.alphas)
        for k in reversed(range(len(self._steps))):
            vs, by_alpha = self._pull_step(k, vs, by_alpha, mark)
        return _over_tasks(vs, arguments.leaves), _over_tasks(by_alpha, arguments.alphas)

    def _inner_step(self, phi: list[Tensor], k: int) -> list[Tensor]:
        """phi - alpha g."""
        record = self._record(phi, k)
        if self.derivative.order == 2 or self.derivative.learn_alpha:
            self._steps.append(record if self.derivative.records == "keep" else phi)
        moved = [
            x if g is None or rate is None else descend(x, rate, g)
            for x, rate, g in zip(record.variables, self.arguments.rates, record.gradient, strict=True)
        ]
        return without_history(moved, self.mark)  # type: ignore[return-value]  # none is missing

    def _record(self, phi: Sequence[Tensor], k: int) -> Record:
        """The support loss of inner step k, recorded from fresh variables at phi, where the step starts."""
        # The function must not hold on to this object, which keeps the record: that would be a reference cycle.
        arguments, support = self.arguments, self.supports[k]
        record = Record(lambda xs: arguments.losses(xs, support, "support"), [enter(x) for x in phi])
        check_finite(f"the support loss at inner step {k}", record.value)
        arguments.check_used_by_support(record.gradient)
        return record

    def _record_of(self, k: int) -> Record:
        step = self._steps[k]
        return step if isinstance(step, Record) else self._record(step, k)

    def _push_step(self, k: int, us: list[Tensor], alpha_tangents: list[Tensor], mark: int) -> list[Tensor]:
        """u - alpha (H u), and - t g with t the tangent of alpha."""
        arguments, record = self.arguments, self._record_of(k)
        if self.derivative.order == 2:
            us = self._less_scaled_product(record, us)  # type: ignore[assignment]  # none is missing
        if alpha_tangents:
            us = [
                u if a is None or g is None else subtract(u, multiply(alpha_tangents[a], g))
                for u, a, g in zip(us, arguments.alpha_of, record.gradient, strict=True)
            ]
        return without_history(us, mark)  # type: ignore[return-value]  # none is missing

    def _pull_step(
        self, k: int, vs: list[Tensor | None], by_alpha: list[Tensor | None], mark: int
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """v - H (alpha v), and what this step adds to the cotangent of alpha."""
        record = self._record_of(k)
        if self.derivative.learn_alpha:
            by_alpha = self._plus_by_alpha(by_alpha, record, vs)
        if self.derivative.order == 2 and self.derivative.alpha_last:
            vs = self._less_scaled_product(record, vs)
        elif self.derivative.order == 2:
            scaled = [_scaled(v, rate) for v, rate in zip(vs, self.arguments.rates, strict=True)]
            products = record.hessian_product(scaled, self.derivative.mode)
            vs = [_minus(v, h) for v, h in zip(vs, products, strict=True)]
        return without_history(vs, mark), without_history(by_alpha, mark)

    def _less_scaled_product(self, record: Record, us: Sequence[Tensor | None]) -> list[Tensor | None]:
        """u - alpha (H u)."""
        products = record.hessian_product(us, self.derivative.mode)
        return [_minus(u, _scaled(h, rate)) for u, h, rate in zip(us, products, self.arguments.rates, strict=True)]

    def _plus_by_alpha(
        self, by_alpha: list[Tensor | None], record: Record, vs: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """alpha's cotangents and one step's - v * g; per task, summed to alpha's shape."""
        sums = list(by_alpha)
        for v, g, a in zip(vs, record.gradient, self.arguments.alpha_of, strict=True):
            if v is not None and g is not None and a is not None:
                shape = self.arguments.alphas[a].shape
                part = sum_to(multiply(v, g), (1,) * (v.ndim - len(shape)) + shape).reshape(shape)
                sums[a] = _minus(sums[a], part)
        return sums

    def _mark(self, given: Sequence[Tensor | None]) -> int:
        """The mark for `without_history` of what is made of these: all is kept if they depend on a variable that is
        younger than this object."""
        is_younger = any(x is not None and self.mark <= x.node.root < CONSTANT for x in given)
        return CONSTANT if is_younger else self.mark


def on_task_axis(leaves: Sequence[Tensor], tasks: int) -> list[Tensor]:
    """Parameters, or their tangents, spread over the tasks: [1, ...] becomes [T, ...], a view, so that every task's
    gradient is its own. What is made of them has the task axis."""
    declare_tasks(tasks)
    return [broadcast_to(x, (tasks, *x.shape[1:])) for x in leaves]


def without_history(xs: Sequence[Tensor | None], mark: int) -> list[Tensor | None]:
    """The same values; those that depend on no variable older than `mark` lose their history, and so free it."""
    return [x if x is None or x.node.root < mark else constant(x.data) for x in xs]


def _over_tasks(xs: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """The adjoint of `on_task_axis`: the sum over the task index where a parameter is shared."""
    return [None if x is None else sum_to(x, leaf.shape) for x, leaf in zip(xs, like, strict=True)]


def _scaled(x: Tensor | None, rate: Tensor | None) -> Tensor | None:
    return None if x is None or rate is None else multiply(rate, x)


def _minus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if y is None:
        return x
    return multiply(y, -1.0) if x is None else subtract(x, y)
