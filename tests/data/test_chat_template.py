"""Chat templates as they are found: in parts, named, dated, broken, or leaving texts out."""

from __future__ import annotations

import datetime
import json

import pytest

from paretohqd_jax.data.chat import check_prompt_format, format_prompt, read_prompt_format
from paretohqd_jax.data.conversations import as_prompt
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.tokenizer import load_tokenizer

EACH = "{% for m in messages %}"
PARTS = EACH + "{{ m.role }}: {% for c in m.content %}{{ c.text }}{% endfor %};{% endfor %}"
ALTERNATING = EACH + (
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content | trim }}{% endfor %}"
)
ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " a? "}]


def rendered(template, prompt, prompt_format="chat", date=""):
    tokenizer = load_tokenizer("random:toy")
    tokenizer.chat_template = template
    return read_prompt_format(tokenizer, prompt_format, date).render(prompt)


def test_parts_are_given_where_the_template_wants_them():
    assert rendered(PARTS, as_prompt(ASKED)) == "system: Be kind.;user:  a? ;"
    strict = EACH + "{{ m.content[0]['text'] + '.' }}{% endfor %}"
    assert rendered(strict, "hi") == "hi."
    either = EACH + "{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}"
    assert rendered(either, "hi") == "hi"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (EACH + "{{ m.role }}", "cannot be rendered .*Unexpected end of template"),
        ("{{ nothing.at.all }}", "cannot be rendered .*'nothing' is undefined"),
        ("{{ raise_exception('No.') }}", r"cannot be rendered for user messages \(No.\)"),
        ("{{ bos_token + messages[0].content }}", "cannot be rendered .*'bos_token' is undefined"),
        ("Hello.", "writes the prompt's text not at all"),
        ("{{ messages[0].content * 2 }}", "writes the prompt's text 2 times"),
    ],
)
def test_templates_that_will_not_do(template, message):
    tokenizer = load_tokenizer("random:toy")
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=f"chat template {message}"):
        read_prompt_format(tokenizer, "chat")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (ALTERNATING, r"system, user messages \(System role not supported\)"),
        ("{{ messages[-1].content }}", "leaves out the system message 'Be kind.'"),
        (
            EACH + "{{ m.content[:30] }}{% endfor %}",
            r"leaves out the text of a message 'a\? and so",
        ),
    ],
)
def test_what_a_template_leaves_out_is_said(template, message):
    prompt = [ASKED[0], {"role": "user", "content": "a? and so on, for longer than that"}]
    with pytest.raises(InputError, match=message):
        rendered(template, as_prompt(prompt))


def test_short_texts_that_are_left_out_are_noticed_too():
    turns = [{"role": r, "content": "a"} for r in ("user", "assistant", "user")]
    with pytest.raises(InputError, match="leaves out the text of a message 'a'"):
        rendered("{{ messages[-1].content }} and a", as_prompt(turns))


def test_neighbours_of_one_role_are_one_message_where_roles_must_alternate():
    alternating = EACH + (
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}[{{ m.content }}]{% endfor %}"
    )
    roles = ("user", "user", "assistant", "assistant", "user")
    turns = [{"role": role, "content": text} for role, text in zip(roles, "abcde", strict=True)]
    assert rendered(alternating, as_prompt(turns)) == "[a\n\nb][c\n\nd][e]"
    assert rendered(EACH + "[{{ m.content }}]{% endfor %}", as_prompt(turns)) == "[a][b][c][d][e]"
    with pytest.raises(InputError, match="assistant, user messages .Roles must alternate"):
        rendered(alternating, as_prompt(turns[2:]))


def test_parts_that_are_shown_as_such_are_refused():
    mixed = EACH + "{{ m.content if m.role == 'system' else m.content[0].text + '.' }}{% endfor %}"
    assert rendered(mixed, "hi") == "hi."
    with pytest.raises(InputError, match="leaves out the system message 'Be kind.'"):
        rendered(mixed, as_prompt(ASKED))


def test_a_template_that_does_not_open_the_answer_is_said(caplog):
    header = EACH + "<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert rendered(header, "hi") == "<user>hi"
    assert "without the '<assistant>' that earlier answers begin with" in caplog.text
    caplog.clear()
    opened = header + "{% if add_generation_prompt %}<assistant>{% endif %}"
    assert rendered(opened, "hi") == "<user>hi<assistant>"
    assert rendered(EACH + "{{ m.content }} {% endfor %}", "hi") == "hi "
    assert rendered(ALTERNATING, "hi") == "hi"
    assert caplog.text == ""


def test_blanks_and_thoughts_may_be_left_out():
    trimmed = EACH + "[{{ m.content | trim }}]{% endfor %}"
    assert rendered(trimmed, "\n a  b \n") == "[a  b]"
    squeezed = EACH + "{{ m.content.split() | join(' ') }}{% endfor %}"
    assert rendered(squeezed, "\n a \n b \n") == "a b"
    unthinking = EACH + "{{ m.content.split('</think>')[-1] }}{% endfor %}"
    said = [{"role": r, "content": t} for r, t in (("user", "a"), ("assistant", "x</think>b"))]
    assert rendered(unthinking, as_prompt([*said, {"role": "user", "content": "c"}])) == "abc"


def test_templates_add_texts_of_their_own():
    template = "default{{ eos_token }}" + EACH + "{{ m.content }}{% endfor %}"
    assert rendered(template, "{{ 1 + 1 }} {prompt}") == "default<eos>{{ 1 + 1 }} {prompt}"


NAMED = {"rag": "rag " + PARTS, "tool_use": EACH + "{{ m.content }}{% endfor %}"}


def test_named_templates():
    assert rendered(NAMED | {"default": ALTERNATING}, "hi") == "hi"
    assert rendered(NAMED, "hi", "chat:rag") == "rag user: hi;"
    with pytest.raises(InputError, match="are named rag, tool_use; say which, as 'chat:rag'"):
        rendered(NAMED, "hi")
    with pytest.raises(InputError, match="'chat:nag': .* are named rag, tool_use"):
        rendered(NAMED, "hi", "chat:nag")
    check_prompt_format("chat:rag")


@pytest.mark.parametrize("where", ["chat_template.jinja", "text", "list", "additional"])
def test_templates_wherever_they_are_saved(tmp_path, where):
    load_tokenizer("random:toy").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = [
        {"name": name, "template": text} for name, text in (NAMED | {"default": PARTS}).items()
    ]
    if where in ("text", "list"):
        settings["chat_template"] = PARTS if where == "text" else named
    else:
        (tmp_path / "chat_template.jinja").write_text(PARTS)
    if where == "additional":
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "rag.jinja").write_text(NAMED["rag"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    assert format_prompt(tokenizer, "hi", "chat") == "user: hi;"
    if where in ("list", "additional"):
        assert format_prompt(tokenizer, "hi", "chat:rag") == "rag user: hi;"


@pytest.mark.parametrize(
    "form", ["%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%-d %B", "%A", "100%%, %H:%M:%S", "%j %y"]
)
def test_the_date_is_the_one_that_is_given(form):
    template = f"\n{{{{ strftime_now('{form}') }}}}: {EACH}{{{{ m.content }}}}{{% endfor %}}"
    day = datetime.datetime(2024, 2, 3).strftime(form)
    assert rendered(template, "hi", date="2024-02-03") == f"\n{day}: hi"
    today = datetime.datetime.now().strftime("%Y")
    assert f"{today}: hi" in rendered(template.replace(form, "%Y"), "hi")


def test_a_date_in_a_macro_with_a_variable():
    template = (
        "{% macro day(form) %}{% if strftime_now is defined %}{{ strftime_now(form) }}{% endif %}"
        "{% endmacro %}{{ day('%Y') }}{{ messages[0].content }}"
    )
    assert rendered(template, "hi", date="2024-02-03") == "2024hi"


def test_who_needs_the_date():
    tokenizer = load_tokenizer("random:toy")
    assert not read_prompt_format(tokenizer, "chat").is_dated
    tokenizer.chat_template = "{{ strftime_now('%Y') }}{{ messages[0].content }}"
    assert read_prompt_format(tokenizer, "chat").is_dated
    assert not read_prompt_format(tokenizer, "Q: {prompt}").is_dated
