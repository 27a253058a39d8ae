"""Damped oscillators: each task is one, to be told from ten points in time."""

import numpy as np

import tinymaml as tm


class Oscillators(tm.Domain):
    """y = a exp(-d t) cos(w t) for t in [0, 4]."""

    def model(self):
        return tm.nn.mlp([1, 40, 40, 1], "tanh")

    def task(self, rng, split):
        amplitude, damping, frequency = rng.uniform([-2, 0.1, 1], [2, 0.3, 2])
        t = rng.uniform(0, 4, (30, 1))
        y = amplitude * np.exp(-damping * t) * np.cos(frequency * t)
        return {"x": t[:10], "y": y[:10]}, {"x": t[10:], "y": y[10:]}


if __name__ == "__main__":
    maml = tm.methods.MAML(steps=3, alpha=0.02, learning_rate=5e-3)
    run = tm.fit(maml, Oscillators(), out="runs/oscillators", iterations=2000)
    print(run.table())
    print(run.plot())
