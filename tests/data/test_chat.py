from __future__ import annotations

import pytest

from paretohqd_jax.data.chat import check_prompt_format, format_prompt
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.tokenizer import load_tokenizer


@pytest.fixture
def tokenizer():
    return load_tokenizer("random:toy")


def test_a_text_format_takes_the_prompt_as_it_is(tokenizer):
    assert format_prompt(tokenizer, "why {x}?", "Q: {prompt}\nA:") == "Q: why {x}?\nA:"


def test_the_chat_format_is_the_tokenizers_template(tokenizer):
    assert format_prompt(tokenizer, "hi", "chat") == "user: hi\nassistant: "


def test_a_tokenizer_without_template_cannot_chat(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        format_prompt(tokenizer, "hi", "chat")


def test_a_leading_token_of_the_tokenizers_own_is_written_out(tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer.add_special_tokens({"bos_token": "<s>"})
    template = TemplateProcessing("<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    text = format_prompt(tokenizer, "hi", "{prompt}:")
    assert text == "<s>hi:"
    assert tokenizer(text, add_special_tokens=False).input_ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("prompt_format", ["", "no place", "{prompt} {prompt}", "Chat"])
def test_a_format_without_one_place_for_the_prompt_is_refused(prompt_format):
    with pytest.raises(InputError, match="data.prompt_format"):
        check_prompt_format(prompt_format)
