"""A tokenizer's chat template, held to what it must do: write each message's text, and once."""

from __future__ import annotations

import datetime
import functools
import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from paretohqd_jax.data.conversations import Message, joined
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
PROBE = "qzxwjkvqy"  # a text that no template writes by itself
END_OF_THOUGHT = "</think>"  # templates leave out what comes before it in earlier answers
DIRECTIVES = (*(f"%-{letter}" for letter in "dmHIMSjy"), *(f"%{letter}" for letter in
              "aAbBcdefFgGHIjmMnpStTuUVwWxXyYzZ"), "%%")  # fmt: skip
Render = Callable[[Sequence[Message]], str]


def choose_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """The chat template of a name, or "" for the only one or the one named "default".

    Raises:
      InputError: there is none, none of that name, or several without a default.
    """
    templates = tokenizer.chat_template
    if not templates:
        raise InputError(
            "data.prompt_format='chat': this tokenizer has no chat template; "
            "give the format as a text with {prompt} in it"
        )
    if isinstance(templates, str):
        templates = {"default": templates}
    if (name or "default") not in templates:
        names = sorted(templates)
        raise InputError(
            f"data.prompt_format={f'chat:{name}' if name else 'chat'!r}: the tokenizer's chat "
            f"templates are named {', '.join(names)}; say which, as 'chat:{names[0]}', or save one "
            "as chat_template.jinja in the model's directory"
        )
    return templates[name or "default"]


def put_in_words(template: str, words: str) -> str:
    """The chat template that puts the last message in words, a text with `{prompt}` in it once."""
    before, after = words.split("{prompt}")
    last = f"dict(messages[-1], content={before!r} + messages[-1]['content'] + {after!r})"
    return f"{{% set messages = messages[:-1] + [{last}] %}}{template}"


def is_dated(template: str) -> bool:
    """Whether a template writes the date."""
    return "strftime_now" in template


def with_date(template: str, date: str) -> str:
    """The template with `strftime_now` of a day in ISO's form instead of the clock's."""
    if not (date and is_dated(template)):
        return template
    day = datetime.datetime.fromisoformat(date)
    words = "".join(f" | replace({d!r}, {day.strftime(d)!r})" for d in DIRECTIVES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{words} }}}}{{% endmacro +%}}{template}"


def template_renderer(tokenizer: PreTrainedTokenizerBase, template: str) -> Render:
    """Renders messages by a template, with the opening for the answer.

    Contents are given as lists of parts where the template leaves texts out, and neighbours of one
    role as one message where it wants roles to alternate. A BOS that the template writes twice at
    the beginning is written once.

    Raises:
      InputError: the template cannot be rendered, or writes a prompt not at all or several times.
        So does the function that is returned, for messages whose roles the template refuses, and
        for texts that it leaves out.
    """

    def render(messages: Sequence[Message], parts: bool) -> str:
        given: list[dict[str, Any]] = [
            {"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} if parts else m
            for m in messages
        ]
        try:
            text = tokenizer.apply_chat_template(
                given, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program and may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            roles = ", ".join(dict.fromkeys(m["role"] for m in messages))
            raise _refusal(f"cannot be rendered for {roles} messages ({reason:.200})") from error
        bos = tokenizer.bos_token
        while bos and text.startswith(bos + bos):
            text = text.removeprefix(bos)
        return text

    parts = _takes_parts(render)
    _warn_of_no_opening(lambda messages: render(messages, parts))

    @functools.cache
    def form_of(roles: tuple[str, ...]) -> tuple[bool, int | None]:
        return _form_of(roles, lambda messages: render(messages, parts))

    def checked(messages: Sequence[Message]) -> str:
        joins, left_out = form_of(tuple(message["role"] for message in messages))
        if left_out is not None:
            raise _leaves_out(messages[left_out])
        text = render(joined(messages) if joins else messages, parts)
        for message in messages:
            if not _holds(text, message):
                raise _leaves_out(message)
        return text

    return checked


def _form_of(roles: Sequence[str], render: Render) -> tuple[bool, int | None]:
    """How messages of these roles go into the template, by texts that are found again in it.

    Returns:
      Whether neighbours of one role have to be one message, which the template insists on, and the
      first message whose text is left out all the same; None if all are there.
    """
    probes = [
        {"role": role, "content": f"{PROBE}{number}{PROBE}"} for number, role in enumerate(roles)
    ]
    failure, left_out = None, None
    for joins in (False, True) if len(joined(probes)) < len(probes) else (False,):
        try:
            text = render(joined(probes) if joins else probes)
        except InputError as error:
            failure = failure or error
            continue
        shown_as_part = f"'text': '{PROBE}" in text  # the program's form of a list of parts
        missing = (n for n, p in enumerate(probes) if shown_as_part or p["content"] not in text)
        left_out = next(missing, None)
        if left_out is None:
            return joins, None
    if left_out is None:
        raise failure
    return False, left_out


def _leaves_out(message: Message) -> InputError:
    what = "system message" if message["role"] == "system" else "text of a message"
    return _refusal(f"leaves out the {what} {message['content'][:40]!r}")


def _refusal(what: str) -> InputError:
    return InputError(
        f"data.prompt_format='chat': the tokenizer's chat template {what}; give the format as a "
        "text with {prompt} in it (it takes a system message before the first question), or mend "
        "the template"
    )


def _takes_parts(render: Callable[[Sequence[Message], bool], str]) -> bool:
    """Whether the template wants contents as lists of parts, which a first prompt tells."""
    failure = None
    counts = []
    for parts in (False, True):
        try:
            counts.append(render([{"role": "user", "content": PROBE}], parts).count(PROBE))
        except InputError as error:
            failure = failure or error
        else:
            if counts[-1] == 1:
                return parts
    if failure:
        raise failure
    times = f"{max(counts)} times" if max(counts) else "not at all"
    raise _refusal(f"writes the prompt's text {times}, where it must be once")


def _warn_of_no_opening(render: Render) -> None:
    """Warns if answers in a conversation begin with words that the opening for one lacks."""
    question = {"role": "user", "content": PROBE}
    try:
        asked = render([question])
        answered = render([question, {"role": "assistant", "content": PROBE[::-1]}])
    except InputError:  # this template has its own idea of conversations
        return
    rest = answered.partition(PROBE[::-1])[0].removeprefix(asked)
    if answered.startswith(asked) and rest.strip():
        logger.warning(
            "the tokenizer's chat template does not heed add_generation_prompt: responses follow "
            "%r at once, without the %r that earlier answers begin with; if the model was trained "
            "with it, mend the template, or give the format as a text with {prompt} in it",
            asked.rpartition(PROBE)[2][:40], rest[:40],
        )  # fmt: skip


def _holds(text: str, message: Message) -> bool:
    """Whether a rendered text has that of a message, but for blanks."""
    content = message["content"]
    if message["role"] == "assistant":
        content = content.rpartition(END_OF_THOUGHT)[2]
    return content.strip() in text or _squeezed(content) in _squeezed(text)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
