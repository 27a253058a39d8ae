"""Reptile (Nichol et al. 2018), its batched version: the start moves towards where inner steps lead."""

from dataclasses import dataclass

import tinymaml as tm


@dataclass(frozen=True)
class Reptile(tm.Method):
    """Learns from all examples of a task at once, without a query set."""

    STREAM = "examples"

    steps: int = tm.setting(5, "inner steps in meta-training")
    alpha: float = tm.setting(0.05, "step size of the inner steps", positive=True)
    rate: float = tm.setting(0.5, "of the outer step, from the start towards the mean of the adapted parameters")

    step_size = property(lambda self: self.alpha)

    def init(self, problem, rng, dtype):
        return {"params": problem.model.init(rng, dtype)}

    def update(self, problem, state, batch):
        params = state["params"]
        adapted = tm.adapt(problem.objective, params, batch, self.alpha, self.steps)
        moved = tm.tree.map(lambda p, phi: p + self.rate * (tm.mean(phi, 0, keepdims=True) - p), params, adapted)
        return {"params": moved}, {"loss": problem.objective(params, batch)}

    def predict(self, problem, state, support, inputs, steps):
        return tm.methods.predictions_after(problem, state["params"], self.alpha, support, inputs, steps)


if __name__ == "__main__":
    from oscillators import Oscillators

    print(tm.fit(Reptile(), Oscillators(), out="runs/oscillators", iterations=2000).table())
