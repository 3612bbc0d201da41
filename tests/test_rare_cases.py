"""What only some observations, some parameters or some distributions show."""

import pytest
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_smac import SMAC
from tests.algorithms import make, reloaded
from tests.own_policies import Own, distribution_of, latent_of_actor


class Experts(nn.Module):
    """Each observation goes to one of eight layers; a layer without observations does not run."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.layers = nn.ModuleList(nn.Linear(size, outputs) for _ in range(8))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        chosen = (inputs.abs().sum(dim=1) * 1000).long() % 8
        results = inputs.new_zeros(len(inputs), self.outputs)
        for index, layer in enumerate(self.layers):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows):
                results = results.index_copy(0, rows, layer(inputs[rows]))
        return results


def test_parameters_that_only_some_observations_use() -> None:
    model = make("smac", "CartPole-v1", n_steps=256, normalize_observations=False)
    model.policy.action_net, model.policy.value_net = Experts(8, 2), Experts(8, 1)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(512)
    still = [name for name, value in model.policy.named_parameters() if "layers" in name and th.equal(value, before[name])]
    assert not still


class RareMask(Own, ActorCriticPolicy):
    """A rule of the user's in the states that seldom come."""

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        logits = self.action_net(latent_of_actor(self, obs))
        return distribution_of(self, th.where((obs[:, 3:4].abs() > 1.5) & (th.arange(2) == 0), -1e8, logits))


def test_a_rule_for_rare_states(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    model = SMAC(RareMask, "CartPole-v1", n_steps=500, seed=0)
    seen = []
    find = model._find_parameters

    def keep(evaluator, rollout) -> None:  # type: ignore[no-untyped-def]
        seen.append((evaluator.by_distribution, bool((rollout.observations[:, 3].abs() > 1.5).any())))
        find(evaluator, rollout)

    monkeypatch.setattr(model, "_find_parameters", keep)
    model.learn(3000)
    assert any(is_rare for _, is_rare in seen)
    assert not any(by_distribution for by_distribution, is_rare in seen if is_rare)
    assert not [warning for warning in recwarn if "no longer those of the policy" in str(warning.message)]


def test_moments_of_a_new_layer_are_loaded_with_it() -> None:
    model = SMAC("MlpPolicy", "CartPole-v1", n_steps=128, seed=0)
    model.policy.mlp_extractor.value_net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    model.learn(256)
    loaded = reloaded(model)
    ours, theirs = model.policy.optimizer.state, loaded.policy.optimizer.state
    for ours_of, theirs_of in zip(model.critic_parameters, loaded.critic_parameters, strict=True):
        assert th.equal(ours[ours_of]["exp_avg"], theirs[theirs_of]["exp_avg"])


@pytest.mark.parametrize(("part", "critic_optimizer"), [("weight", "adam"), ("bias", "gauss_newton"), ("bias", "adam")])
def test_half_of_the_last_layer_is_frozen(part: str, critic_optimizer: str) -> None:
    model = SMAC("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, critic_optimizer=critic_optimizer)
    head = model.policy.value_net
    frozen, other = (head.weight, head.bias) if part == "weight" else (head.bias, head.weight)
    frozen.requires_grad_(False)
    before = frozen.clone(), other.clone()
    model.learn(192)
    assert th.equal(frozen, before[0]) and not th.equal(other, before[1])


class ValuesAct(ActorCriticPolicy):
    """The actor uses the critic's last layer, too."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        logits = self.action_net(latent_pi) + self.value_net(latent_pi) * th.tensor([1.0, -1.0])
        return self.action_dist.proba_distribution(action_logits=logits)


def test_a_last_layer_that_is_the_actors_too() -> None:
    """It is not rescaled with the returns."""

    class Ours(ValuesAct, SMAC.policy_aliases["MlpPolicy"]):  # type: ignore[misc, name-defined]
        pass

    model = SMAC(Ours, "CartPole-v1", n_steps=128, seed=0, normalize_observations=False)
    model.learn(384)
    assert model.logger.name_to_value["train/approx_kl"] < 0.06


class OfMixture(Distribution):
    """Stable-Baselines3's interface to one of torch's distributions."""

    proba_distribution_net = proba_distribution = actions_from_params = log_prob_from_params = None  # type: ignore

    def __init__(self, mixture: th.distributions.Distribution) -> None:
        self.distribution = mixture

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        return self.distribution.log_prob(actions)

    def sample(self) -> th.Tensor:
        return self.distribution.sample()

    def mode(self) -> th.Tensor:
        return self.distribution.mean

    def entropy(self) -> None:
        return None


class Mixture(ActorCriticPolicy):
    """Actions of a distribution whose KL divergence has no formula."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        mean = super()._get_action_dist_from_latent(latent_pi).distribution.mean
        parts = th.distributions.Independent(th.distributions.Normal(th.stack([mean, -mean], 1), 1.0), 1)
        weights = th.distributions.Categorical(logits=th.zeros(len(latent_pi), 2))
        return OfMixture(th.distributions.MixtureSameFamily(weights, parts))


@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_a_distribution_without_a_formula_for_its_divergence(algo: str) -> None:
    model = make(algo, "Pendulum-v1", policy=Mixture, n_steps=64)
    before = model.policy.action_net.weight.clone()
    model.learn(192)
    assert not th.equal(before, model.policy.action_net.weight)
    assert 0 <= model.logger.name_to_value["train/approx_kl"] < 1
