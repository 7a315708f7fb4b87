from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.tokenizer import eos_token_ids, load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY


@pytest.fixture(scope="module")
def byte_tokenizer():
    return load_tokenizer(RANDOM_TOY)


def test_bytes_and_their_end(byte_tokenizer):
    assert len(byte_tokenizer) == 258
    assert eos_token_ids(byte_tokenizer, RANDOM_TOY) == (256,)
    assert byte_tokenizer("a<eos>").input_ids[-1] == 256
    assert byte_tokenizer.decode([256, 257], skip_special_tokens=True) == ""


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_survives_the_bytes(byte_tokenizer, text):
    ids = byte_tokenizer(text).input_ids
    if "<eos>" not in text and "<pad>" not in text:
        assert len(ids) == len(text.encode())
    assert byte_tokenizer.decode(ids) == text


def test_tokenizer_and_end_tokens_of_a_directory(byte_tokenizer, tmp_path):
    byte_tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded("hello").input_ids == byte_tokenizer("hello").input_ids
    assert eos_token_ids(loaded, str(tmp_path)) == (256,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [257, 3]}))
    assert eos_token_ids(loaded, str(tmp_path)) == (3, 256, 257)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert eos_token_ids(loaded, str(tmp_path)) == (5, 256)


def test_directory_without_a_tokenizer(tmp_path):
    golden = Path(__file__).parent / "golden" / "untied"
    directory = shutil.copytree(golden, tmp_path / "model")
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_tokenizer(str(directory))


def write_gguf(path, **metadata):
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for name, value in metadata.items():
        field = f"tokenizer.ggml.{name}"
        (writer.add_array if isinstance(value, list) else writer.add_string)(field, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    "metadata, word",
    [
        ({"model": "llama"}, "'llama'"),  # SentencePiece
        ({"model": "gpt2", "tokens": ["a", "b"]}, "merges"),
        ({"model": "gpt2", "tokens": ["a"], "merges": ["a a"], "pre": "kimi"}, "'kimi'"),
    ],
)
def test_unsupported_gguf_tokenizers_are_refused_by_name(tmp_path, metadata, word):
    path = tmp_path / "model.gguf"
    write_gguf(path, **metadata)
    with pytest.raises(InputError, match=word):
        load_tokenizer(str(path))
