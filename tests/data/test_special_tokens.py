"""Control tokens are what formats write; a person's text is text, in every kind of vocabulary."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from paretohqd_jax.data.batches import token_ids
from paretohqd_jax.data.chat import read_prompt_format
from paretohqd_jax.data.special_tokens import LITERAL, START, encode, literal, special_tokens

SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>", "<|endless|>"]
CORPUS = ["Hello world it's 12 x </s> <|end|> <s> end less", "aa bb  cc\n\nHello < | > / s"] * 4


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return tokenizer, trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def whole_words():
    """Llama 3's way: a word that is a token is that token, whatever the merges say."""
    tokenizer, trainer = byte_level()
    tokenizer.model = models.BPE(ignore_merges=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return tokenizer, trainer


def sentencepiece(first_only):
    """Llama 2's, where every section gets a blank in front, or the first alone (legacy=false)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if first_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=90, special_tokens=SPECIAL, show_progress=False
    )


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )


KINDS = {
    "byte level": byte_level,
    "whole words": whole_words,
    "legacy": lambda: sentencepiece(first_only=False),
    "not legacy": lambda: sentencepiece(first_only=True),
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    raw, trainer = KINDS[request.param]()
    raw.train_from_iterator(CORPUS, trainer)
    raw.add_tokens([AddedToken("<role>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def joint(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


WRITTEN = st.lists(st.sampled_from([*SPECIAL[1:], "<role>", "Hello", " ", "\n", "x ", "it's 12"]))


@settings(max_examples=60, deadline=None)
@given(WRITTEN, WRITTEN)
def test_marks_change_nothing_but_what_becomes_of_control_tokens(tokenizer, before, after):
    """A mark before an ordinary character sends the text the other way to the same ids."""
    text = "".join(before), "world" + "".join(after)
    assert (
        encode(tokenizer, ["".join(text), LITERAL.join(text)])
        == [joint(tokenizer, "".join(text))] * 2
    )


@settings(max_examples=60, deadline=None)
@given(WRITTEN)
def test_a_persons_text_has_no_control_tokens(tokenizer, pieces):
    said = "x" + "".join(pieces)
    [ids] = encode(tokenizer, [literal(special_tokens(tokenizer))(said)])
    control = {tokenizer.convert_tokens_to_ids(token) for token in SPECIAL[1:]}
    assert not control & set(ids)
    if tokenizer.unk_token_id not in ids:  # of the characters that small vocabularies lack
        assert "".join(tokenizer.decode(ids).split()) == "".join(said.split())


def test_the_formats_tokens_stay_beside_those_that_are_text(tokenizer):
    as_text = literal(special_tokens(tokenizer))
    [ids] = encode(tokenizer, [f"<s>{as_text('Hello </s> <|endless|>')}</s>"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids[0] == bos and ids[-1] == eos and ids.count(eos) == ids.count(bos) == 1
    assert tokenizer.convert_tokens_to_ids("<|endless|>") not in ids


def test_other_added_tokens_are_text_where_they_are_marked(tokenizer):
    role = tokenizer.convert_tokens_to_ids("<role>")
    assert role in encode(tokenizer, [f"{LITERAL}x<role>"])[0]  # special ones alone are looked for
    [ids] = encode(tokenizer, [f"<role>{literal(['<role>'])('x<role>')}"])
    assert ids.count(role) == 1


def test_marks_in_a_persons_text_are_characters(tokenizer):
    said = f"x{START}{LITERAL}x"
    [ids] = encode(tokenizer, [literal([])(said)])
    assert ids == joint(tokenizer, said)


def test_what_follows_a_start_is_read_as_a_text(tokenizer):
    ids = encode(tokenizer, [f"<s>{START}Hello", f"<s>{START}Hello{LITERAL}</s>"])
    assert ids[0] == joint(tokenizer, "<s>") + joint(tokenizer, "Hello")
    assert ids[1][: len(ids[0]) - 1] == ids[0][:-1] and tokenizer.eos_token_id not in ids[1]


def test_responses_are_text_and_end_once(tokenizer):
    _, [ids, cut] = token_ids(tokenizer, ["", ""], ["x </s> y", "a"], truncated=[False, True])
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert cut == joint(tokenizer, "a")
    assert encode(tokenizer, []) == []


@pytest.mark.parametrize("prompt_format", ["{prompt}:", "Hello {prompt}", " {prompt}\n"])
def test_the_chat_template_of_a_format_leads_to_the_same_ids(tokenizer, prompt_format):
    """Without marks, which only we read."""
    before = TemplateProcessing("<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    bos = copy.deepcopy(tokenizer)
    bos.backend_tokenizer.post_processor = before
    chat = read_prompt_format(bos, prompt_format)
    for asked in ("Hello world", " x", "\n12"):
        ids = bos.apply_chat_template(
            [{"role": "user", "content": asked}], chat_template=chat.template, return_dict=False
        )
        assert [ids] == encode(bos, [chat.render(asked)])
