"""Adam on one vector steps as torch's does, and leaves the optimizer as torch would have."""

from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_smac.common.parameters import make_optimizer
from sb3_smac.fast.adam import FlatAdam


def network() -> nn.Sequential:
    th.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def optimizer_of(parameters: list[nn.Parameter], **arguments: Any) -> th.optim.Optimizer:
    return make_optimizer(th.optim.Adam, parameters, 0.1, arguments)


@pytest.mark.parametrize("arguments", [{}, {"eps": 1e-3, "betas": (0.5, 0.6)}, {"weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("by_torch_before", [0, 2])
def test_steps_are_torchs(arguments: dict[str, Any], by_torch_before: int) -> None:
    """To the rounding of vectorised loops, in the same memory, in the middle of a training, with a rate that changes."""
    results = []
    for is_flat in (True, False):
        parameters = list(network().parameters())
        pointers = [parameter.data_ptr() for parameter in parameters]
        optimizer = optimizer_of(parameters, **arguments)
        generator = th.Generator().manual_seed(1)
        for step in range(by_torch_before + 6):
            flat = FlatAdam.of(optimizer, parameters) if is_flat and step >= by_torch_before else None
            assert (flat is not None) is (is_flat and step >= by_torch_before)
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            for parameter in parameters:
                gradient = th.randn(parameter.shape, generator=generator)
                if flat is None:
                    parameter.grad = gradient
                else:
                    assert parameter.grad is not None
                    parameter.grad.copy_(gradient)
            (flat or optimizer).step()
            if flat is not None:
                flat.close()
            optimizer.zero_grad()
        assert [parameter.data_ptr() for parameter in parameters] == pointers
        results.append((parameters, optimizer.state_dict()))
    (ours, state), (theirs, expected) = results
    th.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert state["param_groups"] == expected["param_groups"]
    for index, moments in expected["state"].items():
        assert state["state"][index]["step"] == moments["step"]
        th.testing.assert_close(state["state"][index], moments, rtol=1e-5, atol=1e-6)


def test_what_is_no_plain_adam_is_left_to_torch() -> None:
    parameters = list(network().parameters())

    class Own(th.optim.Adam):
        pass

    others = [
        th.optim.SGD(parameters, 0.1),
        th.optim.AdamW(parameters, 0.1),
        Own(parameters, 0.1, fused=True),
        optimizer_of(parameters, amsgrad=True),
        optimizer_of(parameters, fused=False),
        optimizer_of(parameters, maximize=True),
        th.optim.Adam([{"params": parameters[:2]}, {"params": parameters[2:]}], 0.1, fused=True),
    ]
    hooked = optimizer_of(parameters)
    hooked.register_step_pre_hook(lambda *_: None)
    apart = optimizer_of(parameters)
    parameters[0].grad = th.ones_like(parameters[0])
    apart.step()  # which has moved only one
    parameters[0].grad = None
    for optimizer in (*others, hooked, apart):
        assert FlatAdam.of(optimizer, parameters) is None
    flat = FlatAdam.of(optimizer_of(parameters), parameters)
    assert flat is not None
    flat.close()
    assert all(parameter.grad is None for parameter in parameters)


def test_default_device() -> None:
    """Of the user's: what is made here is where the parameters are."""
    parameters = list(network().parameters())
    with th.device("meta"):
        flat = FlatAdam.of(optimizer_of(parameters), parameters)
        assert flat is not None
        flat.gradient.fill_(1.0)
        flat.step()
        flat.close()
    assert all(parameter.device.type == "cpu" for parameter in parameters)
