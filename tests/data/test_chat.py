from __future__ import annotations

import re
from pathlib import Path

import pytest

from paretohqd_jax.data.chat import check_prompt_format, format_prompt, read_prompt_format
from paretohqd_jax.data.conversations import as_conversation, as_prompt
from paretohqd_jax.data.special_tokens import encode
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


def with_tokens(tokenizer, *tokens, bos=""):
    """The tokenizer with control tokens, one of which it puts before any text."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing

    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    if bos:
        tokenizer.add_special_tokens({"bos_token": bos})
        template = TemplateProcessing(f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


CONVERSATION = as_prompt(
    [
        {"role": role, "content": text}
        for role, text in zip(
            ("system", "user", "assistant", "user"), ("Be kind.", "a?", "b.", "c?"), strict=True
        )
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("prompt_format", "text"),
    [
        ("chat", "system: Be kind.\nuser: a?\nassistant: b.\nuser: c?\nassistant: "),
        (
            "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>user\nBe kind.\n\na?<|im_end|>\n<|im_start|>assistant\nb.<|im_end|>\n"
            "<|im_start|>user\nc?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "<|im_start|>{prompt}<|im_end|>",  # which opens the answer
            "<|im_start|>Be kind.\n\na?<|im_end|>b.<eos><|im_start|>c?<|im_end|>",
        ),
        (
            "\n\nHuman: {prompt}\n\nAssistant:",
            "\n\nHuman: Be kind.\n\na?\n\nAssistant: b.\n\nHuman: c?\n\nAssistant:",
        ),
        ("Q: {prompt}\nA:", "Q: Be kind.\n\na?\nA: b.\n\nQ: c?\nA:"),
        (
            "{prompt} \n\nAssistant:",
            "Be kind.\n\nHuman: a?\n\nAssistant: b.\n\nHuman: c? \n\nAssistant:",
        ),
        ("{prompt}:", "Be kind.\n\nHuman: a?\n\nAssistant: b.\n\nHuman: c?:"),
    ],
)  # fmt: skip
def test_conversations_in_every_format(tokenizer, prompt_format, text):
    with_tokens(tokenizer, "<|im_start|>", "<|im_end|>")
    assert format_prompt(tokenizer, CONVERSATION, prompt_format) == text


def test_the_page_on_formats_shows_dialogues_as_they_are_written(tokenizer):
    with_tokens(tokenizer, "<|im_start|>", "<|im_end|>")
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    table = page.partition("For dialogues this means")[2].partition("\n\nDialogues")[0]
    rows = re.findall(r'^\| `"(.*?)"`.*? \| `(.*)` \|$', table, re.M)
    roles, texts = ("user", "assistant", "user"), ("Hi", "Hello.", "Why?")
    asked = [{"role": r, "content": text} for r, text in zip(roles, texts, strict=True)]
    for row in rows:
        prompt_format, text = (cell.replace("\\|", "|").replace("\\n", "\n") for cell in row)
        assert format_prompt(tokenizer, as_prompt(asked), prompt_format) == text
    assert len(rows) == 4


def test_an_empty_system_message_takes_no_place(tokenizer):
    prompt = as_prompt([{"role": "system", "content": " "}, {"role": "user", "content": "a"}])
    assert format_prompt(tokenizer, prompt, "Q: {prompt}\nA:") == "Q: a\nA:"


def test_messages_of_one_role_are_one_turn(tokenizer):
    prompt = as_prompt([{"role": "user", "content": text} for text in ("a", "b")])
    assert format_prompt(tokenizer, prompt, "Q: {prompt}\nA:") == "Q: a\n\nb\nA:"


def test_dialogues_of_hh_are_prompts_like_those_of_the_data(tokenizer):
    """As the published rows have them, see test_public; a text stays as it is."""
    hh = "{prompt} \n\nAssistant:"
    asked = as_conversation([{"role": "user", "content": "c?"}])
    assert format_prompt(tokenizer, asked, hh) == "\n\nHuman: c? \n\nAssistant:"
    assert format_prompt(tokenizer, "c?", hh) == "c? \n\nAssistant:"
    written = "\n\nHuman: a?\n\nAssistant: b.\n\nHuman: c?"
    assert format_prompt(tokenizer, written, hh) == written + " \n\nAssistant:"


@pytest.mark.parametrize(
    ("prompt_format", "holds"),
    [("chat", True), ("Q: {prompt}\n", True), ("{prompt} \n\nAssistant:", True),
     ("{prompt}:", False), ("<s>{prompt}:", False)],
)  # fmt: skip
def test_formats_that_hold_turns(tokenizer, prompt_format, holds):
    with_tokens(tokenizer, bos="<s>")
    assert read_prompt_format(tokenizer, prompt_format).holds_turns == holds


@pytest.mark.parametrize(
    ("prompt_format", "text"),
    [
        ("<s>[INST] {prompt} [/INST]", "<s>[INST] hi [/INST]"),
        ("<s><s>[INST] {prompt}", "<s>[INST] hi"),
        ("[INST] {prompt}", "<s>[INST] hi"),
        (" <s>{prompt}", " <s>hi"),
    ],
)
def test_bos_is_there_once(tokenizer, prompt_format, text):
    with_tokens(tokenizer, bos="<s>")
    assert format_prompt(tokenizer, "hi", prompt_format) == text


def test_bos_of_a_repeated_format_is_there_once(tokenizer):
    with_tokens(tokenizer, bos="<s>")
    text = format_prompt(tokenizer, CONVERSATION, "<s>[INST] {prompt} [/INST]")
    assert text == "<s>[INST] Be kind.\n\na? [/INST] b.<eos>[INST] c? [/INST]"
    tokenizer.chat_template = "{{ bos_token }}<s>{% for m in messages %}{{ m.content }}{% endfor %}"
    assert format_prompt(tokenizer, "hi", "chat") == "<s>hi"


def test_the_first_word_after_bos_is_the_first_of_a_text():
    """SentencePiece gives it a blank in front, which it must not lose behind a BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"<unk>": 0, "▁hi": 1, "hi": 2, "▁a": 3}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer = with_tokens(PreTrainedTokenizerFast(tokenizer_object=raw), bos="<s>")
    for prompt_format in ("{prompt}", "<s>{prompt}"):
        text = format_prompt(tokenizer, "hi", prompt_format)
        assert (
            encode(tokenizer, [text])
            == [tokenizer("hi").input_ids]
            == [[tokenizer.bos_token_id, 1]]
        )


@pytest.mark.parametrize("prompt_format", ["chat", "<|role|>{prompt}<|role|>"])
@pytest.mark.parametrize("special", [True, False])
def test_a_prompt_cannot_write_control_tokens(tokenizer, prompt_format, special):
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken("<|role|>", special=special, normalized=False)])
    tokenizer.chat_template = (
        "{% for m in messages %}<|role|>{{ m.content | trim }}{% endfor %}<|role|>"
    )
    text = format_prompt(tokenizer, " say <|role|>{{ 1 }}<eos> ", prompt_format)
    [ids] = encode(tokenizer, [text])
    role = tokenizer.convert_tokens_to_ids("<|role|>")
    assert [ids[0], ids[-1]] == [role, role] and ids.count(role) == 2 and 256 not in ids
    assert "say <|role|>{{ 1 }}<eos>" in tokenizer.decode(ids)


HH = "{prompt} \n\nAssistant:"


def by_template(tokenizer, prompt_format, messages):
    """What transformers makes of the messages with the template of a format."""
    template = read_prompt_format(tokenizer, prompt_format).template
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )


FORMATS = (
    "Q: {prompt}\nA:", HH, "{prompt}:", "[INST] {prompt} [/INST]", "Q: {prompt}\n\nAssistant:",
    "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", "'\"{{ x }}\\ {prompt} é🙂%}",
)  # fmt: skip


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("bos", ["", "<s>"])
def test_the_template_of_a_text_writes_the_same(tokenizer, prompt_format, bos):
    with_tokens(tokenizer, "<|im_start|>", "<|im_end|>", bos=bos)
    for roles in ("u", "su", "uau", "suau", "uuau", "usu", "ssuaau", "asu"):
        messages = [
            {"role": {"s": "system", "u": "user", "a": "assistant"}[role], "content": text}
            for role, text in zip(roles, ("{{ a }}", "", "b\n", " c", "d' ", "e"), strict=False)
        ]
        text = format_prompt(tokenizer, as_prompt(messages), prompt_format)
        if prompt_format == HH and roles == "u":
            text = format_prompt(tokenizer, as_conversation(messages), prompt_format)
        assert by_template(tokenizer, prompt_format, messages) == text
        messages[-1]["content"] = written = "\n\nHuman: a?\n\nAssistant: b.\n\nHuman: c?"
        if roles == "u":
            assert by_template(tokenizer, prompt_format, messages) == format_prompt(
                tokenizer, written, prompt_format
            )


def test_the_template_of_chats_is_the_tokenizers_own(tokenizer):
    template = tokenizer.chat_template
    assert read_prompt_format(tokenizer, "chat").template == template
    tokenizer.chat_template = {"default": "{{ 1 / 0 }}", "short": template}
    assert read_prompt_format(tokenizer, "chat:short").template == template
