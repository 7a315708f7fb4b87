"""Tokenizers out of the metadata of GGUF files, and what is said of metadata that are damaged."""

from __future__ import annotations

import math

import pytest
from tokenizers import pre_tokenizers

from paretohqd_jax.data.chat import format_prompt
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.gguf_tokenizer import SAME_SPLITTING
from paretohqd_jax.models.tokenizer import eos_token_ids, load_tokenizer


def write_gguf(path, templates=None, **metadata):
    """A file with metadata of these names, and of none where the value is None."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    if templates:
        writer.add_chat_template(templates)
    for name, value in metadata.items():
        if value is None:
            continue
        field = name if "." in name else f"tokenizer.ggml.{name}"
        add = {list: "add_array", str: "add_string", bool: "add_bool", int: "add_uint32",
               float: "add_float32"}  # fmt: skip
        getattr(writer, add[type(value)])(field, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    "metadata, word",
    [
        ({"model": "t5"}, "'t5'"),
        ({"model": "llama", "tokens": ["a"]}, "lacks tokenizer.ggml.scores"),
        ({"model": "gpt2", "tokens": ["a", "b"]}, "merges"),
        ({"model": "gpt2", "tokens": ["a"], "merges": ["a a"], "pre": "kimi"}, "'kimi'"),
        ({"model": "gpt2", "tokens": ["a"], "merges": ["a a"]}, "lacks tokenizer.ggml.pre"),
        ({"model": "gpt2", "tokens": ["a"], "merges": ["a a"]}, "--pre-tokenizer NAME"),
    ],
)
def test_unsupported_gguf_tokenizers_are_refused_by_name(tmp_path, metadata, word):
    path = tmp_path / "model.gguf"
    write_gguf(path, **metadata)
    with pytest.raises(InputError, match=word):
        load_tokenizer(str(path))


def test_digits_of_a_qwen_gguf_stand_alone(tmp_path):
    tokens = [*"12x", "12", "</s>"]
    path = tmp_path / "model.gguf"
    write_gguf(path, model="gpt2", pre="qwen2", tokens=tokens, merges=["1 2"])
    assert load_tokenizer(str(path))("12x").input_ids == [0, 1, 2]
    write_gguf(path, model="gpt2", pre="llama-bpe", tokens=tokens, merges=["1 2"])
    assert load_tokenizer(str(path))("12x").input_ids == [3, 2]


ENDS = {
    "tokens": ["a", "<s>", "</s>", "<|eot|>", "<|eom|>", "aa"],
    "merges": ["a a"],
    "model": "gpt2",
}
ENDS |= {"token_type": [1, 3, 3, 3, 3, 1], "pre": "smollm", "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("adds", "ids"),
    [
        ({}, [0]),
        ({"add_bos_token": True}, [1, 0]),
        ({"add_bos_token": False}, [0]),
        ({"add_eos_token": True}, [0, 2]),
        ({"add_bos_token": True, "add_eos_token": True}, [1, 0, 2]),
        ({"pre": "llama-bpe"}, [1, 0]),
        ({"pre": "llama-bpe", "add_bos_token": False}, [0]),
    ],
)
def test_tokens_that_a_gguf_tokenizer_adds(tmp_path, adds, ids):
    path = tmp_path / "model.gguf"
    write_gguf(path, **(ENDS | adds))
    assert load_tokenizer(str(path))("a").input_ids == ids


def test_end_tokens_of_a_gguf_file(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, **ENDS, eot_token_id=3, eom_token_id=4)
    assert eos_token_ids(load_tokenizer(str(path)), str(path)) == (2, 3, 4)


def test_special_tokens_of_a_gguf_file_that_it_lacks(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, **ENDS, padding_token_id=2**32 - 1, eot_token_id=2**32 - 1)
    tokenizer = load_tokenizer(str(path))
    assert tokenizer.pad_token_id == 2 and eos_token_ids(tokenizer, str(path)) == (2,)
    write_gguf(path, **(ENDS | {"bos_token_id": 9}))
    with pytest.raises(InputError, match="bos_token_id is 9, but there are 6 tokens"):
        load_tokenizer(str(path))


def test_named_templates_of_a_gguf_file(tmp_path):
    path = tmp_path / "model.gguf"
    text = "{% for m in messages %}{{ m.content }}{% endfor %}"
    named = [{"name": "default", "template": text}, {"name": "rag", "template": f"rag {text}"}]
    write_gguf(path, templates=named, **ENDS)
    tokenizer = load_tokenizer(str(path))
    assert [format_prompt(tokenizer, "a", f) for f in ("chat", "chat:rag")] == ["a", "rag a"]


@pytest.mark.parametrize("pre", ["llama3", "llama-v3", "llama-bpe"])
def test_llama3s_words_are_tokens_without_merges(tmp_path, pre):
    """As in llama.cpp under any of its names, and in the tokenizer.json of Llama 3."""
    path = tmp_path / "model.gguf"
    tokens = [*"12x", "12", "21", "</s>"]
    write_gguf(path, model="gpt2", pre=pre, tokens=tokens, merges=["1 2"])
    assert load_tokenizer(str(path))("21x").input_ids == [4, 2]


# llama.cpp's names of what it splits alike (`pre_type` in its llama-vocab.cpp), and how.
TEXT = "it'S 1234 aB/\n\n x"
SPLITTINGS = {
    ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum"): "it|'|S|_1234|_aB|/|nn|_x",
    ("smollm",): "it|'|S|_|1|2|3|4|_aB|/|nn|_x",
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"):
        "it|'S|_|123|4|_aB|/nn|_x",
    ("qwen2", "deepseek-r1-qwen", "kormo", "megrez"): "it|'S|_|1|2|3|4|_aB|/nn|_x",
    ("tekken",): "it|'S|_|1|2|3|4|_a|B|/nn|_x",
}  # fmt: skip


@pytest.mark.parametrize(
    "name, words", [(name, words) for names, words in SPLITTINGS.items() for name in names]
)
def test_every_name_of_a_splitting(tmp_path, name, words):
    path = tmp_path / "model.gguf"
    write_gguf(path, **(ENDS | {"pre": name}))
    tokenizer = load_tokenizer(str(path))
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(TEXT)
    found = "|".join(word for word, _ in split)
    assert found.replace("\u0120", "_").replace("\u010a", "n") == words
    begins = name == "tekken" or words == "it|'S|_|123|4|_aB|/nn|_x"  # Llama 3's and Mistral's
    assert tokenizer("a").input_ids == ([1, 0] if begins else [0])


def test_all_names_are_tested():
    names = {name for names in SPLITTINGS for name in names}
    assert {*SAME_SPLITTING, *SAME_SPLITTING.values()} <= names


def test_mistrals_words_end_where_capitals_begin(tmp_path):
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "aB", "Ab"]
    merges = ["1 2", "a B", "A b"]
    path = tmp_path / "model.gguf"
    write_gguf(path, model="gpt2", tokens=tokens, merges=merges, pre="tekken")
    tokenizer = load_tokenizer(str(path))
    found = tokenizer.convert_ids_to_tokens(tokenizer("aB12Ab").input_ids)
    assert found == ["a", "B", "1", "2", "Ab"]


PIECES = {
    "model": "llama", "tokens": ["<unk>", "<s>", "</s>", "\u2581", "h", "i", "hi", "\u2581hi"],
    "scores": [0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0], "bos_token_id": 1, "eos_token_id": 2,
    "token_type": [2, 3, 3, 1, 1, 1, 1, 1], "unknown_token_id": 0,
}  # fmt: skip


def test_pieces_and_scores(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, **PIECES)
    assert load_tokenizer(str(path))("hi").input_ids == [1, 7]
    write_gguf(path, **(PIECES | {"add_space_prefix": False}))
    assert load_tokenizer(str(path))("hi").input_ids == [1, 6]


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        (PIECES, {"scores": PIECES["scores"][:4]}, ["scores' has 4", "must have 8"]),
        (PIECES, {"scores": [math.nan] * 8}, ["scores[0]", "nan"]),
        (PIECES, {"scores": ["a"] * 8}, ["scores[0]", "'a'"]),
        (PIECES, {"scores": 1.0}, ["scores", "1.0", "a list of finite numbers"]),
        (PIECES, {"token_type": [1]}, ["token_type' has 1", "must have 8"]),
        (PIECES, {"token_type": 1}, ["token_type", "a list of integers"]),
        (PIECES, {"token_type": [1.5] * 8}, ["token_type[0]", "1.5"]),
        (PIECES, {"tokens": [*range(8)]}, ["tokens[0]", "a text"]),
        (PIECES, {"tokens": "abc"}, ["tokens", "'abc'", "a list of texts"]),
        (PIECES, {"tokens": ["h"] * 8}, ["tokens has 'h' 8 times"]),
        (PIECES, {"add_space_prefix": "no"}, ["add_space_prefix", "'no'", "true or false"]),
        (PIECES, {"add_bos_token": "no"}, ["add_bos_token", "'no'", "true or false"]),
        (PIECES, {"eos_token_id": "x"}, ["eos_token_id is 'x'", "8 tokens"]),
        (PIECES, {"eos_token_id": 2.0}, ["eos_token_id is 2.0", "8 tokens"]),
        (PIECES, {"model": ["llama"]}, ["['llama']"]),
        (ENDS, {"pre": ["gpt-2"]}, ["pre", "['gpt-2']", "a text"]),
        (ENDS, {"pre": 3}, ["pre", "is 3", "a text"]),
        (ENDS, {"merges": ["aa"]}, ["merges has 'aa'"]),
        (ENDS, {"merges": ["a z"]}, ["merges has 'a z'"]),
        (ENDS, {"merges": ["a <s>"]}, ["merges has 'a <s>'"]),
        (ENDS, {"merges": [1]}, ["merges[0]", "is 1"]),
        (ENDS, {"merges": "a a"}, ["merges", "a list of texts"]),
    ],
)
def test_damaged_metadata_are_refused_by_name(tmp_path, kind, changes, words):
    path = tmp_path / "model.gguf"
    write_gguf(path, **(kind | changes))
    with pytest.raises(InputError) as caught:
        load_tokenizer(str(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "field, value",
    [("chat_template", 3), ("chat_template", ["rag"]), ("chat_templates", "rag"),
     ("chat_templates", ["rag"]), ("chat_templates", [1])],
)  # fmt: skip
def test_chat_templates_that_are_none(tmp_path, field, value):
    path = tmp_path / "model.gguf"
    write_gguf(path, **ENDS, **{f"tokenizer.{field}": value})
    with pytest.raises(InputError, match="field 'tokenizer.chat_template"):
        load_tokenizer(str(path))
