"""Families of policies: in and out of their file, and which of them serves a preference."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretohqd_jax.data.conversations import as_prompt, messages_of
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import preference_grid
from paretohqd_jax.pareto.targets import Targets
from paretohqd_jax.policies import (
    BASE,
    Policies,
    Policy,
    asked_for_scores,
    mixtures,
    one_adapter_each,
    preference_labels,
    preferences_of,
    read_policies,
    write_policies,
)
from paretohqd_jax.steps.choosing import describe, labelled, policy_for

TOLD = {"source": "random:toy", "dtype": "float32", "prompt_format": "{prompt}", "date": "",
        "lora": {}}  # fmt: skip
SOUP = Policy("w0.30_0.70", (0.3, 0.7), ("dpo/helpful", "dpo/brief"), (0.3, 0.7))
ASKING = Policy("w0.50_0.50", (0.5, 0.5), ("dpo/helpful",), (1.0,), prompt="<1.5> {prompt}")


def families():
    return Policies(
        ["helpful", "brief"],
        TOLD,
        {"dpo": ["helpful", "brief"]},
        {
            "objectives": [Policy(n, None, (f"dpo/{n}",), (1.0,)) for n in ("helpful", "brief")],
            "soups": [SOUP, ASKING],
        },
    )


def asking_for_scores():
    """One adapter that is asked for scores."""
    targets = Targets("l2", (-2.0, -1.5), (2.5, 1.8))
    family = asked_for_scores("dpo/helpful", np.asarray(preference_grid(3)), targets)
    return dataclasses.replace(families(), families={"ric": family}, targets=targets)


def test_one_adapter_serves_any_preference_by_what_it_is_asked(tmp_path):
    path = tmp_path / "policies.json"
    write_policies(path, asking_for_scores())
    run = read_policies(path)
    assert run == asking_for_scores() and "targets" not in families().to_dict()
    assert run.served[1].ask("Why?") == "Why? <rm1_score> 1.2 <rm2_score> 0.8"

    def serving(*wanted):
        return policy_for(run.served, np.array(wanted), interpolate=False, targets=run.targets)

    assert serving(0.5, 0.5) == run.served[1]
    other = serving(0.1, 0.9)
    assert other.prompt == "{prompt} <rm1_score> -1.5 <rm2_score> 1.8"
    assert (other.label, other.adapters) == ("w0.10_0.90", ("dpo/helpful",))
    assert "asked '{prompt} <rm1_score> -1.5" in describe(other, np.array([0.1, 0.9]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": "l7"}, "mapping is 'l7'; use one of l2, linf, linear"),
        ({"low": [0.0]}, "the scores to ask for go from (0.0,) to (2.5, 1.8)"),
        ({"low": [0.0], "high": [1.0]}, "its targets are of 1 objectives, not of 2"),
        ({"most": 1}, "damaged"),
    ],
)
def test_targets_that_make_no_sense_are_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "policies.json"
    write_policies(path, asking_for_scores())
    values = json.loads(path.read_text())
    values["targets"] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_policies(path)
    assert "delete this file and run again" in str(error.value)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "policies.json"
    write_policies(path, families())
    assert read_policies(path) == families()
    every = read_policies(path).every()
    assert every[0] == ("", BASE)
    assert [family for family, _ in every[1:]] == ["objectives"] * 2 + ["soups"] * 2
    assert read_policies(path).served == [SOUP, ASKING]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "../up"}, "soups/../up: its label must match"),
        ({"label": ".."}, "soups/..: its label must match"),
        ({"adapters": ["dpo/kind"]}, "there is no adapter 'dpo/kind'; there are dpo/brief, dpo/h"),
        ({"weights": [0.3, 0.8]}, r"its weights \(0.3, 0.8\) do not sum to 1"),
        ({"weights": [1.0]}, "has 1 weights for 2 adapters"),
        ({"combine": "words"}, "combine is 'words'; it must be one of update, logits"),
        ({"combine": "logits", "weights": [1.5, -0.5]}, "they must be on the simplex"),
        ({"divergence": "kl"}, r"divergence is 'kl'; it must match reverse_kl\|forward_kl\|jsd"),
        ({"divergence": "alpha=1.5"}, "divergence is 'alpha=1.5'"),
        ({"divergence": "alpha=0.0"}, "divergence is 'alpha=0.0'"),
        ({"legacy_score": 1}, "legacy_score is 1; it must be true or false"),
        ({"reference": "sft/all"}, "there is no adapter 'sft/all'"),
        ({"prompt": "no place"}, "must have {prompt} in it once"),
        ({"prompt": ["{prompt}"]}, "must have {prompt} in it once"),
        ({"preference": [0.5, 0.6]}, "is not 2 shares that sum to 1"),
        ({"preference": [1.0]}, "is not 2 shares that sum to 1"),
        ({"preference": ["a", "b"]}, "damaged"),
        ({"label": "w0.50_0.50"}, "two policies of 'soups' have one label"),
        ({"kindness": 1}, "damaged .unknown field 'kindness'.; delete this file and run again"),
    ],
)
def test_an_edited_file_is_refused_in_one_line(tmp_path, change, message):
    values = families().to_dict()
    values["families"]["soups"][0] |= change
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message) as error:
        read_policies(path)
    assert re.fullmatch(f"{path}: .*; delete this file and run again", str(error.value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": "hb"}, "its objectives 'hb' are no names"),
        ({"objectives": [1, 2]}, r"its objectives \[1, 2\] are no names"),
        ({"base": TOLD | {"source": 5}}, "the base model's source 5 is no text"),
        ({"stacks": {"dpo": ["helpful", "brief"], "../of": []}}, "the name '../of' must match"),
        ({"families": {"": [dataclasses.asdict(SOUP)]}}, "the name '' must match"),
    ],
)
def test_names_that_are_none_are_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(families().to_dict() | change))
    with pytest.raises(InputError, match=message) as error:
        read_policies(path)
    assert re.fullmatch(f"{path}: .*; delete this file and run again", str(error.value))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"families": {}}', "null", '{"families": 3}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "policies.json"
    path.write_text(text)
    with pytest.raises(InputError, match="policies.json: damaged"):
        read_policies(path)


def test_a_run_that_is_not_that_far(tmp_path):
    with pytest.raises(InputError, match="policies.json: no such file; the run's models are not"):
        read_policies(tmp_path / "policies.json")


def test_labels_are_distinct_and_safe():
    assert preference_labels(preference_grid(4))[:2] == ["w0.00_1.00", "w0.33_0.67"]
    close = preference_labels(np.array([[0.501, 0.499], [0.502, 0.498]]))
    assert len(set(close)) == 2


def test_a_policy_is_found_by_its_label():
    assert labelled(families(), "w0.30_0.70") == SOUP
    assert labelled(families(), "soups/w0.30_0.70") == SOUP
    assert labelled(families(), "objectives/brief").adapters == ("dpo/brief",)
    with pytest.raises(InputError, match="--policy brief: there is no such policy; use one of w0"):
        labelled(families(), "brief")


def test_the_nearest_serves_or_a_mixture():
    family = one_adapter_each("stage2", np.asarray(preference_grid(3)))
    wanted = np.array([0.4, 0.6])
    assert policy_for(family, wanted, interpolate=False) == family[1]
    mixed = policy_for(family, wanted, interpolate=True)
    assert mixed.preference == (0.4, 0.6) and mixed.label == "w0.40_0.60"
    assert dict(zip(mixed.adapters, mixed.weights, strict=True)) == pytest.approx(
        {"stage2/w0.00_1.00": 0.2, "stage2/w0.50_0.50": 0.8}
    )
    assert "was not trained, served by the nearest, w0.50_0.50" in describe(family[1], wanted)
    assert "was not trained" not in describe(mixed, wanted)


@given(st.floats(0, 1))
def test_mixtures_of_soups_are_soups(share):
    """Their weights are the preference itself, whether or not mixtures are asked for."""
    names = ("dpo/helpful", "dpo/brief")
    family = [Policy(f"w{i}", (w, 1 - w), names, (w, 1 - w)) for i, w in enumerate((0.0, 0.4, 1.0))]
    wanted = np.array([share, 1 - share])
    served = policy_for(family, wanted, interpolate=False)
    np.testing.assert_allclose(served.weights, served.preference, atol=1e-6)
    assert served.preference == pytest.approx(wanted, abs=0.005)


@given(st.floats(0, 1), st.sampled_from([0.6, 0.8]))
def test_mixtures_of_bone_soups_are_bone_soups(share, own):
    learnt = np.array([[own, 1 - own], [1 - own, own]])
    family = mixtures(
        one_adapter_each("bones", learnt), np.asarray(preference_grid(3)),
        shares=np.asarray(preference_grid(3)) @ np.linalg.inv(learnt),
    )  # fmt: skip
    wanted = np.array([share, 1 - share])
    served = policy_for(family, wanted, interpolate=False)
    np.testing.assert_allclose(served.weights @ learnt, served.preference, atol=1e-6)
    assert served.preference == pytest.approx(wanted, abs=0.005)


@given(st.floats(0, 1))
def test_any_preference_has_a_policy_that_mixes_logits(share):
    """Of its own weights, whether or not mixtures are asked for; corners may be single adapters."""
    names = ("dpo/helpful", "dpo/brief")
    corner = Policy("brief", (0.0, 1.0), names[1:], (1.0,))
    mixing = {"combine": "logits", "divergence": "jsd"}
    family = [corner, *(Policy(f"w{w}", (w, 1 - w), names, (w, 1 - w), **mixing) for w in (0.4, 1))]
    served = policy_for(family, np.array([share, 1 - share]), interpolate=False)
    weights = dict(zip(served.adapters, served.weights, strict=True))
    assert weights.get("dpo/helpful", 0.0) == pytest.approx(share, abs=0.006)
    assert served == corner or (served.combine, served.divergence) == ("logits", "jsd")
    assert served == corner or "mixed at every token by jsd" in describe(served)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            [
                dataclasses.replace(SOUP, combine="logits"),
                dataclasses.replace(SOUP, label="b", preference=(0.0, 1.0)),
            ],
            "b cannot be mixed",
        ),
        (
            [dataclasses.replace(SOUP, preference=None)],
            "no preferences; choose one by --policy",
        ),
        ([ASKING, Policy("w0", (0.0, 1.0), ("dpo/brief",), (1.0,))], "w0.50_0.50 cannot be mixed"),
    ],
)
def test_what_cannot_serve_is_named(family, message):
    with pytest.raises(InputError, match=re.escape(message)):
        policy_for(family, np.array([0.2, 0.8]), interpolate=True)


def test_preferences_of_a_family():
    assert preferences_of([SOUP, Policy("b=0.9")]) is None
    np.testing.assert_array_equal(preferences_of([SOUP, ASKING]), [(0.3, 0.7), (0.5, 0.5)])


def test_a_policy_asks_in_its_own_words():
    assert BASE.ask("Why?") == "Why?"
    assert ASKING.ask("Why {prompt}?") == "<1.5> Why {prompt}?"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
             {"role": "user", "content": "Why?"}]  # fmt: skip
    asked = messages_of(ASKING.ask(as_prompt(turns)))
    assert [turn["content"] for turn in asked] == ["Hi", "Hello", "<1.5> Why?"]
