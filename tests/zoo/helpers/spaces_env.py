"""
``Spaces/<observations>-v0`` and ``Spaces/<actions>-v0``: one small task for each space that the algorithms take.

The first half of an action's components, or of its values, is worth more than the second, so that returns differ.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

HORIZON = 8


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


VECTOR = spaces.Box(-1, 1, (3,))
OBSERVATIONS: dict[str, spaces.Space] = {
    "Vector": VECTOR,
    "Matrix": spaces.Box(-1, 1, (2, 3)),
    "Unbounded": spaces.Box(-np.inf, np.inf, (3,)),
    "Integers": spaces.Box(0, 9, (3,), np.int64),
    "Image": image(36, 40, 3),
    "ImageChannelsFirst": image(1, 36, 36),
    "SmallImage": image(6, 6, 3),
    "Discrete": spaces.Discrete(5),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(4),
    "DictOfBoxes": spaces.Dict({"a": VECTOR, "b": spaces.Box(-1, 1, (2, 2))}),
    "DictMixed": spaces.Dict({"box": VECTOR, "index": spaces.Discrete(3), "camera": image(36, 36, 3)}),
    "DictWithoutBoxes": spaces.Dict({"index": spaces.Discrete(3), "flags": spaces.MultiBinary(2)}),
}
ACTIONS: dict[str, spaces.Space] = {
    "ActDiscrete": spaces.Discrete(4),
    "ActBox": spaces.Box(-1, 1, (2,)),
    "ActMultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "ActMultiBinary": spaces.MultiBinary(3),
}


class Spaces(gym.Env):
    """
    :param observation_space: of which observations are samples
    :param action_space: any
    :param bonus: added to every reward
    :param render_mode: ``"rgb_array"`` or none
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, bonus: float = 0.0, render_mode: str | None = None
    ) -> None:
        self.observation_space, self.action_space, self.bonus = observation_space, action_space, bonus
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        reward = self.bonus + float(np.mean(np.asarray(action) < 1))
        return self.observation_space.sample(), reward, False, False, {}

    def render(self) -> np.ndarray:
        return np.zeros((64, 64, 3), np.uint8)


for name, space in OBSERVATIONS.items():
    kwargs = {"observation_space": space, "action_space": spaces.Discrete(2)}
    gym.register(f"Spaces/{name}-v0", Spaces, max_episode_steps=HORIZON, kwargs=kwargs)
for name, space in ACTIONS.items():
    kwargs = {"observation_space": VECTOR, "action_space": space}
    gym.register(f"Spaces/{name}-v0", Spaces, max_episode_steps=HORIZON, kwargs=kwargs)
gym.register("Endless-v0", Spaces, kwargs={"observation_space": VECTOR, "action_space": spaces.Discrete(2)})
