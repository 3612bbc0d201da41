"""One ``train()`` against dense references: where does the actor land, and does the critic stay out of it?"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_smac import ACCG, ACSGD, SMAC, ACAdam
from sb3_smac.common import steps as actor_steps
from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.policies import MlpPolicy
from sb3_smac.common.trust_region import SizedStep
from sb3_smac.smac import smac
from tests.dense_reference import (
    DenseBatch,
    DoublePolicy,
    actor,
    assert_close,
    behaviour,
    collect,
    critic,
    evaluate,
    every_space,
    kl,
    make_model,
    train,
    transitions,
    vector,
    walk,
    write,
)

ALPHA, DAMPING = 0.1, 0.7
EXACT_CG = {"cg_max_steps": 200, "cg_tolerance": 1e-13}
EVERY_ALGORITHM = {SMAC: {"damping": DAMPING}, ACCG: {"damping": DAMPING, **EXACT_CG}, ACSGD: {}, ACAdam: {}}
A2C_PLAIN = {"max_grad_norm": 1e9, "use_rms_prop": False}
every_algorithm = pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
# N = 16: the whole rollout, and batches that do not divide it
every_batch_size = pytest.mark.parametrize("batch_size", [None, 5])


def make(algorithm: type[OnPolicyAlgorithm], space: str, *policy: type[ActorCriticPolicy], **arguments: Any) -> Any:
    """A model with a fixed step ALPHA and a rollout."""
    defaults = {**EVERY_ALGORITHM[algorithm], "learning_rate": ALPHA, "target_kl": None}
    model = make_model(algorithm, space, *policy, **{**defaults, **arguments})
    collect(model)
    return model


def dense_batch(model: Any) -> DenseBatch:
    """The whole rollout."""
    rollout = transitions(model)
    return DenseBatch(model.policy, rollout.observations, rollout.actions, rollout.advantages)


def displacement(model: Any) -> th.Tensor:
    """Where ``train()`` moves the actor."""
    start = vector(actor(model.policy))
    train(model)
    return vector(actor(model.policy)) - start


def smac_step(batch: DenseBatch, **arguments: Any) -> th.Tensor:
    """θ + α (λI + s̄s̄ᵀ)⁻¹ g."""
    return batch.theta + ALPHA * th.linalg.solve(batch.damped_rank_1_fisher(DAMPING), batch.gradient(**arguments))


def cg_step(batch: DenseBatch) -> th.Tensor:
    """θ + α (λI + F)⁻¹ g."""
    return batch.theta + ALPHA * th.linalg.solve(batch.damped_fisher(DAMPING), batch.gradient())


def sgd_step(batch: DenseBatch) -> th.Tensor:
    """θ + α g."""
    return batch.theta + ALPHA * batch.gradient()


def single_transition_step(batch: DenseBatch) -> th.Tensor:
    """θ + α A s / (λ + ‖s‖²), the paper's eq. 4-5."""
    (score,), (advantage,) = batch.scores(), batch.advantages
    return batch.theta + ALPHA * advantage * score / (DAMPING + score @ score)


def assert_walks(model: Any, step: Callable[[DenseBatch], th.Tensor], relative: float = 1e-9, **arguments: Any) -> None:
    """``train()`` displaces the actor by what ``step`` displaces it by."""
    expected = walk(model, step, **arguments) - vector(actor(model.policy))
    assert expected.norm() > 1e-3
    assert_close(displacement(model), expected, relative)


@every_space
@every_batch_size
def test_smac_makes_the_dense_natural_step(space: str, batch_size: int | None) -> None:
    """θ moves by α F̂⁻¹g, batch after batch, each at the parameters that the previous one left."""
    assert_walks(make(SMAC, space, batch_size=batch_size), smac_step)


@every_space
@pytest.mark.parametrize("normalize_advantage", [False, True])
def test_smac_on_single_transitions_in_closed_form(space: str, normalize_advantage: bool) -> None:
    model = make(SMAC, space, batch_size=1, normalize_advantage=normalize_advantage)
    assert_walks(model, single_transition_step, normalize_advantage=normalize_advantage)


@every_space
@pytest.mark.parametrize(
    ("extras", "batch_size"),
    [
        ({"ent_coef": 0.2}, None),
        ({"max_grad_norm": 1e6}, None),
        ({"normalize_advantage": True, "ent_coef": 0.2, "max_grad_norm": 0.05}, 5),
    ],
    ids=str,
)
def test_smac_with_extras(space: str, batch_size: int | None, extras: dict[str, Any]) -> None:
    """The entropy bonus belongs to g, and so does clipping; advantages are normalised over the rollout, not the batch."""
    of_gradient = {key: value for key, value in extras.items() if key != "normalize_advantage"}
    model = make(SMAC, space, batch_size=batch_size, **extras)
    normalize_advantage = extras.get("normalize_advantage", False)
    assert_walks(model, lambda batch: smac_step(batch, **of_gradient), normalize_advantage=normalize_advantage)


@every_space
@pytest.mark.parametrize(
    ("rank", "batch_size", "ent_coef"), [(2, 5, 0.2), (3, None, 0.0), ("full", 5, 0.0), ("full", None, 0.2)]
)
def test_smac_of_higher_rank_makes_the_dense_natural_step(
    space: str, rank: int | str, batch_size: int | None, ent_coef: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F̂ = λI + (1/k) Σ s̄_j s̄_jᵀ over k groups of the batch, here not at random so that the reference knows them."""

    def group(n_samples: int, k: int) -> th.Tensor:
        return th.arange(n_samples) % k

    def step(batch: DenseBatch) -> th.Tensor:
        scores = batch.scores()
        k = len(scores) if rank == "full" else min(rank, len(scores))
        means = th.stack([scores[group(len(scores), k) == j].mean(dim=0) for j in range(k)])
        fisher = DAMPING * th.eye(scores.shape[1]).double() + means.T @ means / k
        return batch.theta + ALPHA * th.linalg.solve(fisher, batch.gradient(ent_coef=ent_coef))

    monkeypatch.setattr(smac, "random_groups", group)
    assert_walks(make(SMAC, space, batch_size=batch_size, fisher_rank=rank, line_search=False, ent_coef=ent_coef), step)


@every_space
@pytest.mark.parametrize("target_kl", [None, 0.5])
def test_line_search_ends_where_the_surrogate_is_no_worse(space: str, target_kl: float | None) -> None:
    """A step far too long is halved until mean A π/π_old is at least what it was; without the search it stands."""

    def surrogates(line_search: bool) -> tuple[float, float]:
        model = make(SMAC, space, learning_rate=50.0, target_kl=target_kl, line_search=line_search)
        rollout = transitions(model)
        old = evaluate(model.policy, rollout.observations, rollout.actions)[0].detach()
        train(model)
        with th.no_grad():
            ratio = (evaluate(model.policy, rollout.observations, rollout.actions)[0] - old).exp()
        return rollout.advantages.mean().item(), (rollout.advantages * ratio).mean().item()

    before, after = surrogates(line_search=True)
    assert after >= before - 1e-9
    if target_kl is None and space == "box":  # among few actions, even this step may happen to help
        before, after = surrogates(line_search=False)
        assert after < before


def test_line_search_counts_the_entropy_bonus() -> None:
    """Where the bonus is all that matters, a step along its gradient stands, also if it lowers the surrogate without it."""
    model = make(SMAC, "box", fisher_rank="full", target_kl=0.01, ent_coef=1e3)
    assert displacement(model).norm() > 1e-3
    assert model.logger.name_to_value["train/line_search_halvings"] == 0


@pytest.mark.parametrize("damping", [1e-18, 1e-25])
def test_a_step_of_one_kl_with_next_to_no_damping(damping: float) -> None:
    """The direction's squared norm is no float32."""
    model = make(SMAC, "box", MlpPolicy, damping=damping, target_kl=0.01)
    train(model)
    assert model.logger.name_to_value["train/approx_kl"] == pytest.approx(0.01, rel=0.1)


@every_space
@every_batch_size
def test_ac_cg_makes_the_dense_natural_step(space: str, batch_size: int | None) -> None:
    """Enough iterations solve (F + λI) x = g."""
    assert_walks(make(ACCG, space, batch_size=batch_size), cg_step, relative=1e-8)


@every_space
@every_batch_size
def test_ac_sgd_follows_the_gradient(space: str, batch_size: int | None) -> None:
    assert_walks(make(ACSGD, space, batch_size=batch_size), sgd_step)


@every_space
def test_ac_adam_is_torch_adam(space: str) -> None:
    """On the same gradients, over several steps and rollouts: its moments last."""
    model = make(ACAdam, space, batch_size=5, learning_rate=0.02)
    theta = th.nn.Parameter(vector(actor(model.policy)))
    adam = th.optim.Adam([theta], lr=0.02, eps=1e-5)

    def adam_step(batch: DenseBatch) -> th.Tensor:
        theta.grad = -batch.gradient()
        adam.step()
        return theta.detach()

    for _ in range(2):
        assert_walks(model, adam_step, relative=1e-8)
        write([theta], vector(actor(model.policy)))
        collect(model)


@every_space
@pytest.mark.parametrize(
    ("algorithm", "optimizer", "arguments"),
    [
        (ACSGD, {"optimizer_class": th.optim.SGD}, {"ent_coef": 0.1, "normalize_advantage": False}),
        (ACAdam, {"optimizer_class": th.optim.Adam, "optimizer_kwargs": {"eps": 1e-5}}, {"normalize_advantage": True}),
    ],
)
def test_first_order_baselines_are_a2c(
    algorithm: type[OnPolicyAlgorithm], optimizer: dict[str, Any], arguments: dict[str, Any], space: str
) -> None:
    """SB3's A2C with that optimizer moves the actor alike, over three rollouts; the critics rest."""
    common = {"learning_rate": 0.05, "gae_lambda": 0.9, **arguments}
    a2c = make_model(A2C, space, **A2C_PLAIN, vf_coef=0.0, more_policy_kwargs=optimizer, **common)
    ours = make_model(algorithm, space, critic_learning_rate=0.0, **common)
    start = vector(a2c.policy.parameters())
    assert th.equal(vector(ours.policy.parameters()), start)
    for model in (a2c, ours):
        for seed in range(3):
            th.manual_seed(seed)  # sample the same actions, though our update draws from torch's generator
            collect(model)
            model.train()
    end = vector(a2c.policy.parameters())
    assert (end - start).norm() > 1e-2
    assert_close(vector(ours.policy.parameters()) - start, end - start)


@every_algorithm
def test_actor_and_critic_do_not_move_each_other(algorithm: type[OnPolicyAlgorithm]) -> None:
    """Bit for bit, with the other's step size at zero."""
    for resting, moving, still in (({"learning_rate": 0.0}, critic, actor), ({"critic_learning_rate": 0.0}, actor, critic)):
        model = make(algorithm, "gsde", ent_coef=0.1, batch_size=5, **resting)
        before = {part: vector(part(model.policy)) for part in (actor, critic)}
        train(model)
        assert th.equal(vector(still(model.policy)), before[still])
        assert not th.equal(vector(moving(model.policy)), before[moving])


@pytest.fixture
def sized_steps(monkeypatch: pytest.MonkeyPatch) -> list[SizedStep]:
    """Every step that is sized from now on."""
    steps = []
    size_step = actor_steps.size_step

    def noted(*args: Any, **kwargs: Any) -> SizedStep:
        steps.append(size_step(*args, **kwargs))
        return steps[-1]

    monkeypatch.setattr(actor_steps, "size_step", noted)
    return steps


@every_space
@pytest.mark.parametrize("algorithm", [SMAC, ACAdam])
def test_sized_steps_move_the_policy_by_the_target_kl(
    algorithm: type[OnPolicyAlgorithm], space: str, sized_steps: list[SizedStep]
) -> None:
    """The policy's real KL, computed here, within 10 %, after at most three forward passes; and it is what is logged."""
    target_kl = 0.02
    model = make(algorithm, space, target_kl=target_kl)
    for _ in range(3):  # later steps start from the last one's curvature
        observations = transitions(model).observations
        before = behaviour(model.policy, observations)
        moved = displacement(model).norm().item()
        logged = model.logger.name_to_value
        real_kl = kl(before, behaviour(model.policy, observations))
        assert real_kl == pytest.approx(target_kl, rel=0.1)
        assert logged["train/approx_kl"] == sized_steps[-1].kl == pytest.approx(real_kl, rel=1e-6)
        assert moved == pytest.approx(logged["train/step_size"] * logged["train/natural_gradient_norm"])
        collect(model)
    assert len(sized_steps) == 3 and max(step.passes for step in sized_steps) <= 3


@every_space
def test_the_very_first_guess_is_the_quadratic_prediction(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """√(2δ / xᵀFx), F the empirical Fisher of every score: no measurement to start from yet."""
    guesses = []

    def noted(kl_at: Callable[[float], float], target_kl: float, first_guess: float) -> SizedStep:
        guesses.append(first_guess)
        return SizedStep(0.0, 0.0, 0)

    monkeypatch.setattr(actor_steps, "size_step", noted)
    model = make(SMAC, space, target_kl=0.02)
    batch = dense_batch(model)
    direction = th.linalg.solve(batch.damped_rank_1_fisher(DAMPING), batch.gradient())
    curvature = (batch.scores() @ direction).square().mean().item()
    train(model)
    assert guesses == pytest.approx([np.sqrt(2 * 0.02 / curvature)], rel=1e-9)


@every_space
def test_sized_steps_of_several_batches(space: str) -> None:
    """Each batch moves the policy by the target KL on its own states, from where the previous batch left it."""
    thetas, target_kl = [], 0.01

    class Noting(SMAC):
        def actor_direction(self, batch: ActorBatch) -> th.Tensor:
            thetas.append(vector(actor(self.policy)))
            return super().actor_direction(batch)

    model = make_model(Noting, space, batch_size=5, target_kl=target_kl)
    collect(model)
    observations = transitions(model).observations.split(5)
    train(model)
    thetas.append(vector(actor(model.policy)))
    assert len(thetas) == len(observations) + 1
    for states, before, after in zip(observations, thetas, thetas[1:], strict=False):
        write(actor(model.policy), before)
        old = behaviour(model.policy, states)
        write(actor(model.policy), after)
        assert kl(old, behaviour(model.policy, states)) == pytest.approx(target_kl, rel=0.1)


@every_algorithm
def test_sized_step_keeps_the_direction(algorithm: type[OnPolicyAlgorithm]) -> None:
    """Only the length depends on target_kl: the displacement is parallel to the one of a fixed step."""
    fixed, sized = displacement(make(algorithm, "box")), displacement(make(algorithm, "box", target_kl=0.02))
    assert_close(fixed / fixed.norm(), sized / sized.norm(), relative=1e-9)


@every_algorithm
@pytest.mark.parametrize(("logit", "policy"), [(40.0, DoublePolicy), (200.0, MlpPolicy)])
def test_sized_steps_survive_a_saturated_policy(
    algorithm: type[OnPolicyAlgorithm], logit: float, policy: type[MlpPolicy]
) -> None:
    """Where one action has all the probability, scores and curvature vanish; step sizes must not overflow over it."""
    model = make_model(algorithm, "discrete", policy, target_kl=0.02)
    with th.no_grad():
        model.policy.action_net.bias.copy_(th.tensor([logit, 0.0, 0.0]))
    for _ in range(2):
        collect(model)
        observations = transitions(model).observations
        before = behaviour(model.policy, observations)
        train(model)
        assert th.isfinite(vector(model.policy.parameters())).all()
        assert kl(before, behaviour(model.policy, observations)) <= 2.001 * 0.02


def test_saturated_rollouts_do_not_spoil_the_next_search(sized_steps: list[SizedStep]) -> None:
    """A step whose KL is far below the target says nothing on where to start looking the next time."""
    model = make(SMAC, "discrete", target_kl=0.02)
    theta = vector(actor(model.policy))
    with th.no_grad():
        model.policy.action_net.bias.copy_(th.tensor([60.0, 0.0, 0.0]))
    for _ in range(3):
        train(model)
        collect(model)
    write(actor(model.policy), theta)
    collect(model)
    train(model)
    assert sized_steps[-1].passes <= 3 and sized_steps[-1].kl == pytest.approx(0.02, rel=0.1)


@every_algorithm
@pytest.mark.parametrize("target_kl", [None, 0.02])
def test_zero_gradient_is_no_step(algorithm: type[OnPolicyAlgorithm], target_kl: float | None) -> None:
    model = make(algorithm, "box", target_kl=target_kl)
    model.rollout_buffer.advantages[:] = 0.0
    assert not displacement(model).any()
    assert model.logger.name_to_value["train/approx_kl"] == 0


def test_what_is_logged_is_what_the_dense_reference_has() -> None:
    model = make(SMAC, "box")
    rollout, batch = transitions(model), dense_batch(model)
    gradient, score = batch.gradient(), batch.scores().mean(dim=0)
    natural = th.linalg.solve(batch.damped_rank_1_fisher(DAMPING), gradient)
    before = behaviour(model.policy, rollout.observations)
    train(model)
    expected = {
        "policy_gradient_norm": gradient.norm().item(),
        "natural_gradient_norm": natural.norm().item(),
        "score_norm": score.norm().item(),
        "cosine_similarity": (gradient @ natural / gradient.norm() / natural.norm()).item(),
        "step_size": ALPHA,
        "approx_kl": kl(before, behaviour(model.policy, rollout.observations)),
        "log_prob": rollout.old_log_prob.mean().item(),
        "policy_loss": -(rollout.advantages * rollout.old_log_prob).mean().item(),
        "entropy_loss": -(before.std.log() + 0.5 * np.log(2 * np.pi * np.e)).sum(dim=1).mean().item(),
    }
    logged = {name: model.logger.name_to_value[f"train/{name}"] for name in expected}
    assert logged == pytest.approx(expected, rel=1e-6)
