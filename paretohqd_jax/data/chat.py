"""From a prompt to the exact text that training and generation both start from.

A prompt is one user message or a conversation (see `conversations`). What comes out has its texts
and the beginning-of-sequence token once, and is for `special_tokens.encode`: a person's text cannot
write control tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from paretohqd_jax.data.chat_template import (
    PROBE,
    choose_template,
    is_dated,
    template_renderer,
    with_date,
)
from paretohqd_jax.data.conversations import dialogue, is_conversation, joined, messages_of
from paretohqd_jax.data.special_tokens import START, control_tokens, literal
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSISTANT = "Assistant:"  # of HH-RLHF's dialogues


class PromptFormat(NamedTuple):
    """How prompts are put to a model."""

    render: Callable[[str], str]  # from a prompt to the text that its response follows
    holds_turns: bool  # whether earlier questions and answers have a place
    is_dated: bool  # whether the text depends on the day


def check_prompt_format(prompt_format: str) -> None:
    """Raises InputError unless `prompt_format` is a chat template or a text with one `{prompt}`."""
    named = prompt_format.startswith("chat:") and "{prompt}" not in prompt_format
    if prompt_format != "chat" and not named and prompt_format.count("{prompt}") != 1:
        raise InputError(
            f"data.prompt_format={prompt_format!r}: use 'chat' (the tokenizer's own chat template) "
            "or a text with {prompt} in it once, such as '\\n\\nHuman: {prompt}\\n\\nAssistant:'"
        )


def read_prompt_format(
    tokenizer: PreTrainedTokenizerBase, prompt_format: str, date: str = ""
) -> PromptFormat:
    """How a format puts prompts to a model, once it is known to work.

    Args:
      tokenizer: its chat template is used for "chat"; it knows the control tokens.
      prompt_format: "chat", "chat:NAME" for a template of that name, or a text in which `{prompt}`
        stands for the prompt.
      date: the day, as 2026-01-31, that templates are told; "" for today.

    Raises:
      InputError: see `choose_template` and `template_renderer`.
    """
    if "{prompt}" in prompt_format:
        return _read_text(tokenizer, prompt_format)
    template = choose_template(tokenizer, prompt_format.partition(":")[2])
    render = template_renderer(tokenizer, with_date(template, date))
    as_text = literal(control_tokens(tokenizer, render([{"role": "user", "content": PROBE}])))

    def render_prompt(prompt: str) -> str:
        messages = messages_of(prompt)
        return render([{**m, "content": as_text(m["content"])} for m in messages])

    return PromptFormat(render_prompt, True, is_dated(template))


def format_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_format: str) -> str:
    """The text a response follows, special tokens written out (see `read_prompt_format`)."""
    return read_prompt_format(tokenizer, prompt_format).render(prompt)


def _read_text(tokenizer: PreTrainedTokenizerBase, prompt_format: str) -> PromptFormat:
    """A text with {prompt}, which is repeated for each exchange if it begins with some text.

    One that begins with {prompt} takes a conversation as a dialogue like HH-RLHF's, if only of one
    message, and a text as it is.
    """
    head, tail = prompt_format.split("{prompt}")
    opening, head = _split_opening(tokenizer, head, tail)
    tokens = control_tokens(tokenizer, prompt_format)
    as_text = literal(tokens)
    eos = tokenizer.eos_token or ""
    before, after = _around_answers(tokens, eos, prompt_format, head, tail)
    is_dialogue = not head and tail.strip() == ASSISTANT

    def render(prompt: str) -> str:
        if not head:
            text = dialogue(messages_of(prompt)) if is_conversation(prompt) else prompt
            return opening + as_text(text) + tail
        pieces, system = [opening], ""
        for message in joined(messages_of(prompt)):
            text = message["content"]
            if message["role"] == "system":
                system = text + "\n\n" if text.strip() else ""
            elif message["role"] == "user":
                pieces += [head, as_text(system + text), tail]
                system = ""
            else:
                pieces += [before, as_text(text), after]
        return "".join(pieces)

    return PromptFormat(render, bool(head) or is_dialogue, False)


def _around_answers(
    tokens: Collection[str], eos: str, prompt_format: str, head: str, tail: str
) -> tuple[str, str]:
    """What comes before and after an earlier answer in a format that is repeated.

    Before it a blank, unless the format ends in one or in a control token. After it what ends the
    user's turn, if that is a control token before others; the end token, if the format has any
    control token; or else an empty line, unless the next exchange begins with one.
    """
    before = "" if tail[-1:].isspace() or tail.endswith(tuple(tokens)) else " "
    rest = tail.lstrip()
    first = max((token for token in tokens if rest.startswith(token)), key=len, default="")
    header = rest.removeprefix(first)
    if first and header.strip():
        return before, first + header[: len(header) - len(header.lstrip())]
    if any(token in prompt_format for token in tokens):
        return before, eos
    return before, "" if head.startswith("\n") else "\n\n"


def _split_opening(tokenizer: PreTrainedTokenizerBase, head: str, tail: str) -> tuple[str, str]:
    """The tokens at the very beginning, written out, and the rest of what precedes the prompt.

    They are those that the tokenizer puts before any text, or a BOS of the format's own. What
    follows is read as the start of a text where that makes a difference, as in SentencePiece.
    """
    with_opening = tokenizer("a").input_ids
    without = tokenizer("a", add_special_tokens=False).input_ids
    length = next(
        (n for n in range(len(with_opening)) if with_opening[n : n + len(without)] == without), 0
    )
    ids = with_opening[:length]
    bos = tokenizer.bos_token
    if not ids and bos and head.startswith(bos):
        ids = [tokenizer.bos_token_id]
    opening = "".join(tokenizer.convert_ids_to_tokens(ids))
    if not opening:
        return "", head
    if opening in head + tail and not head.startswith(opening):  # the format says where
        return "", head
    while head.startswith(opening):
        head = head.removeprefix(opening)
    joined = tokenizer(opening + "a", add_special_tokens=False).input_ids
    return opening + (START if joined != ids + without else ""), head
