"""What is checked of a base model before a run begins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from paretohqd_jax.data.special_tokens import control_tokens, encode, literal
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY
from paretohqd_jax.steps.base_model import BaseModel, check_base_model

GOLDEN = Path(__file__).parent.parent / "models" / "golden"  # of 64 embeddings


def base_with_vocabulary(tmp_path, tokens):
    """A model of 64 embeddings whose tokenizer knows these tokens, by their ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    directory = shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="a").save_pretrained(directory)
    return BaseModel(str(directory), "float32", "none", "{prompt}", LoraConfig(rank=1))


@pytest.mark.parametrize("tokens", [{"a": 0, "b": 64}, {"a": 0, "b": 200, "c": 3}])
def test_token_ids_without_an_embedding_are_refused(tmp_path, tokens):
    base = base_with_vocabulary(tmp_path, tokens)
    with pytest.raises(InputError) as caught:
        check_base_model(base)
    for word in ("'b'", str(tokens["b"]), str(tokens["b"] + 1), "64", str(base.source)):
        assert word in str(caught.value)
    with pytest.raises(InputError):  # whoever asks for it
        _ = base.tokenizer


def test_added_tokens_count_and_fewer_tokens_than_embeddings_are_fine(tmp_path):
    base = base_with_vocabulary(tmp_path, {"a": 0} | {f"w{i}": i for i in range(1, 62)})
    check_base_model(base)
    tokenizer = load_tokenizer(base.source)
    assert tokenizer.add_tokens(["<x>", "<y>", "<z>"]) == 3
    tokenizer.save_pretrained(base.source)
    with pytest.raises(InputError, match="'<z>'"):
        check_base_model(BaseModel(base.source, "float32", "none", "{prompt}", base.lora))


def test_a_token_for_images_needs_no_embedding(tmp_path):
    """Gemma 3 1B has embeddings for all tokens but that one."""
    base = base_with_vocabulary(tmp_path, {"a": 0} | {f"w{i}": i for i in range(1, 64)})
    tokenizer = load_tokenizer(base.source)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    assert tokenizer.convert_tokens_to_ids("<image>") == 64
    tokenizer.save_pretrained(base.source)
    path = Path(base.source) / "tokenizer_config.json"
    named = {"image_token": "<image>", "extra_special_tokens": {"image_token": "<image>"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    base = BaseModel(base.source, "float32", "none", "{prompt}", base.lora)
    check_base_model(base)
    [ids] = encode(base.tokenizer, [literal(control_tokens(base.tokenizer, ""))("<image>")])
    assert 64 not in ids


def test_the_toy_passes():
    check_base_model(BaseModel(RANDOM_TOY, "float32", "none", "{prompt}", LoraConfig(rank=1)))


def test_the_weights_are_held_in_one_layout_at_a_time():
    base = BaseModel(RANDOM_TOY, "float32", "none", "{prompt}", LoraConfig(rank=2))
    other = base.with_lora(LoraConfig(rank=4))
    before = jax.tree.map(np.asarray, base.params)
    assert len(other.params_by_layer["layers"]) == base.config.num_layers
    assert other.params_by_layer is base.params_by_layer
    jax.tree.map(np.testing.assert_array_equal, base.params, before)
    assert len(base._weights) == 1 and other.params is base.params
