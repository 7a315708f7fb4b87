"""Tables of messages, as people have them: one test for each form and each trap of it."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pytest

from paretohqd_jax.commands import run
from paretohqd_jax.data.conversations import as_conversation, messages_of
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.sources import load_pairs, load_rows
from paretohqd_jax.errors import InputError


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


Q, SYSTEM = [user("q")], [system("Be kind.")]
LONG = [*SYSTEM, user("q"), assistant("a"), user("r")]


@pytest.fixture(params=["parquet", "jsonl"])
def table_of(request, tmp_path):
    """Writes rows as a file; records without a key have a null there in parquet."""

    def write(*rows):
        path = tmp_path / f"rows.{request.param}"
        if request.param == "parquet":
            write_table(path, pa.Table.from_pylist(list(rows)))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.mark.parametrize("prompt", [Q, LONG])
@pytest.mark.parametrize("form", ["explicit", "implicit", "repeated", "texts", "without system"])
def test_pairs(table_of, prompt, form):
    before = {"implicit": prompt, "repeated": prompt, "without system":
              [m for m in prompt if m["role"] != "system"]}.get(form, [])  # fmt: skip
    row = {side: [*before, assistant(side)] for side in ("chosen", "rejected")}
    if form == "texts":
        row = {"chosen": "chosen", "rejected": "rejected"}
    if form != "implicit":
        row["prompt"] = prompt
    path = table_of(row | {"score": 1.0})
    [pair] = load_pairs(path).to_pylist()
    assert messages_of(pair["prompt"]) == prompt
    assert (pair["chosen"], pair["rejected"], pair["score"]) == ("chosen", "rejected", 1.0)
    assert load_rows(path)["response"].to_pylist() == ["chosen", "rejected"]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*LONG, assistant("a")]},
        {"prompt": "r", "messages": [*LONG, assistant("a")]},
        {"conversations": [*LONG, assistant("a")]},
        {"prompt": LONG, "completion": [assistant("a")]},
        {"prompt": LONG, "completion": "a"},
        {"prompt": LONG, "response": "a"},
        {"prompt": LONG, "response": assistant("a")},
        {"prompt": LONG[:2], "completion": [*LONG[2:], assistant("a")]},
        {"prompt": "r", "response": [*LONG, assistant("a")]},
        {"messages": [m | {"role": m["role"].title()} for m in [*LONG, assistant("a")]]},
        {"messages": [m | {"name": "x", "weight": 1, "tool_calls": None} for m in
                      [*LONG, assistant("a")]]},
        {"conversations": [
            {"from": {"user": "human", "assistant": "gpt"}.get(m["role"], m["role"]),
             "value": m["content"]} for m in [*LONG, assistant("a")]
        ]},
        {"messages": [m | {"content": [{"type": "text", "text": m["content"][:1]},
                                       {"type": "text", "text": m["content"][1:]}]}
                      for m in [*LONG, assistant("a")]]},
    ],
)  # fmt: skip
def test_rows(table_of, row):
    [found] = load_rows(table_of(row)).to_pylist()
    assert found == {"prompt": as_conversation(LONG), "response": "a", "source_row": 0}


def test_a_prompt_repeated_with_other_blanks_is_the_same(table_of):
    chosen, rejected = [user("q "), assistant("a")], [user("q"), assistant("b")]
    path = table_of({"prompt": "q\n", "chosen": chosen, "rejected": rejected})
    [pair] = load_pairs(path).to_pylist()
    assert messages_of(pair["prompt"]) == [user("q ")] and pair["chosen"] == "a"


def test_texts_stay_texts_and_completions_are_responses(table_of):
    assert load_rows(table_of({"prompt": "q", "completion": "a"})).to_pylist() == [
        {"prompt": "q", "response": "a", "source_row": 0}
    ]


def test_rows_without_an_answer_to_a_user_are_left_out_and_counted(table_of, caplog):
    path = table_of(
        {"messages": LONG},
        {"messages": [assistant("hello")]},
        {"messages": [*SYSTEM, assistant("hello")]},
        {"messages": [assistant("hello"), user("Grüße, 你好"), assistant("a")]},
    )
    with caplog.at_level(logging.INFO):
        [row] = load_rows(path).to_pylist()
    assert messages_of(row["prompt"]) == [assistant("hello"), user("Grüße, 你好")]
    assert row["source_row"] == 3
    assert "3 rows whose last message is not an assistant's answer to a user left" in caplog.text
    with pytest.raises(InputError, match="no row can be used: 1 rows whose last message is not"):
        load_rows(table_of({"messages": LONG}))


def test_a_system_message_in_a_column_of_its_own(table_of):
    turns = [user("q"), assistant("a")]
    path = table_of(
        {"system": "Be glad.", "messages": turns},
        {"system": "Be glad.", "messages": [*SYSTEM, *turns]},
        {"system": None, "messages": [user("r"), assistant("a")]},
    )
    told, own, bare = [messages_of(row["prompt"]) for row in load_rows(path).to_pylist()]
    assert told == [{"role": "system", "content": "Be glad."}, user("q")]
    assert own == [*SYSTEM, user("q")] and bare == [user("r")]


def test_pairs_that_part_before_the_last_message_are_left_out_and_counted(table_of, caplog):
    one, other = [assistant("a")], [assistant("b")]
    path = table_of(
        {"chosen": [*Q, *one, user("r"), *one], "rejected": [*Q, *other, user("r"), *one]},
        {"chosen": [*SYSTEM, *Q, *one], "rejected": [system("Be rude."), *Q, *other]},
        {"chosen": [*SYSTEM, *Q, *one], "rejected": [*SYSTEM, *Q, *other]},
    )
    with caplog.at_level(logging.INFO):
        pairs = load_pairs(path)
    assert pairs["source_row"].to_pylist() == [2]
    assert "2 rows whose conversations differ before the last message left out" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [user("q"), {"role": "tool", "content": "1"}, assistant("a")]},
         r"row 1: messages\[1\] has the role 'tool'; system, user, assistant are read"),
        ({"messages": [user("q"), {"role": None, "content": "1"}]}, "has the role None"),
        ({"messages": [user(None), assistant("a")]},
         r"row 1: messages\[0\] has the content None, not text"),
        ({"messages": [None, assistant("a")]}, r"messages\[0\] is None, not a record"),
        ({"messages": [user("q"), assistant("") | {"tool_calls": [{"name": "f"}]}]},
         r"messages\[1\] calls tools"),
        ({"messages": []}, "row 1: messages is empty"),
        ({"messages": None}, "row 1: messages is empty"),
        ({"messages": [user("q"), assistant(" ")]}, "row 1: response is empty"),
        ({"messages": [user(" "), assistant("a")]}, "row 1: prompt is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(table_of, row, message):
    fine = {"messages": [user("q"), assistant("a")]}
    with pytest.raises(InputError, match=message) as error:
        load_rows(table_of(fine, row))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [], "completion": [assistant("a")]}, "row 1: prompt is empty"),
        ({"prompt": Q, "completion": []}, "row 1: completion is empty"),
        ({"prompt": Q, "completion": [user("other"), assistant("a")]},
         "row 1: completion is not a conversation that goes on from prompt"),
        ({"prompt": [*SYSTEM, *Q], "completion": [system("Be rude."), *Q, assistant("a")]},
         "row 1: completion is not a conversation that goes on from prompt"),
    ],
)  # fmt: skip
def test_prompts_and_responses_that_do_not_fit_are_named(table_of, row, message):
    fine = {"prompt": Q, "completion": [assistant("a")]}
    with pytest.raises(InputError, match=message):
        load_rows(table_of(fine, row))


def test_parts_that_are_no_text_are_named(table_of):
    parts = [{"type": "text", "text": "q"}, {"type": "image", "text": None}]
    with pytest.raises(InputError, match=r"row 0: messages\[0\] has a part 'image'; only parts"):
        load_rows(table_of({"messages": [user(parts), assistant([parts[0]])]}))


def test_lists_of_something_else_are_refused(table_of):
    with pytest.raises(InputError, match="column 'prompt' holds list<.*not text"):
        load_rows(table_of({"prompt": [{"text": "q"}], "response": "a"}))


def test_other_columns_are_renamed_first(table_of):
    path = table_of({"dialog": Q, "answer": [assistant("a")], "prompt": "unlike"})
    [row] = load_rows(path, columns="prompt=dialog,response=answer").to_pylist()
    assert messages_of(row["prompt"]) == Q and row["response"] == "a"


def test_a_text_that_begins_like_a_conversation_is_a_text(table_of):
    texts = ["\x1e[]", "\x1e[1]", '\x1e{"role": "user"}']
    rows = load_rows(table_of(*({"prompt": text, "response": "a"} for text in texts)))
    assert rows["prompt"].to_pylist() == texts


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("options", ["", "--pairs"])
def test_what_convert_wrote_reads_back_as_the_same(tmp_path, options, suffix):
    rows = [
        {"prompt": prompt, "chosen": [assistant("a")], "rejected": [assistant("b")], "score": 1}
        for prompt in (Q, LONG)
    ]
    path, out = tmp_path / "rows.parquet", tmp_path / f"out.{suffix}"
    write_table(path, pa.Table.from_pylist(rows))
    run(["convert", str(path), *options.split(), "--out", str(out)])
    assert read_table(out)["prompt"].to_pylist()[:: 2 - bool(options)] == [Q, LONG]
    load = load_pairs if options else load_rows
    again, before = (load(str(file)).drop_columns("source_row") for file in (out, path))
    assert again.select(before.column_names).equals(before)


def test_conversations_do_not_fit_into_csv(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": Q, "response": "a"}))
    with pytest.raises(InputError, match="out.csv: csv cannot hold the lists .* 'prompt'; write"):
        run(["convert", str(path), "--out", str(tmp_path / "out.csv")])


def test_select_and_rank_write_messages(tmp_path):
    """Of the tables of a run, which hold conversations as texts."""
    path, out = tmp_path / "scored.parquet", str(tmp_path / "out.jsonl")
    scores = {"a": [0.0, 1.0, 2.0], "b": [2.0, 1.0, 0.0]}
    prompts = [as_conversation(LONG), as_conversation(Q), as_conversation(LONG)]
    write_table(path, pa.table({"prompt": prompts, "response": ["x", "y", "z"]} | scores))
    for command in ("rank", "select --preferences 2 -k 1"):
        run([*command.split(), str(path), "--objectives", "a,b", "--out", out])
        found = {row["response"]: row["prompt"] for row in read_table(out).to_pylist()}
        assert found["z"] == LONG and found.get("y", Q) == Q
