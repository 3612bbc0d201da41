"""EnvPool's simulators, which step all environments of a task in C++ threads, as a Stable-Baselines3 VecEnv."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_smac.common import checks

RESERVED = {"num_envs", "batch_size", "max_num_players", "seed", "env_seed", "gym_reset_return_info", "max_episode_steps"}
"""Settings of EnvPool that the adapter makes itself: they are not options of a task."""
BOOKKEEPING = {"env_id", "players", "elapsed_step"}
"""What EnvPool adds to the infos of every task."""
INT32_MAX = 2**31 - 1


class EnvPoolVecEnv(VecEnv):
    """
    A task of EnvPool (Weng et al. 2022, https://arxiv.org/abs/2206.10558) with the semantics of SB3's ``make_vec_env``.

    EnvPool resets a finished environment at the step after and ignores the action; here it is reset at once, so that ``step``
    returns the first observation of the next episode, and the last one as ``terminal_observation``. Action spaces are float32
    as Gymnasium's are (EnvPool's MuJoCo tasks have float64), so that models fit both. EnvPool takes seeds only when made, so a
    seeded reset makes it anew. What SB3's ``Monitor`` does for each environment is done here, without a wrapper: SB3's
    ``EvalCallback`` copies ``VecNormalize`` statistics only to an evaluation environment that is wrapped as the training's is.
    Environments are C++ objects: they have no wrappers, attributes or methods, and no images.

    :param task_id: a task that EnvPool has
    :param n_envs: number of environments
    :param seed: seed of the first environment, the next ones count up; ``None``: random
    :param max_episode_steps: time limit; ``None``: the task's own
    :param monitor_dir: folder of a ``monitor.csv`` with all episodes; ``None``: no file
    :param options: EnvPool's options of the task, and ``num_threads``
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if there is no such task or option, or Stable-Baselines3 cannot take the task's spaces
    """

    def __init__(
        self,
        task_id: str,
        n_envs: int = 1,
        seed: int | None = None,
        max_episode_steps: int | None = None,
        monitor_dir: str | None = None,
        **options: Any,
    ) -> None:
        envpool = _import_envpool()
        _known("task of EnvPool", task_id, envpool.list_all_envs())
        checks.integer("n_envs", n_envs, minimum=1)
        checks.integer("seed", seed, minimum=0, besides=(None,))
        checks.integer("max_episode_steps", max_episode_steps, minimum=1, besides=(None,))
        known = set(envpool.make_spec(task_id).config._fields) - RESERVED
        for name in options:
            _known(f"option of EnvPool's {task_id}", name, known)
        if not 0 <= options.get("num_threads", 0) <= n_envs:  # EnvPool ends the process
            raise ValueError(
                f"num_threads must be between 0 (as many as there are) and n_envs, got {options['num_threads']!r}"
            )
        if "post_constraint" in known:
            # As in Gymnasium with MuJoCo 3: without it, the contact forces that Humanoid-v4 observes are zero
            options = {"post_constraint": True, **options}
        spec = envpool.make_spec(task_id, num_envs=n_envs, **options)
        if spec.config.max_num_players > 1:
            raise ValueError(f"task_id must be a task of one player, got {task_id!r}")
        self.task_id = task_id
        self.max_episode_steps = max_episode_steps or spec.config.max_episode_steps
        self._options_of_task = options
        self._pool: Any = None  # made by a reset
        self._stepping = False
        with _no_precision_warnings():
            observation_space, action_space = _space(task_id, spec.observation_space), _space(task_id, spec.action_space)
        super().__init__(n_envs, observation_space, _as_float32(action_space))
        self.seed(seed)
        self._returns = np.zeros(n_envs)
        self._start = time.time()
        header: dict[str, float | str] = {"t_start": self._start, "env_id": task_id}
        self._log = None if monitor_dir is None else ResultsWriter(str(Path(monitor_dir) / Monitor.EXT), header)

    def reset(self) -> VecEnvObs:
        """
        :return: first observations of all environments, shape (n_envs, ...)
        """
        if self._pool is None or None not in self._seeds:
            self._make_pool()
        elif self._stepping:
            self._pool.recv()
        self._stepping = False
        observations, info = self._pool.reset()
        self.reset_infos = _rows(info, self.num_envs)
        self._returns[:] = 0
        return observations

    def _make_pool(self) -> None:
        if None in self._seeds:
            self.seed()
        self._pool = _import_envpool().make_gymnasium(
            self.task_id,
            num_envs=self.num_envs,
            seed=[(seed - 2**31) % 2**32 - 2**31 for seed in self._seeds if seed is not None],  # as int32
            # One step further than ours: at its own limit EnvPool does not tell a termination from a truncation
            max_episode_steps=min(self.max_episode_steps, INT32_MAX - 1) + 1,
            **self._options_of_task,
        )
        with _no_precision_warnings():
            self._pool.observation_space  # noqa: B018  made once, by the first to ask
        self._reset_seeds()

    def step_async(self, actions: np.ndarray) -> None:
        """
        Start a step; the simulators work while Python goes on.

        :param actions: shape (n_envs, ...)
        :raises gymnasium.error.ResetNeeded: before the first reset, and when closed
        :raises gymnasium.error.AlreadyPendingCallError: in the middle of a step
        :raises ValueError: if the actions have another shape (EnvPool would wait for the missing ones for ever)
        """
        if self._pool is None:
            raise gym.error.ResetNeeded("Call reset() before a step")
        if self._stepping:
            raise gym.error.AlreadyPendingCallError("Call step_wait() before the next step", "step")
        actions, shape = np.asarray(actions), (self.num_envs, *(self.action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(f"actions must have the shape {shape}, got {actions.shape}")
        self._pool.send(actions)
        self._stepping = True

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations, rewards and dones, shape (n_envs, ...), and infos; where an environment is done, its observation
            is the first of the next episode, and its info has ``terminal_observation`` and ``episode``
        :raises gymnasium.error.NoAsyncCallError: if no step was started
        """
        if not self._stepping:
            raise gym.error.NoAsyncCallError("Call step_async() before step_wait()", "step")
        observations, rewards, terminated, truncated, info = self._pool.recv()
        self._stepping = False
        truncated |= info["elapsed_step"] >= self.max_episode_steps
        infos = _rows(info, self.num_envs)
        for row, by_time in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = by_time
        dones = terminated | truncated
        self._returns += rewards
        finished = np.flatnonzero(dones).astype(np.int32)
        if finished.size:
            for env, last, length in zip(finished, observations[finished], info["elapsed_step"][finished], strict=True):
                infos[env].update(terminal_observation=last, episode=self._end_episode(int(env), int(length)))
            observations[finished], info = self._pool.reset(finished)
            for env, row in zip(finished, _rows(info, len(finished)), strict=True):
                self.reset_infos[env] = row
        return observations, rewards, dones, infos

    def _end_episode(self, env: int, length: int) -> dict[str, Any]:
        seconds = round(time.time() - self._start, 6)
        episode = {"r": round(float(self._returns[env]), 6), "l": length, "t": seconds}
        self._returns[env] = 0
        if self._log:
            self._log.write_row(episode)
        return episode

    def close(self) -> None:
        """Stop the simulators' threads and close the log."""
        self._pool, self._stepping = None, False
        if self._log:
            self._log.close()

    def set_options(self, options: list[dict] | dict | None = None) -> None:
        """
        :param options: nothing
        :raises ValueError: if it is something
        """
        if options and any(options):
            raise ValueError(f"options must be empty, EnvPool's reset takes none; got {options!r}")

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        :param attr_name: ``render_mode``
        :param indices: of environments; ``None``: all
        :return: ``None`` for each
        :raises AttributeError: if it is another attribute
        """
        if attr_name != "render_mode":
            raise AttributeError(f"EnvPool's environments are C++ objects: attribute {attr_name!r} cannot be read")
        return [None for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        :param attr_name: any attribute
        :param value: its value
        :param indices: of environments
        :raises AttributeError: always
        """
        raise AttributeError(
            f"EnvPool's environments are C++ objects: attribute {attr_name!r} cannot be set; a task's options are set by "
            "EnvPoolVecEnv(task_id, ...)"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        :param method_name: any method
        :param method_args: its arguments
        :param indices: of environments
        :param method_kwargs: its arguments
        :raises AttributeError: always
        """
        raise AttributeError(f"EnvPool's environments are C++ objects: method {method_name!r} cannot be called")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """
        :param wrapper_class: any wrapper
        :param indices: of environments; ``None``: all
        :return: for each, whether it is ``Monitor``, whose work is done here
        """
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def render(self, mode: str | None = None) -> np.ndarray | None:
        """
        :param mode: any
        :raises NotImplementedError: always
        """
        raise NotImplementedError(f"EnvPoolVecEnv has no images: show the agent in gymnasium.make({self.task_id!r})")


def _import_envpool() -> ModuleType:
    try:
        import envpool
    except ImportError as error:
        raise ImportError(
            f"EnvPool cannot be imported ({error}). It is the extra sb3_smac[envpool]: pip install '.[envpool]' in a checkout"
        ) from error
    return envpool


def _known(kind: str, name: str, known: Any) -> None:
    if name not in known:
        similar = checks.most_similar(name, known)
        hint = "" if similar is None else f"; did you mean {similar!r}?"
        raise ValueError(f"{name!r} is no {kind}{hint}")


@contextmanager
def _no_precision_warnings() -> Iterator[None]:
    """EnvPool gives Gymnasium's float32 spaces bounds in double precision."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting", category=UserWarning)
        yield


def _space(task_id: str, space: Any) -> spaces.Box | spaces.Discrete:
    if not isinstance(space, spaces.Box | spaces.Discrete):
        raise ValueError(f"task_id must be a task with Box or Discrete spaces, got {task_id!r} with {space}")
    return space


def _as_float32(space: spaces.Box | spaces.Discrete) -> spaces.Space:
    if isinstance(space, spaces.Discrete) or space.dtype != np.float64:
        return space
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _rows(info: dict[str, Any], n_rows: int) -> list[dict[str, Any]]:
    """One dict for each environment, of a dict of arrays with a row for each."""
    names = [name for name in info if name not in BOOKKEEPING]
    if not names:
        return [{} for _ in range(n_rows)]
    columns = (info[name].tolist() if info[name].ndim == 1 else list(info[name]) for name in names)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
