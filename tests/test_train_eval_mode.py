"""Batch norm and dropout: on while the networks are fitted, off while the agent acts (tests/test_what_acts_is_trained.py)."""

from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_smac import NaturalActorCritic
from tests.algorithms import every_algorithm, is_finite, is_same, make
from tests.own_policies import BatchNormAndDropout


def make_model(algo: str, share: bool | None = None, **arguments: Any) -> NaturalActorCritic:
    extractor = {"features_extractor_class": BatchNormAndDropout, "share_features_extractor": share}
    return make(algo, "CartPole-v1", policy_kwargs={"net_arch": [8], **extractor}, **arguments)


@every_algorithm
def test_training_updates_the_statistics_of_both(algo: str) -> None:
    """Actor and critic have their own extractor; each is fitted in training mode."""
    model = make_model(algo)
    for extractor in (model.policy.pi_features_extractor, model.policy.vf_features_extractor):
        assert extractor.net[1].num_batches_tracked == 0  # building the model has not touched them
    model.learn(64)
    assert is_finite(model)
    for extractor, batches in ((model.policy.pi_features_extractor, 2), (model.policy.vf_features_extractor, 2 * 2 * 2)):
        assert extractor.net[1].num_batches_tracked == batches
        assert not th.equal(extractor.net[1].running_mean, th.zeros(extractor.features_dim))
        assert not th.equal(extractor.net[1].weight, th.ones(extractor.features_dim))


@pytest.mark.parametrize(
    ("algo", "share", "batch_size"), [("smac", None, None), ("smac_full", True, None), ("accg", None, 16)]
)
def test_steps_are_sized_by_what_the_policy_will_do(algo: str, share: bool | None, batch_size: int | None) -> None:
    """The KL divergence is measured in evaluation mode, where dropout does not drown it: steps are made, and no larger."""
    arguments = {"target_kl": 0.01, "n_steps": 64, "normalize_observations": False}  # whose first statistics move it, too
    model = make_model(algo, share=share, batch_size=batch_size, **arguments)
    model.learn(64)
    logged = model.logger.name_to_value
    assert logged["train/step_size"] > 1e-6
    limit = 1 if batch_size is None else 4 * 4  # four steps of one direction are one of the fourfold length
    assert 1e-4 < logged["train/approx_kl"] < 0.02 * limit
    extractor = model.policy.pi_features_extractor
    assert extractor.passes[True] > 0 and extractor.passes[False] > 64


@pytest.mark.parametrize("algo", ["smac", "smac_full"])
def test_the_gradient_is_that_of_training_mode(algo: str) -> None:
    """Dropout draws from the generator in the update: another seed of it alone gives another actor."""

    def actor(seed: int) -> list[th.Tensor]:
        model = make_model(algo, critic_learning_rate=0.0)
        model._setup_learn(32)
        model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, model.n_steps)
        np.random.seed(0)  # the order of the transitions
        th.manual_seed(seed)
        model.train()
        return [parameter.detach().clone() for parameter in model.actor_parameters]

    assert is_same(actor(0), actor(0))
    assert not is_same(actor(0), actor(1))
