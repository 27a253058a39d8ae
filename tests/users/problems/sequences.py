"""A sequence task: each is a linear dynamical system, whose output is to be followed from its input."""

from dataclasses import dataclass

import numpy as np

import tinymaml as tm


@dataclass(frozen=True)
class Systems(tm.Domain):
    """s_k = r rotation(w) s_k-1 + b u_k, y_k = s_k[0], for inputs u drawn at random; a task has its own r, w, b."""

    length: int = tm.setting(8, "steps of a sequence")
    hidden: int = tm.setting(16, "units of the recurrent layer")

    def model(self):
        return tm.nn.lstm(1, self.hidden, 1)

    def task(self, rng, split):
        r, w, (b, c) = rng.uniform(0.5, 0.9), rng.uniform(0.3, 1.5), rng.normal(size=2)
        u = rng.normal(size=(16, self.length, 1))
        s, y = np.zeros((2, 16)), []
        for k in range(self.length):
            turned = np.cos(w) * s[0] - np.sin(w) * s[1], np.sin(w) * s[0] + np.cos(w) * s[1]
            s = r * np.array(turned) + np.outer([b, c], u[:, k, 0])
            y.append(s[0])
        y = np.stack(y, 1)[..., None]
        return {"x": u[:8], "y": y[:8]}, {"x": u[8:], "y": y[8:]}


if __name__ == "__main__":
    maml = tm.methods.MAML(steps=3, alpha=0.1, learning_rate=5e-3)
    print(tm.fit(maml, Systems(), out="runs/systems", iterations=2000).table())
