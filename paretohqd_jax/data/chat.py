"""From a prompt to the exact text that training and generation both start from.

A prompt is one user message or a conversation (see `conversations`). What comes out has its texts
and the beginning-of-sequence token once, and is for `special_tokens.encode`: a person's text cannot
write control tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from paretohqd_jax.data.chat_template import (
    PROBE,
    choose_template,
    is_dated,
    template_renderer,
    with_date,
)
from paretohqd_jax.data.conversations import messages_of
from paretohqd_jax.data.special_tokens import control_tokens, literal
from paretohqd_jax.data.text_format import read_text_format
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptFormat(NamedTuple):
    """How prompts are put to a model."""

    render: Callable[[str], str]  # from a prompt to the text that its response follows
    holds_turns: bool  # whether earlier questions and answers have a place
    is_dated: bool  # whether the text depends on the day
    template: str  # the chat template that has Hugging Face's tokenizers do the same


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
        text = read_text_format(tokenizer, prompt_format)
        return PromptFormat(text.render, text.holds_turns, False, text.template())
    template = choose_template(tokenizer, prompt_format.partition(":")[2])
    render = template_renderer(tokenizer, with_date(template, date))
    as_text = literal(control_tokens(tokenizer, render([{"role": "user", "content": PROBE}])))

    def render_prompt(prompt: str) -> str:
        messages = messages_of(prompt)
        return render([{**m, "content": as_text(m["content"])} for m in messages])

    return PromptFormat(render_prompt, True, is_dated(template), template)


def format_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_format: str) -> str:
    """The text a response follows, special tokens written out (see `read_prompt_format`)."""
    return read_prompt_format(tokenizer, prompt_format).render(prompt)
