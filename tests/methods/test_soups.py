"""Soups: what is merged, exactly and as others did, and those of fine-tuned models as a run."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from toy_runs import run_toy

from configs.toy import get_config
from paretohqd_jax.config import check_config
from paretohqd_jax.config.rewarded_soup import MOST_SHARE, least_own_weight
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.methods import soups
from paretohqd_jax.models.lora import LoraConfig, combine_adapters
from paretohqd_jax.policies import mixtures, one_adapter_each, read_policies
from paretohqd_jax.steps.plan import Plan
from paretohqd_jax.steps.soups import averaged_factors

SHORT = ("--config.train.num_steps=3", "--config.evaluate.max_new_tokens=4")
LORA = LoraConfig(rank=1, alpha=1.0, targets=("q_proj",))
# Updates are a @ b, the transpose of B A: [[2, 0], [0, 0]] and [[0, 0], [0, 4]].
EXAMPLE = {
    "layers": {
        "q_proj": {
            "a": np.array([[[[1.0], [0.0]]], [[[0.0], [1.0]]]]),
            "b": np.array([[[[2.0, 0.0]]], [[[0.0, 4.0]]]]),
        }
    }
}


def update(adapter):
    [factors] = adapter["layers"].values()
    return (factors["a"] @ factors["b"]).squeeze()


def test_updates_are_averaged_and_not_their_factors():
    soup, lora = combine_adapters(EXAMPLE, (0.5, 0.5), LORA)
    np.testing.assert_array_equal(lora.scale * update(soup), [[1, 0], [0, 2]])
    factors = averaged_factors(EXAMPLE, np.array([[0.5, 0.5]]))
    np.testing.assert_array_equal(update(factors).T, [[0.5, 0.5], [1, 1]])


def test_equal_models_make_their_own_soup_and_order_does_not_matter():
    random = np.random.default_rng(0)
    stack = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), EXAMPLE)
    twice = jax.tree.map(lambda leaf: leaf[[0, 0]], stack)
    one = update(jax.tree.map(lambda leaf: leaf[0], stack))
    np.testing.assert_allclose(update(combine_adapters(twice, (0.3, 0.7), LORA)[0]), one)
    turned = jax.tree.map(lambda leaf: leaf[::-1], stack)
    np.testing.assert_allclose(
        update(combine_adapters(stack, (0.3, 0.7), LORA)[0]),
        update(combine_adapters(turned, (0.7, 0.3), LORA)[0]),
    )


def test_the_corners_are_the_models_themselves():
    corners = one_adapter_each("models", np.eye(2))
    first, both, second = mixtures(corners, np.array([[1, 0], [0.5, 0.5], [0, 1]]))
    assert (first.adapters, first.weights) == (corners[0].adapters, (1.0,))
    assert (second.adapters, second.weights) == (corners[1].adapters, (1.0,))
    assert (both.weights, both.combine) == ((0.5, 0.5), "update")


def test_of_tables_of_logits_a_soup_answers_as_their_product():
    """With no network between, to add logits is to multiply probabilities."""
    logits, weights = np.random.default_rng(0).normal(size=(2, 5)), np.array([0.3, 0.7])
    soup = np.exp(weights @ logits)
    product = np.prod(np.exp(logits) ** weights[:, None], axis=0)
    np.testing.assert_allclose(soup / soup.sum(), product / product.sum())


def planned_rewarded_soup(tmp_path, **options):
    config, plan = get_config("rewarded_soup"), Plan(tmp_path)
    config.rewarded_soup.update(options)
    soups.align(config, plan)
    steps = {step.name: step.options for step in plan.steps}
    assert {*steps} <= {*soups.STEPS}
    return steps


def test_rewarded_soups_are_of_models_that_learn_one_reward_each(tmp_path):
    steps = planned_rewarded_soup(tmp_path)
    assert steps["morlhf_corners"]["weights"] == [[1, 0], [0, 1]]
    [_, both, _] = steps["policies"]["families"]["rewarded_soup"]
    assert both["adapters"] == ("morlhf_corners/w1.00_0.00", "morlhf_corners/w0.00_1.00")
    assert both["weights"] == (0.5, 0.5)


def test_bone_soups_are_of_models_that_learn_a_mixture_of_rewards_each(tmp_path):
    steps = planned_rewarded_soup(tmp_path, own_weight=0.8)
    np.testing.assert_allclose(steps["morlhf_corners"]["weights"], [[0.8, 0.2], [0.2, 0.8]])
    brief, both, vowels = steps["policies"]["families"]["rewarded_soup"][::-1]
    adapters = ("morlhf_corners/w0.80_0.20", "morlhf_corners/w0.20_0.80")
    assert brief["adapters"] == both["adapters"] == vowels["adapters"] == adapters
    np.testing.assert_allclose(brief["weights"], [4 / 3, -1 / 3])  # as of the authors' code
    np.testing.assert_allclose(both["weights"], [0.5, 0.5])
    averages = planned_rewarded_soup(tmp_path, own_weight=0.8, average="factors")["rewarded_soup"]
    np.testing.assert_allclose(
        averages["weights"][::-1], [[4 / 3, -1 / 3], [0.5, 0.5], [-1 / 3, 4 / 3]]
    )
    assert averages["adapter_names"] == ["w0.00_1.00", "w0.50_0.50", "w1.00_0.00"]


@pytest.mark.parametrize("own", [1.0, 0.6, 0.8])
def test_shares_make_up_the_preference_of_what_models_have_learnt(own):
    learnt = np.full((3, 3), (1 - own) / 2) + (own - (1 - own) / 2) * np.eye(3)
    preferences = np.array([[1, 0, 0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3], learnt[1]])
    shares = soups.shares_of(preferences, learnt)
    np.testing.assert_allclose(shares @ learnt, preferences, atol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares[-1].tolist() == pytest.approx([0, 1, 0]) and (shares[-1] == 0).sum() == 2
    if own == 1:
        assert (shares == preferences).all()


@pytest.mark.parametrize(
    ("own", "valid"),
    [(0.5, "at least 0.527; below that"), (0.526, "at least 0.527"), (1.1, "well above 1 / M")],
)
def test_a_share_that_makes_no_backbone_is_named(own, valid):
    config = get_config("rewarded_soup")
    config.rewarded_soup.own_weight = own
    with pytest.raises(InputError, match=f"own_weight={own} is not valid; use {valid}"):
        check_config(config)


@pytest.mark.parametrize("num_objectives", [2, 3, 7])
def test_no_soup_has_more_of_a_model_than_its_least_weight_allows(num_objectives):
    own = least_own_weight(num_objectives)
    corners = np.eye(num_objectives)
    learnt = (1 - own) / (num_objectives - 1) * (1 - corners) + own * corners
    shares = soups.shares_of(corners, learnt)
    assert 9 < shares.max() <= MOST_SHARE


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("sft_soup")
    run_toy(path, *SHORT, "--config.sft_soup.average=factors", method="sft_soup")
    return path


def test_each_model_learns_the_best_rows_of_its_objective(workdir):
    scored = read_table(workdir / "scores.parquet")
    rows = read_table(workdir / "selection/sft_corners.parquet")["row_id"].to_numpy()
    train = np.array(scored["split"].to_pylist()) == "train"
    for name, own in zip(("brief", "configs.toy:vowels"), rows.reshape(2, -1), strict=True):
        rewards = scored[name].to_numpy()
        assert rewards[own].min() == np.sort(rewards[train])[-len(own)]
        assert train[own].all()


def test_soups_are_merged_as_they_are_asked_for(workdir, capsys):
    run = read_policies(workdir / "policies.json")
    assert run.stacks == {"sft_corners": ["w1.00_0.00", "w0.00_1.00"],
                          "sft_soup": ["w0.00_1.00", "w0.50_0.50", "w1.00_0.00"]}  # fmt: skip
    assert run.served[1].adapters == ("sft_soup/w0.50_0.50",)
    run_toy(workdir, *SHORT, "--stage=policies", method="sft_soup")
    assert " sft_corners: up to date, skipped" in capsys.readouterr().err
    both = read_policies(workdir / "policies.json").served[1]
    assert both.adapters == ("sft_corners/w1.00_0.00", "sft_corners/w0.00_1.00")
    assert both.weights == (0.5, 0.5)
