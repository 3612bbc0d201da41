"""How far the actor moves along a direction: a fixed step, one sized by its KL divergence, and a line search behind either."""

import math
from dataclasses import dataclass

import torch as th

from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.evaluation import Evaluation, Evaluator
from sb3_smac.common.trust_region import size_step
from sb3_smac.maths import assign, flatten

# A step moves the parameters by this much at most, however flat the policy is just here
MAX_DISTANCE = 1e6
# The last halving of the line search is no step at all
MAX_HALVINGS = 10
# Largest entries of a direction whose squares and step sizes stay well within float32
ORDINARY = (1e-10, 1e10)


@dataclass(frozen=True)
class StepTaken:
    """
    What a step was.

    :param step_size: α of ``θ ← θ + α x``
    :param evaluation: the policy on the batch after the step, if it was looked at and is not broken; else ``None``
    :param halvings: how often the line search halved α; ``None`` if there was no search
    """

    step_size: float
    evaluation: Evaluation | None
    halvings: int | None


class ActorStep:
    """
    Moves the actor, ``θ ← θ + α x``, and remembers how the last step's KL divergence grew with its length: the next search
    starts from there.
    """

    def __init__(self) -> None:
        self.curvature: float | None = None
        """KL divergence over the squared distance of the last sized step."""

    def take(
        self,
        evaluator: Evaluator,
        batch: ActorBatch,
        direction: th.Tensor,
        before: Evaluation | None,
        step_size: float,
        target_kl: float | None = None,
        line_search: bool = False,
        ent_coef: float = 0.0,
    ) -> StepTaken:
        """
        :param evaluator: of the policy
        :param batch: actor batch
        :param direction: x, shape (d,)
        :param before: the policy on the batch before the step; only a fixed step without a search needs none
        :param step_size: α, unless it is sized
        :param target_kl: KL divergence of the step; ``None``: α is fixed
        :param line_search: whether α is halved while the step lowers the surrogate objective
        :param ent_coef: coefficient of the entropy bonus in the surrogate objective
        :return: what was done
        """
        # A direction of 1e-34 has no step size in float32
        unit = direction.abs().max().item()
        unit = 1.0 if unit == 0 or ORDINARY[0] < unit < ORDINARY[1] else unit
        mover = _Mover(evaluator, batch, direction if unit == 1 else direction / unit)
        if target_kl is None:
            alpha = step_size * unit
        else:
            assert before is not None
            alpha = self._sized(mover, before, target_kl)
        mover.move(alpha)
        halvings = None
        if line_search:
            assert before is not None
            alpha, halvings = _accepted(mover, before, alpha, ent_coef)
        return StepTaken(alpha / unit, mover.evaluations.get(alpha), halvings)

    def _sized(self, mover: "_Mover", before: Evaluation, target_kl: float) -> float:
        """The α at which the policy's KL divergence on the batch is the target."""
        squared_norm = th.linalg.vector_norm(mover.direction, dtype=th.float64).item() ** 2
        if squared_norm == 0 or target_kl <= 0:  # nowhere to go
            return 0.0
        curvature = self.curvature or _predicted_curvature(mover.batch, mover.direction, squared_norm)
        longest = MAX_DISTANCE / math.sqrt(squared_norm)

        def kl_at(step_size: float) -> float:
            if step_size > longest:
                return math.inf
            return before.kl(mover.evaluate_at(step_size))

        first_guess = min(math.sqrt(target_kl / curvature / squared_norm), longest)
        step_size, kl, _ = size_step(kl_at, target_kl, first_guess)
        # a search that missed its target (a saturated policy) tells the next one nothing
        found = 0.5 * target_kl <= kl <= 2 * target_kl
        self.curvature = kl / (step_size**2 * squared_norm) if found else None
        return step_size


class _Mover:
    """The actor's parameters along a line, and what the policy was at each point that was looked at."""

    def __init__(self, evaluator: Evaluator, batch: ActorBatch, direction: th.Tensor) -> None:
        self.evaluator, self.batch, self.direction = evaluator, batch, direction
        self.start = flatten(batch.parameters)
        self.evaluations: dict[float, Evaluation | None] = {}

    def move(self, step_size: float) -> None:
        largest = th.finfo(self.direction.dtype).max  # beyond it torch takes no number
        assign(self.batch.parameters, self.start, self.direction, min(step_size, largest))

    def evaluate_at(self, step_size: float) -> Evaluation | None:
        if step_size not in self.evaluations:
            self.move(step_size)
            self.evaluations[step_size] = self.evaluator.after_step(self.batch.observations, self.batch.actions)
        return self.evaluations[step_size]


def _accepted(mover: _Mover, before: Evaluation, step_size: float, ent_coef: float) -> tuple[float, int]:
    """
    Halve α until the surrogate ``mean A_i π_θ(a_i | o_i) / π_old(a_i | o_i)`` on the batch, plus the entropy bonus, is at
    least what it was before the step, as TRPO does; stay where the policy was if that takes too many.
    """
    advantages = mover.batch.advantages
    objective_before = advantages.mean() + ent_coef * before.mean_entropy

    def does_harm(step_size: float) -> bool:
        after = mover.evaluate_at(step_size)
        if after is None:
            return True
        surrogate = ((after.log_prob - before.log_prob).exp() * advantages).mean()
        # far enough away every ratio is 0, which may look harmless
        return not surrogate + ent_coef * after.mean_entropy >= objective_before or not before.kl(after) < math.inf

    halvings = 0
    while halvings < MAX_HALVINGS and does_harm(step_size):
        halvings += 1
        step_size = step_size / 2 if halvings < MAX_HALVINGS else 0.0
    mover.move(step_size)
    return step_size, halvings


def _predicted_curvature(batch: ActorBatch, direction: th.Tensor, squared_norm: float) -> float:
    """KL / ‖α x‖² of a small step, by the whole empirical Fisher: ``½ xᵀFx / ‖x‖²``, where ``xᵀFx = mean (s_iᵀx)²``."""
    curvature = 0.5 * batch.scores.product(direction).double().square().mean().item() / squared_norm
    return curvature if 0 < curvature < math.inf else 1.0
