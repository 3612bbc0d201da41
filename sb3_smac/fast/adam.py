"""Adam on all parameters at once."""

from collections.abc import Sequence

import torch as th
from torch import nn


class FlatAdam:
    """
    The steps of a ``torch.optim.Adam`` on one vector that holds all of its parameters: one operation instead of one for each.

    While it is in use, parameters and gradients are views of two vectors; :meth:`close` writes the optimizer's state.

    :param optimizer: an optimizer that :meth:`of` has accepted
    :param parameters: parameters of it, those that have gradients
    """

    def __init__(self, optimizer: th.optim.Adam, parameters: Sequence[nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.parameters = parameters
        self._own_data = [parameter.data for parameter in parameters]
        self._sizes = [parameter.numel() for parameter in parameters]
        self._vector = th.cat([data.flatten() for data in self._own_data])
        self.gradient = th.zeros_like(self._vector)
        states = [optimizer.state[parameter] for parameter in parameters]
        self._moments = [
            th.cat([state[name].flatten() for state in states]) if states[0] else th.zeros_like(self._vector)
            for name in ("exp_avg", "exp_avg_sq")
        ]
        self._step = states[0]["step"].clone() if states[0] else self._vector.new_zeros(())
        self._group = optimizer.param_groups[0]
        views = zip(parameters, self._views(self._vector), self._views(self.gradient), strict=True)
        for parameter, data, gradient in views:
            parameter.data, parameter.grad = data, gradient

    @classmethod
    def of(cls, optimizer: th.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> "FlatAdam | None":
        """
        :param optimizer: any optimizer
        :param parameters: parameters of it
        :return: the same on one vector; ``None`` unless it is a plain, fused Adam that has moved all of them equally often
        """
        if type(optimizer) is not th.optim.Adam or len(optimizer.param_groups) != 1:
            return None
        group, states = optimizer.param_groups[0], [optimizer.state.get(parameter, {}) for parameter in parameters]
        is_plain = group["fused"] and not any(group[name] for name in ("amsgrad", "maximize", "capturable", "differentiable"))
        has_hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        steps = {float(state["step"]) if state else 0.0 for state in states}
        if not is_plain or has_hooks or len(steps) != 1 or len({bool(state) for state in states}) != 1:
            return None
        if any(parameter.grad is not None for parameter in group["params"] if parameter not in set(parameters)):
            return None
        return cls(optimizer, parameters)

    def _views(self, vector: th.Tensor) -> list[th.Tensor]:
        return [piece.view_as(data) for piece, data in zip(vector.split(self._sizes), self._own_data, strict=True)]

    def step(self) -> None:
        """One step along :attr:`gradient`, as ``optimizer.step()`` makes it."""
        group = self._group
        beta1, beta2 = group["betas"]
        self._step += 1
        # what torch.optim calls after half a dozen checks, which take longer than the step
        step = th._fused_adamw_ if group.get("decoupled_weight_decay", False) else th._fused_adam_
        step(
            *([self._vector], [self.gradient], [self._moments[0]], [self._moments[1]], [], [self._step]),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def close(self) -> None:
        """Give parameters and optimizer what they are now, each in memory of its own."""
        moments = zip(*(self._views(moment) for moment in self._moments), strict=True)
        for parameter, data, (first, second) in zip(self.parameters, self._own_data, moments, strict=True):
            data.copy_(parameter.data)
            parameter.data, parameter.grad = data, None
            state = {"step": self._step.clone(), "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
            self.optimizer.state[parameter].update(state)
