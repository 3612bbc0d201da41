"""The rollout buffer, with less Python per transition."""

import numpy as np
import torch as th
from stable_baselines3.common import buffers as sb3_buffers
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs


class RolloutBuffer(sb3_buffers.RolloutBuffer):
    """
    :class:`stable_baselines3.common.buffers.RolloutBuffer`, the same numbers to the last bit: transitions are copied once, and
    of the advantages only the recursion runs step by step.
    """

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: th.Tensor,
        log_prob: th.Tensor,
    ) -> None:
        """
        :param obs: observations, shape (n_envs, ...)
        :param action: actions
        :param reward: rewards, shape (n_envs,)
        :param episode_start: whether an episode starts with these observations, shape (n_envs,)
        :param value: values, n_envs entries
        :param log_prob: log-probabilities of the actions, n_envs entries
        """
        self.observations[self.pos] = obs.reshape(self.observations.shape[1:])
        self.actions[self.pos] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.values[self.pos] = value.detach().cpu().numpy().reshape(self.n_envs)
        self.log_probs[self.pos] = log_prob.detach().cpu().numpy().reshape(self.n_envs)
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: th.Tensor, dones: np.ndarray) -> None:
        """
        GAE, ``A_t = δ_t + γλ A_{t+1}`` within an episode, and TD(λ) returns (https://arxiv.org/abs/1506.02438).

        :param last_values: values of the observations after the last step, n_envs entries
        :param dones: whether an episode ended with the last step, shape (n_envs,)
        """
        last = last_values.detach().cpu().numpy().reshape(1, self.n_envs)
        next_values = np.concatenate([self.values[1:], last])
        continues = 1.0 - np.concatenate([self.episode_starts[1:], dones.astype(np.float32).reshape(1, self.n_envs)])
        deltas = self.rewards + self.gamma * next_values * continues - self.values
        factors = self.gamma * self.gae_lambda * continues
        # NumPy's float32 scalars are much faster than arrays of one
        columns = range(self.n_envs) if self.n_envs == 1 else [slice(None)]
        for column in columns:
            advantage = np.zeros_like(deltas[0, column])
            advantages = []
            for delta, factor in zip(reversed(list(deltas[:, column])), reversed(list(factors[:, column])), strict=True):
                advantage = delta + factor * advantage
                advantages.append(advantage)
            self.advantages[:, column] = advantages[::-1]
        # TD(λ)
        self.returns = self.advantages + self.values


def select(observations: PyTorchObs, indices: slice | th.Tensor) -> PyTorchObs:
    """
    :param observations: of N transitions, also of a Dict space
    :param indices: which of them
    :return: these observations
    """
    if isinstance(observations, dict):
        return {key: value[indices] for key, value in observations.items()}
    return observations[indices]


def updated(buffer: sb3_buffers.RolloutBuffer, model: OnPolicyAlgorithm) -> sb3_buffers.RolloutBuffer:
    """
    :param buffer: the model's rollout buffer
    :param model: the algorithm
    :return: the same, made anew if ``n_steps`` has been changed, with γ and λ_GAE as they are now
    """
    if buffer.buffer_size != model.n_steps:
        assert model.rollout_buffer_class is not None
        buffer = model.rollout_buffer_class(  # as Stable-Baselines3 makes it
            model.n_steps,
            model.observation_space,
            model.action_space,
            device=model.device,
            gamma=model.gamma,
            gae_lambda=model.gae_lambda,
            n_envs=model.n_envs,
            **model.rollout_buffer_kwargs,
        )
    buffer.gamma, buffer.gae_lambda = model.gamma, model.gae_lambda
    return buffer
