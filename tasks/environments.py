"""The environments by their names in Gymnasium: import this module, then `gymnasium.make("tinymaml/Navigation-v0")`,
or `gymnasium.make_vec(..., vectorization_mode="vector_entry_point")` to step many in one call.
"""

from __future__ import annotations

from tinymaml.tasks import navigation
from tinymaml.tasks.extras import require
from tinymaml.tasks.robots import HORIZON, TASKS

require("gymnasium", "rl")

import gymnasium  # noqa: E402

NAMES = ("tinymaml/Navigation-v0", *(f"tinymaml/{task}-v0" for task in TASKS))

if NAMES[0] not in gymnasium.registry:
    gymnasium.register(
        NAMES[0],
        entry_point="tinymaml.tasks.navigation:NavigationEnv",
        vector_entry_point="tinymaml.tasks.navigation:NavigationVectorEnv",
        max_episode_steps=navigation.HORIZON,
    )
    for _name, _task in zip(NAMES[1:], TASKS, strict=True):
        gymnasium.register(
            _name,
            entry_point="tinymaml.tasks.locomotion:LocomotionEnv",
            vector_entry_point="tinymaml.tasks.locomotion:LocomotionVectorEnv",
            max_episode_steps=HORIZON,
            kwargs={"task": _task},
        )
