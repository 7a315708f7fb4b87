"""From a prompt and a response to the tokens a reward model reads."""

from __future__ import annotations

import logging

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from paretohqd_jax.data.conversations import as_conversation
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.rewards.reward_model import dialogue, encode_pairs, separator_of


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("random:toy")  # a token per byte


def texts_of(tokenizer, texts, cut, max_tokens, prompts, responses):
    tokens, is_cut = encode_pairs(tokenizer, texts, cut, max_tokens, prompts, responses)
    return [tokenizer.decode(ids) for ids in tokens], sum(is_cut)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("{prompt}", "{response}"), "whyso"),
        (("{response}", "{prompt}"), "sowhy"),
        (("{response}",), "so"),
        (("{response} <eos> {prompt}",), "so <eos> why"),
        (("{dialogue}\n\nAssistant:", "{response}"), "\n\nHuman: why\n\nAssistant:so"),
    ],
)
def test_formats(tokenizer, texts, expected):
    assert texts_of(tokenizer, texts, "right", 99, ["why"], ["so"]) == ([expected], 0)


def test_braces_in_the_users_texts_stand_for_themselves(tokenizer):
    decoded, _ = texts_of(
        tokenizer, ("{prompt}|{response}",), "right", 99, ["{response}{0}"], ["{prompt}"]
    )
    assert decoded == ["{response}{0}|{prompt}"]


@pytest.mark.parametrize(
    ("texts", "cut", "expected"),
    [
        (("{prompt}{response}",), "right", "abcdef"),
        (("{prompt}{response}",), "left", "efghij"),
        (("{prompt}", "{response}"), "right", "abchij"),  # the longer of the two is shortened
        (("{prompt}", "{response}"), "left", "efghij"),
        (("{prompt}{response}",), "middle", "abchij"),
        (("{prompt}", "{response}"), "middle", "abghij"),
    ],
)
def test_long_texts_are_cut_where_asked_for_and_counted(tokenizer, texts, cut, expected):
    prompts, responses = ["abcdefg", "", "abc"], ["hij", "xyz", "def"]
    decoded, num_cut = texts_of(tokenizer, texts, cut, 6, prompts, responses)
    assert decoded == [expected, "xyz", "abcdef"]
    assert num_cut == 1


@pytest.fixture(scope="module")
def pair_tokenizer():
    """A small BERT's: [CLS] first [SEP] second [SEP]."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[", "]", "sep", "a", "b"]
    raw = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    raw.add_special_tokens(words[:4])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cut", "max_tokens", "expected"),
    [
        ("right", 99, "[CLS] a [ sep ] b [SEP] b [SEP]"),
        ("right", 6, "[CLS] a [ [SEP] b [SEP]"),
        ("left", 6, "[CLS] ] b [SEP] b [SEP]"),
        ("middle", 7, "[CLS] a [ b [SEP] b [SEP]"),
    ],
)
def test_control_tokens_in_the_users_texts_are_text(pair_tokenizer, cut, max_tokens, expected):
    pair = ("{prompt}", "{response}")
    prompts, responses = ["a", "a [SEP] b", "b"], ["a", "b", "a a a"]
    encoded, _ = encode_pairs(pair_tokenizer, pair, cut, max_tokens, prompts, responses)
    assert " ".join(pair_tokenizer.convert_ids_to_tokens(encoded[1])) == expected
    single, _ = encode_pairs(pair_tokenizer, pair, cut, max_tokens, prompts[::2], responses[::2])
    assert encoded[::2] == single
    one, _ = encode_pairs(pair_tokenizer, ("{prompt} [SEP]",), "right", 99, ["[SEP]"], [""])
    assert one == [[2, 4, 6, 5, 3, 3]]


def test_no_warning_of_lengths_that_are_cut_anyway(caplog):
    tokenizer = load_tokenizer("random:toy")
    tokenizer.model_max_length = 4
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        assert encode_pairs(tokenizer, ("{prompt}",), "right", 4, ["abcdef"], [""]).is_cut == [True]
    finally:
        library.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_no_rows(tokenizer):
    assert encode_pairs(tokenizer, ("{prompt}",), "right", 9, [], []) == ([], [])


@pytest.mark.parametrize(
    "prompt",
    ["\n\nHuman: hi", "Human: hi", "\n\nHuman: hi\n\nAssistant:", "\n\nHuman: hi \n\nAssistant: "],
)
def test_dialogues_are_taken_as_they_are(prompt):
    assert dialogue(prompt) == "\n\nHuman: hi"


ASKED = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "he"},
]


def test_conversations_are_read_in_the_models_own_format(tokenizer):
    two_turns = "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: he"
    one, two = as_conversation(ASKED[:1]), as_conversation(ASKED)
    assert dialogue(one) == "\n\nHuman: hi" and dialogue(two) == two_turns
    told = as_conversation([{"role": "system", "content": "Be kind."}, *ASKED])
    assert dialogue(told) == "Be kind." + two_turns
    texts = ("{prompt}|{response}",)
    decoded, _ = texts_of(tokenizer, texts, "right", 99, [one, two], ["so"] * 2)
    assert decoded == ["hi|so", f"{two_turns}|so"]


def test_prompts_become_dialogues():
    assert dialogue("hi") == "\n\nHuman: hi"
    two_turns = "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: he"
    assert dialogue(two_turns) == two_turns


def test_the_separator_is_a_control_token_that_begins_the_response_alone(tokenizer):
    assert separator_of(tokenizer, ("{prompt}", "<eos>{response}"), "middle") == (
        tokenizer.eos_token_id
    )


@pytest.mark.parametrize(
    ("texts", "cut"),
    [
        (("{prompt}<eos>{response}",), "right"),
        (("{prompt}", "A: {response}"), "right"),
        (("{prompt}<eos>", "<eos>{response}"), "right"),
        (("{prompt}", "<eos>{response}"), "left"),
    ],
)
def test_where_a_response_begins_must_be_told(tokenizer, texts, cut):
    with pytest.raises(InputError, match=r"config\.text\.texts=.*cannot be told"):
        separator_of(tokenizer, texts, cut)
