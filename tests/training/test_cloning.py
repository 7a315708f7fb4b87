"""A toy model clones four responses under a constraint; the optimum is known.

It is the problem of `tests/constraints/test_lagrangian.py`: rows stand as often as the reference
has them, 4, 3, 2 and 1 of ten.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.data.batches import tokenize
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.log_probs import response_log_probs
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.steps.cloning import first_duals, rules_of
from paretohqd_jax.training import loop
from paretohqd_jax.training.cloning import ComparedRows, cloning_objective
from paretohqd_jax.training.mesh import make_mesh
from paretohqd_jax.training.metrics import CONSTRAINT, read_metrics
from paretohqd_jax.training.step import OptimizerConfig

NUM_STEPS, EVERY = 60, 20
OBJECTIVES, LABELS = ["kind", "brief"], ["free", "held"]
OF_RESPONSE = np.array([[0.2, 0.9], [0.5, 0.6], [0.8, 0.4], [0.9, 0.1]], np.float32)
ROWS = np.repeat(np.arange(4), [4, 3, 2, 1])
MOPO = {
    "tau": 0.3, "epsilon": 1e-5, "max_multiplier": 50.0, "multiplier_rate": 2.0, "chi_rate": 0.5,
    "refresh_every": 1000, "thresholds": "given", "sharpness": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    config, params = load_pretrained("random:toy")
    model = Llama(config, LoraConfig(8, 16.0, 0.0, ("o_proj", "down_proj")))
    every = tokenize(load_tokenizer("random:toy"), ["sing:"] * 4, list("abcd"), max_length=16)
    return model, params, every


def train(setting, directory, seed):
    model, params, every = setting
    win_rates, rules = OF_RESPONSE[ROWS], rules_of(MOPO)
    levels = [[1.0, 0.3], [1.0, 0.55]]  # lambda is 0, and 0.637
    duals = first_duals(win_rates, OBJECTIVES, ["kind"] * 2, levels, "given", rules)
    rows = ComparedRows(
        *(np.stack([array[ROWS]] * 2) for array in every), np.stack([win_rates] * 2)
    )

    def fresh():
        return init_adapters(jax.random.key(1), model.config, model.lora, 2)

    trained = loop.fine_tune(
        model, params, fresh, rows, OptimizerConfig(3e-2, NUM_STEPS),
        objective=cloning_objective(duals, win_rates, OBJECTIVES, rules, max_weight=20.0),
        mesh=make_mesh(devices=jax.devices()[:1]), batch_size=10, seed=seed, adapter_names=LABELS,
        directory=directory / "mopo", checkpoint_every=EVERY, log_directory=directory / "logs",
        meta={}, description="test",
    )  # fmt: skip
    return jax.device_get(trained)


def expected_win_rates(setting, adapters):
    """Of the models, if they gave the four responses alone, `[num_adapters, num_objectives]`.

    The toy model is too small to give no others.
    """
    model, params, every = setting

    def of_adapter(adapter):
        return response_log_probs(model, {"params": params, "lora": adapter}, *every)

    log_probs = jax.jit(jax.vmap(of_adapter))(adapters)
    assert (np.exp(log_probs).sum(axis=1) > 0.5).all()
    return jax.nn.softmax(log_probs) @ OF_RESPONSE


@pytest.fixture(scope="module")
def whole(setting, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return train(setting, directory, seed=0), directory


def check(setting, trained):
    """Both raise the primary objective; one gives up what the constraint holds of the other."""
    reference = OF_RESPONSE[ROWS].mean(axis=0)  # 0.48, 0.63
    free, held = expected_win_rates(setting, trained)
    assert free[0] > reference[0] + 0.2 and free[1] < 0.55 - 0.1
    assert held[0] > reference[0] + 0.05 and held[1] > 0.55 + 0.02


def test_the_model_raises_one_objective_and_holds_the_other_above_its_threshold(setting, whole):
    check(setting, whole[0])
    told = read_metrics(whole[1] / "logs")
    last = {name.removeprefix(CONSTRAINT): values[NUM_STEPS - 1] for name, values in told.items()}
    assert last["multiplier_brief/held"] == pytest.approx(0.637, rel=0.02)
    assert last["bound_brief/held"] == pytest.approx(0.55, abs=1e-3)
    assert last["win_rate_brief/held"] == pytest.approx(0.55, abs=5e-3)
    assert last["dual_value/held"] == pytest.approx(0.550741, abs=1e-3)
    assert last["win_rate_kind/held"] - 0.3 * last["kl/held"] == pytest.approx(0.5507, abs=2e-3)
    assert last["multiplier_brief/free"] == 0
    assert "multiplier_kind/held" not in last  # nothing holds the primary objective


def test_weights_are_densities_of_mean_1_and_clipped():
    """At lambda 0 those of the worked example: its policy over its reference."""
    win_rates, rules = OF_RESPONSE[ROWS], rules_of(MOPO)
    duals = first_duals(win_rates, OBJECTIVES, ["kind"], [[1.0, 0.3]], "given", rules)
    duals = jax.tree.map(lambda leaf: leaf[0], duals)
    rows = ComparedRows(*[np.ones((4, 1), bool)] * 3, OF_RESPONSE)
    densities = np.array([0.107396, 0.218950, 0.396779, 0.276875]) / [0.4, 0.3, 0.2, 0.1]
    for most in (20.0, 2.0):
        objective = cloning_objective(duals, win_rates, OBJECTIVES, rules, most)
        _, cloned, told = objective.go_on(duals, rows, jnp.int32(0))
        np.testing.assert_allclose(cloned.weights, np.minimum(densities, most), rtol=1e-5)
        clipped = np.asarray(cloned.weights)[ROWS]
        rows_worth = clipped.sum() ** 2 / (clipped**2).sum()
        assert told[f"{CONSTRAINT}sample_size"] == pytest.approx(rows_worth, rel=1e-5)
        assert told[f"{CONSTRAINT}kl"] == pytest.approx(0.343610, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_so_it_does_under_other_seeds(setting, tmp_path, seed):
    check(setting, train(setting, tmp_path, seed))


def test_a_run_that_was_cut_off_ends_with_the_same_duals_and_adapters(
    setting, whole, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def killed_batch_rows(seed, stream, step, *rest):
        if step == EVERY + 5:
            raise Killed
        return batch_rows(seed, stream, step, *rest)

    batch_rows = loop.batch_rows
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "batch_rows", killed_batch_rows)
        train(setting, tmp_path, seed=0)
    trained, directory = whole
    jax.tree.map(np.testing.assert_array_equal, train(setting, tmp_path, seed=0), trained)
    told, expected = (read_metrics(each / "logs") for each in (tmp_path, directory))
    for name, values in expected.items():
        if name.startswith(CONSTRAINT):
            assert told[name] == values, name
