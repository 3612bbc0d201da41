"""Parameters as one vector: a list of tensors of any shapes seen as a point of R^d."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch as th


def flatten(tensors: Iterable[th.Tensor]) -> th.Tensor:
    """
    Concatenate tensors into one vector.

    :param tensors: tensors with d entries in all
    :return: a new vector, detached from the graph, shape (d,)
    """
    return th.cat([tensor.detach().reshape(-1) for tensor in tensors])


def unflatten(vector: th.Tensor, like: Sequence[th.Tensor]) -> list[th.Tensor]:
    """
    Cut a vector into pieces shaped as ``like``: the inverse of :func:`flatten`.

    :param vector: shape (d,)
    :param like: tensors with d entries in all
    :return: views of ``vector``, one for each tensor of ``like``
    :raises ValueError: if the sizes differ
    """
    sizes = [tensor.numel() for tensor in like]
    if vector.shape != (sum(sizes),):
        raise ValueError(f"vector must have shape ({sum(sizes)},), got {tuple(vector.shape)}")
    return [piece.view(tensor.shape) for piece, tensor in zip(vector.split(sizes), like, strict=True)]


@th.no_grad()
def assign(
    parameters: Sequence[th.Tensor], vector: th.Tensor, direction: th.Tensor | None = None, step_size: float = 0.0
) -> None:
    """
    Write a vector into parameters, or ``vector + α direction``, in place and without another vector of that size.

    :param parameters: tensors with d entries in all
    :param vector: shape (d,)
    :param direction: shape (d,); ``None``: nothing is added
    :param step_size: α
    """
    for parameter, value in zip(parameters, unflatten(vector, parameters), strict=True):
        parameter.copy_(value)
    if direction is not None:
        for parameter, value in zip(parameters, unflatten(direction, parameters), strict=True):
            parameter.add_(value, alpha=step_size)


def flat_gradient(
    outputs: th.Tensor,
    parameters: Sequence[th.Tensor],
    grad_outputs: th.Tensor | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> th.Tensor:
    """
    Gradient of ``outputs`` (weighted by ``grad_outputs`` unless it is a scalar) as one vector.

    A parameter that ``outputs`` does not depend on, or that requires no gradient, gives zeros: it keeps its place.

    :param outputs: tensor to differentiate
    :param parameters: tensors with d entries in all
    :param grad_outputs: weights, shaped as ``outputs``
    :param retain_graph: keep the graph for a further backward pass
    :param create_graph: make the result differentiable
    :return: shape (d,)
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    gradients: Iterator[th.Tensor] = iter(())
    if trainable and outputs.requires_grad:
        gradients = iter(
            th.autograd.grad(
                outputs,
                trainable,
                grad_outputs=grad_outputs,
                retain_graph=retain_graph or create_graph,
                create_graph=create_graph,
                materialize_grads=True,
            )
        )
    return th.cat(
        [
            (next(gradients, th.zeros_like(parameter)) if parameter.requires_grad else th.zeros_like(parameter)).reshape(-1)
            for parameter in parameters
        ]
    )


def leaf_uses(output: th.Tensor) -> Counter[th.Tensor]:
    """
    The leaf tensors that ``output`` was computed from and that require a gradient, and how many operations use each.

    :param output: any tensor
    :return: the leaves of its autograd graph, counted
    """
    uses: Counter[th.Tensor] = Counter()
    visited = set()
    pending = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        for next_node, _ in node.next_functions:
            leaf = getattr(next_node, "variable", None)  # of AccumulateGrad
            if leaf is not None:
                uses[leaf] += 1
            else:
                pending.append(next_node)
    return uses
