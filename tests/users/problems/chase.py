"""An environment of Gymnasium of one's own: a point on a line is to go to a goal that only its rewards tell."""

import gymnasium
import numpy as np

import tinymaml as tm


class Chase(gymnasium.Env):
    """The goal of an episode comes with the options of `reset`, as `sample_tasks` draws it."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def sample_tasks(self, rng, n):
        return rng.choice([-1.0, 1.0], (n, 1))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.place = float((options or {}).get("goal", [1.0])[0]), 0.0
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place = float(np.clip(self.place + 0.2 * float(action[0]), -10, 10))
        return np.array([self.place], np.float32), -abs(self.place - self.goal), False, False, {}


if "users/Chase-v0" not in gymnasium.registry:
    gymnasium.register("users/Chase-v0", Chase)

domain = tm.Control(environment="users/Chase-v0", horizon=10, rollouts=10, hidden=(16,))

if __name__ == "__main__":
    print(tm.fit("maml", domain, out="runs/chase", iterations=50, alpha=0.5).table())
