"""Policies of every kind answer through one stack of adapters."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json
from paretohqd_jax.models.lora import LoraConfig, combine_adapters, init_adapters
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import BASE, Policies, Policy, write_policies
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.generation import answers_of
from paretohqd_jax.steps.leaving import export_adapters
from paretohqd_jax.steps.stacks import adapters_of, answerers_of, stacked
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import checkpoint_manager, save

NAMES = ["kind", "short"]
PROMPTS = ["one", "two and more"]
KIND, SHORT = (Policy(name, None, (f"dpo/{name}",), (1.0,)) for name in NAMES)
BOTH = ("dpo/kind", "dpo/short")


@pytest.fixture(scope="module")
def base():
    lora = LoraConfig(rank=2, alpha=4.0, targets=("v_proj", "down_proj"))
    return BaseModel("random:toy", "float32", "none", "{prompt}:", lora)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, base):
    """A run directory with a stack of two adapters that are far apart."""
    path = tmp_path_factory.mktemp("run")
    shapes = jax.eval_shape(lambda: init_adapters(jax.random.key(0), base.config, base.lora, 2))
    random = np.random.default_rng(0)
    adapters = jax.tree.map(lambda leaf: random.normal(0, 0.5, leaf.shape).astype("f4"), shapes)
    with checkpoint_manager(path / "dpo", 1) as manager:
        save(manager, 1, {"adapters": adapters}, checkpoint_meta(base, NAMES), force=True)
    return path


def answers(policies, workdir, base, scratch):
    """Each policy's greedy answers to the prompts."""
    sampling = {"max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0, "top_k": 0}
    table = answers_of(
        policies, {"dpo": NAMES}, workdir, base, PROMPTS, "jax", sampling, 4, scratch, 0,
        "respond", "evaluate",
    )  # fmt: skip
    assert table["answerer"].to_pylist() == list(np.repeat(range(len(policies)), len(PROMPTS)))
    assert table["prompt"].to_pylist() == PROMPTS * len(policies)
    responses = table["response"].to_pylist()
    size = len(PROMPTS)
    return [responses[i * size : (i + 1) * size] for i in range(len(policies))]


def test_soups_answer_beside_single_adapters_and_the_base_model(workdir, base, tmp_path):
    soup = Policy("soup", None, BOTH, (0.3, 0.7))
    corner = Policy("corner", None, BOTH, (0.0, 1.0))
    one, two, mixed, last, none = answers(
        [KIND, SHORT, soup, corner, BASE], workdir, base, tmp_path
    )
    assert last == two and len({str(each) for each in (one, two, mixed, none)}) == 4
    [(kind, _), (short, _)] = adapters_of([KIND, SHORT], {"dpo": NAMES}, workdir, base)
    together = jax.tree.map(lambda *leaves: np.stack(leaves), kind, short)
    expected, lora = combine_adapters(together, (0.3, 0.7), base.lora)
    [(update, its_lora)] = adapters_of([soup], {"dpo": NAMES}, workdir, base)
    jax.tree.map(np.testing.assert_array_equal, update, expected)
    assert its_lora == lora and lora.rank == 4


def test_a_stack_of_unequal_ranks_keeps_every_update(workdir, base):
    policies = [KIND, Policy("soup", None, BOTH, (0.5, 0.5))]
    adapters = adapters_of(policies, {"dpo": NAMES}, workdir, base)
    stack, lora = stacked(adapters, base.lora)
    assert (lora.rank, lora.scale) == (4, base.lora.scale)
    for number, (adapter, own) in enumerate(adapters):
        for target, factors in adapter["layers"].items():
            padded = stack["layers"][target]
            update = own.scale * factors["a"] @ factors["b"]
            again = lora.scale * padded["a"][number] @ padded["b"][number]
            np.testing.assert_allclose(again, update, rtol=1e-6, atol=1e-6)


def test_a_policy_is_asked_in_its_own_words(workdir, base, tmp_path):
    wordy = Policy("wordy", None, ("dpo/kind",), (1.0,), prompt="please {prompt}")
    plain, asked = answers([KIND, wordy], workdir, base, tmp_path / "a")
    changed = BaseModel("random:toy", "float32", "none", "please {prompt}:", base.lora)
    [expected] = answers([KIND], workdir, changed, tmp_path / "b")
    assert asked == expected != plain


def mod(label, *weights, **options):
    return Policy(label, None, BOTH, weights, combine="logits", **options)


def test_policies_that_mix_logits_answer_beside_others(workdir, base, tmp_path):
    """All the weight on one adapter is that adapter; an exact mixture reads the base model too."""
    mixtures = [mod("mod", 0.5, 0.5), mod("exact", 0.5, 0.5, divergence="forward_kl")]
    policies = [KIND, mod("corner", 0.0, 1.0), BASE, *mixtures, SHORT]
    kind, corner, none, *mixed, short = answers(policies, workdir, base, tmp_path)
    assert corner == short and len({str(each) for each in (kind, short, none, *mixed)}) == 5
    stack, lora, answerers = answerers_of(policies, {"dpo": NAMES}, workdir, base)
    members = [answerer.adapters for answerer in answerers]
    assert members == [(0,), (1,), (2,), (0, 1), (0, 1, 2), (1,)]
    assert answerers[4].weights == (0.5, 0.5, 0.0) and lora == base.lora
    assert all(len(leaf) == 3 for leaf in jax.tree.leaves(stack))  # each adapter once
    again = answerers_of([mod("m", 0.5, 0.5)], {"dpo": NAMES}, workdir, base)
    assert again[2][0].adapters == (0, 1)


def test_the_reference_may_be_an_adapter(workdir, base):
    policy = Policy(
        "mod", None, BOTH, (0.5, 0.5), "logits", "jsd",
        reference="dpo/kind",
    )  # fmt: skip
    _, _, [answerer] = answerers_of([policy], {"dpo": NAMES}, workdir, base)
    assert answerer.adapters == (0, 1, 0) and answerer.mixing == ("jsd", False)


def test_what_mixes_logits_is_no_adapter_and_no_request_to_an_engine(workdir, base, tmp_path):
    mixture = mod("mod", 0.5, 0.5)
    with pytest.raises(InputError, match="policy mod mixes the next-token probabilities of dpo/k"):
        adapters_of([KIND, mixture], {"dpo": NAMES}, workdir, base)
    with pytest.raises(InputError, match="policy mod mixes the logits of .*engine='jax'"):
        answers_of(
            [KIND, mixture], {"dpo": NAMES}, workdir, base, PROMPTS, "external",
            {"max_new_tokens": 8}, 4, tmp_path, 0, "respond", "evaluate",
        )  # fmt: skip


def test_an_export_leaves_out_what_no_adapter_is(workdir, base, tmp_path, caplog):
    told = {"source": base.source, "dtype": base.dtype, "prompt_format": "", "date": "", "lora": {}}
    families = {"mod": [mod("half", 0.5, 0.5), KIND]}
    path = tmp_path / "policies.json"
    write_policies(path, Policies(NAMES, told, {"dpo": NAMES}, families))
    write_json(workdir / "config.json", {})
    export_adapters(
        tmp_path / "adapters", tmp_path, Output(path, "", {}), None, base=base, workdir=workdir
    )
    assert [each.name for each in (tmp_path / "adapters").iterdir()] == ["kind"]
    assert "policies half mix the next-token probabilities of several adapters" in caplog.text
