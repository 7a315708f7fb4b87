"""A prompt's format that is a text with {prompt} in it: ours, and as a chat template.

One that begins with some text is repeated for each exchange of a conversation. One that begins
with {prompt} takes a conversation as a dialogue like HH-RLHF's, if only of one message, and a text
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from paretohqd_jax.data.conversations import NAMES, dialogue, is_conversation, joined, messages_of
from paretohqd_jax.data.special_tokens import START, control_tokens, encode, literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSISTANT = "Assistant:"  # of HH-RLHF's dialogues
# Neighbours of one role are one turn; a system message stands before the next question.
REPEATED = r"""
{{- opening -}}
{%- set ns = namespace(system='', text='') -%}
{%- for message in messages -%}
    {%- set goes_on = not loop.first and loop.previtem.role == message.role -%}
    {%- set ns.text = (ns.text + '\n\n' if goes_on else '') + message.content -%}
    {%- if loop.last or loop.nextitem.role != message.role -%}
        {%- if message.role == 'system' -%}
            {%- set ns.system = ns.text + '\n\n' if ns.text | trim else '' -%}
        {%- elif message.role == 'user' -%}
            {{- head + ns.system + ns.text + tail -}}
            {%- set ns.system = '' -%}
        {%- else -%}
            {{- before + ns.text + after -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
"""
# A single question that begins with `as_it_is` stands for itself.
DIALOGUE = r"""
{%- set ns = namespace(text='') -%}
{%- set first = messages[0] -%}
{%- if messages | length == 1 and first.role == 'user' and first.content.startswith(as_it_is) -%}
    {%- set ns.text = first.content -%}
{%- else -%}
    {%- for message in messages -%}
        {%- if message.role == 'system' -%}
            {%- set ns.text = ns.text + ('' if loop.first else '\n\n') + message.content -%}
        {%- else -%}
            {%- set said = ' ' + message.content if message.content else '' -%}
            {%- set ns.text = ns.text + '\n\n' + names[message.role] + ':' + said -%}
        {%- endif -%}
    {%- endfor -%}
{%- endif -%}
{{- opening + ('' if ns.text.startswith(' ') else start) + ns.text + tail -}}
"""


class TextFormat(NamedTuple):
    """The parts of such a format, as `read_text_format` finds them."""

    opening: str  # control tokens at the very beginning, written out; START may follow them
    head: str  # before each question
    tail: str  # after it
    before: str  # an earlier answer
    after: str  # it
    as_text: Callable[[str], str]  # marks what a person's text may not write, control tokens
    blank_starts: bool  # whether a blank does what START does, for a tokenizer without marks

    @property
    def holds_turns(self) -> bool:
        return bool(self.head) or self._is_dialogue

    @property
    def _is_dialogue(self) -> bool:
        return not self.head and self.tail.strip() == ASSISTANT

    def render(self, prompt: str) -> str:
        """The text that the response to a prompt follows."""
        if not self.head:
            text = dialogue(messages_of(prompt)) if is_conversation(prompt) else prompt
            return self.opening + self.as_text(text) + self.tail
        pieces, system = [self.opening], ""
        for message in joined(messages_of(prompt)):
            text = message["content"]
            if message["role"] == "system":
                system = text + "\n\n" if text.strip() else ""
            elif message["role"] == "user":
                pieces += [self.head, self.as_text(system + text), self.tail]
                system = ""
            else:
                pieces += [self.before, self.as_text(text), self.after]
        return "".join(pieces)

    def template(self) -> str:
        """The chat template, in Jinja, that writes messages as `render` writes their conversation.

        Where no earlier turns have room, a single question is a prompt that is a text; where
        dialogues are read, only one that is a dialogue itself.
        """
        opening = self.opening.removesuffix(START)
        start = " " if self.blank_starts else ""
        if self.head:
            opening += "" if self.head.startswith(" ") else start
            parts = {"head": self.head, "tail": self.tail, "before": self.before,
                     "after": self.after}  # fmt: skip
            return _with_parts({"opening": opening} | parts, REPEATED)
        as_it_is = f"\n\n{NAMES['user']}:" if self._is_dialogue else ""
        return _with_parts(
            {"opening": opening, "start": start, "tail": self.tail, "as_it_is": as_it_is,
             "names": NAMES}, DIALOGUE,
        )  # fmt: skip


def _with_parts(parts: dict[str, object], template: str) -> str:
    """The template behind the values of its names; Jinja reads literals of Python's."""
    return (
        "\n".join(f"{{%- set {name} = {value!r} -%}}" for name, value in parts.items()) + template
    )


def read_text_format(tokenizer: PreTrainedTokenizerBase, prompt_format: str) -> TextFormat:
    """The parts of a text with one `{prompt}` in it."""
    head, tail = prompt_format.split("{prompt}")
    opening, head = _split_opening(tokenizer, head, tail)
    tokens = control_tokens(tokenizer, prompt_format)
    eos = tokenizer.eos_token or ""
    before, after = _around_answers(tokens, eos, prompt_format, head, tail)
    blank_starts = START in opening and (
        encode(tokenizer, [opening + "a"]) == encode(tokenizer, [opening[:-1] + " a"])
    )
    return TextFormat(opening, head, tail, before, after, literal(tokens), blank_starts)


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
