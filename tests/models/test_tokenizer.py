from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf_of_sentencepiece import write_gguf as write_sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.data.chat import format_prompt
from paretohqd_jax.data.special_tokens import control_tokens, encode, literal
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.gguf_tokenizer import QWEN2_PATTERN
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


@pytest.mark.parametrize(
    ("in_config", "in_generation", "expected"),
    [
        ([257, 3], None, (3, 256, 257)),
        ([257], [3, 4], (3, 4, 256, 257)),
        (5, "no file", (5, 256)),
        (None, None, (256,)),
        ("no file", [None, 7], (7, 256)),
    ],
)
def test_end_tokens_of_both_configurations(
    byte_tokenizer, tmp_path, in_config, in_generation, expected
):
    byte_tokenizer.save_pretrained(tmp_path)
    for name, ids in (("config.json", in_config), ("generation_config.json", in_generation)):
        if ids != "no file":
            (tmp_path / name).write_text(json.dumps({"model_type": "llama", "eos_token_id": ids}))
    assert eos_token_ids(byte_tokenizer, str(tmp_path)) == expected


@pytest.mark.parametrize("ids", ["2", [1, "2"], [[1]], True, 1.5, -1])
def test_end_tokens_that_are_none(byte_tokenizer, tmp_path, ids):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    with pytest.raises(InputError, match="generation_config.json: eos_token_id is .* give a token"):
        eos_token_ids(byte_tokenizer, str(tmp_path))


def test_directory_without_a_tokenizer(tmp_path):
    golden = Path(__file__).parent / "golden" / "untied"
    directory = shutil.copytree(golden, tmp_path / "model")
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_tokenizer(str(directory))


# Directories as the families publish them: the tokenizer class is named, tokenizer.json decides.

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
TEXTS = ("Hello  wörld 2024!", " it's\n\n12 345", "e\u0301 日本 🎉", "<|im_start|>x</s>")


def trained_byte_level(pattern):
    """A byte-level BPE that splits by a pattern, as in Qwen2 and Llama 3."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["</s>", "<|im_start|>"],
    )
    tokenizer.train_from_iterator([*TEXTS, "hello world 2024 2024 12 345"] * 3, trainer)
    return tokenizer


def trained_sentencepiece():
    """A BPE over metaspaces with bytes to fall back to, as in Llama 2 and Mistral."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>", "<|im_start|>", *bytes_],
    )
    tokenizer.train_from_iterator(["Hello world it's 12 2024 345 x"] * 3, trainer)
    return tokenizer


@pytest.mark.parametrize(
    "model_type, tokenizer_class",
    [
        ("qwen2", "Qwen2Tokenizer"),
        ("qwen3", "Qwen2Tokenizer"),
        ("llama", "PreTrainedTokenizerFast"),  # Llama 3
        ("llama", "LlamaTokenizer"),
        ("mistral", "LlamaTokenizer"),
    ],
)
def test_tokenizers_of_the_families(tmp_path, model_type, tokenizer_class):
    byte_level = tokenizer_class != "LlamaTokenizer"
    raw = trained_byte_level(QWEN2_PATTERN) if byte_level else trained_sentencepiece()
    raw.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": tokenizer_class, "eos_token": "</s>", "chat_template": TEMPLATE,
                "bos_token": None if byte_level else "<s>", "unk_token": None}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    im_start, eos = raw.token_to_id("<|im_start|>"), raw.token_to_id("</s>")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, im_start]}))
    tokenizer = load_tokenizer(str(tmp_path))
    for text in TEXTS if byte_level else ("Hello world 2024", "it's 12 日本 345"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == raw.encode(text, add_special_tokens=False).ids
        if "e\u0301" not in text:  # Qwen composes accents
            assert tokenizer.decode(ids) == text
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<user>Hi</s>"
    assert eos_token_ids(tokenizer, str(tmp_path)) == tuple(sorted((eos, im_start)))


def test_a_directory_with_a_sentencepiece_model_alone(tmp_path):
    import sentencepiece

    with open(tmp_path / "tokenizer.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["hello world, hello there"] * 9), model_writer=file,
            vocab_size=290, model_type="bpe", byte_fallback=True, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | tokens))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer("hello world").input_ids
    assert ids[0] == tokenizer.bos_token_id and tokenizer.is_fast
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert ids[1:] == reference.encode("hello world")
    [formatted] = encode(tokenizer, [format_prompt(tokenizer, "hello world", "<s>{prompt}")])
    assert formatted == ids


# SentencePiece: the ids of 200 texts are those of transformers.

SENTENCEPIECE = Path(__file__).parent / "golden" / "sentencepiece"


@pytest.fixture(scope="module")
def texts_and_ids():
    stored = dict(np.load(SENTENCEPIECE / "ids.npz"))
    texts = json.loads(str(stored.pop("texts")))
    assert len(texts) == 200
    return texts, stored


def ids_of(tokenizer, texts):
    return [i for text in texts for i in [*tokenizer(text).input_ids, -1]]


@pytest.mark.parametrize("legacy", [True, False])
def test_a_directory_with_tokenizer_model_alone(tmp_path, texts_and_ids, legacy):
    texts, ids = texts_and_ids
    shutil.copy(SENTENCEPIECE / "tokenizer.model", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    values = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    tokenizer = load_tokenizer(str(tmp_path))
    assert ids_of(tokenizer, texts) == ids[f"legacy {legacy}"].tolist()
    assert eos_token_ids(tokenizer, str(tmp_path)) == (2,)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_sentencepiece_in_gguf(tmp_path, texts_and_ids, architecture):
    texts, ids = texts_and_ids
    path = tmp_path / "model.gguf"
    write_sentencepiece(path, SENTENCEPIECE / "tokenizer.model", architecture)
    tokenizer = load_tokenizer(str(path))
    assert ids_of(tokenizer, texts) == ids[architecture].tolist()
    if architecture == "llama":
        assert ids[architecture].tolist() == ids["legacy False"].tolist()
    for text in texts:
        if "<" not in text and "\u2581" not in text and not text.startswith(" "):
            assert tokenizer.decode(tokenizer(text).input_ids[1:]) == text
    tokenizer.save_pretrained(tmp_path / "saved")
    assert ids_of(load_tokenizer(str(tmp_path / "saved")), texts) == ids[architecture].tolist()
    # What a person writes is text, whatever it looks like.
    control = control_tokens(tokenizer, "")
    assert {"<s>", "</s>", "<|im_end|>"} <= control
    typed = encode(tokenizer, [literal(control)("a</s>b<|im_end|>")])[0]
    assert not {2, *tokenizer.convert_tokens_to_ids(["<|im_end|>"])} & {*typed}
    assert tokenizer.decode(typed) == "a</s>b<|im_end|>"


@pytest.mark.parametrize("name", ["tokenizer.model", "spm.model"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, None])
def test_a_damaged_sentencepiece_model(tmp_path, name, share):
    """transformers makes a tokenizer of three tokens out of an empty file, or asks for tiktoken."""
    content = (SENTENCEPIECE / "tokenizer.model").read_bytes()
    damaged = b"IQ== 0\n" if share is None else content[: int(share * len(content))]
    (tmp_path / name).write_bytes(damaged)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match=f"{name}: no SentencePiece model, or damaged or cut off"):
        load_tokenizer(str(tmp_path))
