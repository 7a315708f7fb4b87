"""From a raw prompt to the exact text that training and generation both start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_prompt_format(prompt_format: str) -> None:
    """Raises InputError unless `prompt_format` is "chat" or a text with `{prompt}` in it once."""
    if prompt_format != "chat" and prompt_format.count("{prompt}") != 1:
        raise InputError(
            f"data.prompt_format={prompt_format!r}: use 'chat' (the tokenizer's own chat template) "
            "or a text with {prompt} in it once, such as '{prompt} \\n\\nAssistant:'"
        )


def format_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    prompt_format: str,
    instruction: str = "",
    examples: Sequence[tuple[str, str]] = (),
) -> str:
    """The text a response follows, special tokens written out; encode it without adding any.

    Args:
      tokenizer: its chat template is used for the format "chat".
      prompt: the user's words, or a whole dialogue for formats that take one.
      prompt_format: "chat", or a text in which `{prompt}` stands for the prompt.
      instruction: a system message, for the format "chat".
      examples: pairs of prompt and response that come before, for the format "chat".

    Raises:
      InputError: the format is "chat" and the tokenizer has no chat template.
    """
    if prompt_format == "chat":
        if not tokenizer.chat_template:
            raise InputError(
                "data.prompt_format='chat': this tokenizer has no chat template; "
                "give the format as a text with {prompt} in it"
            )
        messages = [{"role": "system", "content": instruction}] if instruction else []
        for example, response in examples:
            messages.append({"role": "user", "content": example})
            messages.append({"role": "assistant", "content": response})
        messages.append({"role": "user", "content": prompt})
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return _opening(tokenizer) + prompt_format.replace("{prompt}", prompt)


def format_dialogue(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    exchanges: Sequence[tuple[str, str]],
    prompt_format: str,
    data_format: str,
) -> str:
    """The text that the answer to a question follows, after earlier questions and answers.

    Args:
      tokenizer, prompt_format: as for `format_prompt`.
      question: the user's words.
      exchanges: earlier questions with their answers; needs a format that `takes_dialogues`.
      data_format: of the training data; the prompts of "hh" are whole dialogues.
    """
    if data_format == "hh":
        turns = "".join(f"\n\nHuman: {asked}\n\nAssistant: {said}" for asked, said in exchanges)
        return format_prompt(tokenizer, f"{turns}\n\nHuman: {question}", prompt_format)
    return format_prompt(tokenizer, question, prompt_format, examples=exchanges)


def takes_dialogues(prompt_format: str, data_format: str) -> bool:
    """Whether prompts of a run have room for earlier questions and answers."""
    return prompt_format == "chat" or data_format == "hh"


def _opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token as text, for tokenizers that put one before any input."""
    starts_with_bos = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return tokenizer.bos_token if starts_with_bos and tokenizer.bos_token else ""
