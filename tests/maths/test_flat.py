"""Parameters as one vector: order, shapes, and the places of those without a gradient."""

import pytest
import torch as th

from sb3_smac.maths import assign, flat_gradient, flatten, leaf_uses, unflatten


def parameters() -> list[th.Tensor]:
    """A matrix, a scalar and a vector, seven entries in all."""
    a = th.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    return [a, th.tensor(5.0, requires_grad=True), th.tensor([6.0, 7.0], requires_grad=True)]


def test_flatten_keeps_order_and_copies() -> None:
    """Of one tensor, too: neither the graph nor the memory is the parameters'."""
    tensors = parameters()
    assert flatten(tensors).tolist() == [1, 2, 3, 4, 5, 6, 7]
    for each in (tensors, tensors[:1]):
        flatten(each).zero_()
    assert tensors[0].tolist() == [[1, 2], [3, 4]]


def test_unflatten_and_assign_undo_flatten() -> None:
    tensors, vector = parameters(), th.arange(7.0)
    assert [piece.tolist() for piece in unflatten(vector, tensors)] == [[[0, 1], [2, 3]], 4, [5, 6]]
    assign(tensors, vector)
    vector.zero_()  # the parameters hold copies
    assert flatten(tensors).tolist() == list(range(7))
    assert all(tensor.requires_grad and tensor.is_leaf for tensor in tensors)


@pytest.mark.parametrize("step_size", [0.0, 0.5, -2.0])
def test_assign_along_a_direction(step_size: float) -> None:
    """``vector + α direction``, from the vector each time and not from where the last step led."""
    tensors, vector, direction = parameters(), th.arange(7.0), th.linspace(1, -1, 7)
    for _ in range(2):
        assign(tensors, vector, direction, step_size)
        assert flatten(tensors).tolist() == pytest.approx((vector + step_size * direction).tolist())
    assert vector.tolist() == list(range(7)) and th.equal(direction, th.linspace(1, -1, 7))


@pytest.mark.parametrize("shape", [(6,), (8,), (7, 1), ()])
def test_wrong_sizes_are_refused_before_anything_is_written(shape: tuple) -> None:
    tensors = parameters()
    for write in (lambda: unflatten(th.zeros(shape), tensors), lambda: assign(tensors, th.zeros(shape))):
        with pytest.raises(ValueError, match=r"vector must have shape \(7,\)"):
            write()
    assert flatten(tensors).tolist() == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match=r"vector must have shape \(7,\)"):
        assign(tensors, th.arange(7.0), th.zeros(shape), 1.0)


def test_parameters_without_a_gradient_keep_their_place() -> None:
    """The unused scalar and the frozen vector stand where they stand, as zeros, also if there is nothing else."""
    matrix, scalar, frozen = parameters()
    frozen.requires_grad_(False)
    outputs = (matrix**2).sum() + frozen.sum()
    assert flat_gradient(outputs, [frozen, matrix, scalar]).tolist() == [0, 0, 2, 4, 6, 8, 0]
    assert flat_gradient(matrix.sum() * scalar, [frozen]).tolist() == [0, 0]


def test_weights_the_outputs() -> None:
    matrix, *_ = parameters()
    assert flat_gradient(matrix.sum(dim=1), [matrix], th.tensor([2.0, -1.0])).tolist() == [2, 2, -1, -1]


def test_keeps_the_graph_when_asked() -> None:
    matrix, scalar, _ = parameters()
    outputs = scalar * (matrix**2).sum()
    gradient = flat_gradient(outputs, [matrix], create_graph=True)  # 2 · 5 · matrix
    assert flat_gradient(gradient.sum(), [scalar, matrix], retain_graph=True).tolist() == [20, 10, 10, 10, 10]
    assert flat_gradient(outputs, [scalar]).tolist() == [30]
    with pytest.raises(RuntimeError, match="second time"):  # now it is freed
        flat_gradient(outputs, [scalar])


def test_leaf_uses_follows_the_graph() -> None:
    a, b, c, frozen = (th.ones(2, requires_grad=True) for _ in range(4))
    frozen.requires_grad_(False)
    product = a * b
    assert leaf_uses((product * product + a).sum() + frozen.sum() + c.detach().sum()) == {a: 2, b: 1}
    assert leaf_uses(th.ones(1)) == {}
