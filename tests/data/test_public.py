"""Each public set on a few rows in its original fields, one test for each trap of it."""

from __future__ import annotations

import gzip
import json
import logging

import pyarrow as pa
import pytest

from paretohqd_jax.data.conversations import (
    as_conversation,
    messages_of,
    transcript,
)
from paretohqd_jax.data.conversations import (
    dialogue as dialogue_of,
)
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.sources import load_pairs, load_rows
from paretohqd_jax.errors import InputError


def read(format, rows):
    return PUBLIC_FORMATS[format](pa.Table.from_pylist(rows), "published").to_pylist()


def dialogue(*turns):
    speakers = ("\n\nHuman: ", "\n\nAssistant: ")
    return "".join(speakers[number % 2] + turn for number, turn in enumerate(turns))


def conversation(*turns):
    roles = ("user", "assistant")
    return as_conversation(
        [{"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns)]
    )


HH = [
    {
        "chosen": dialogue("Hi", "Hello", "How?", "So."),
        "rejected": dialogue("Hi", "Hello", "How?", "No!"),
    },
    # The prompts differ, and the rejected one is longer: cut at the chosen prompt's length it would
    # begin in the middle of a word.
    {"chosen": dialogue("A", "ok"), "rejected": dialogue("A", "B", "C", "bad")},
    {"chosen": dialogue("Why?", ""), "rejected": dialogue("Why?", "Because.")},  # empty response
    # What the human says next is no part of the response.
    {"chosen": dialogue("x", "the ", "next?"), "rejected": dialogue("x", "r ")},
]


def test_hh_is_split_at_the_last_answer_of_each_side(caplog):
    with caplog.at_level(logging.INFO):
        pairs = read("hh", HH)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in pairs] == [
        (conversation("Hi", "Hello", "How?"), "So.", "No!"),
        (conversation("x"), "the", "r"),
    ]
    assert [row["source_row"] for row in pairs] == [0, 3]
    assert "1 pairs with different prompts left out" in caplog.text
    assert "1 rows with an empty text left out" in caplog.text


@pytest.mark.parametrize(
    "prompt",
    [
        dialogue("Hi"),
        dialogue("Hi", "Hello", "How?"),
        dialogue("  Hi ", "", 'Say "Human: x"\n\n- ü\u2028', "a\n", "b"),
        "Be kind." + dialogue("Hi"),
        "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d",
    ],
)
def test_prompts_of_hh_are_conversations_with_the_text_that_was_published(prompt):
    [row] = read("hh", [{"chosen": f"{prompt}\n\nAssistant: {a}", "rejected":
                         f"{prompt}\n\nAssistant: {b}"} for a, b in ["yn"]])  # fmt: skip
    assert dialogue_of(messages_of(row["prompt"])) == prompt.replace(": \n", ":\n")
    assert (row["chosen"], row["rejected"]) == ("y", "n")


def test_a_dialogue_of_one_turn_is_a_bare_question_to_readers():
    [row] = read("hh", [{"chosen": dialogue("Hi", "a"), "rejected": dialogue("Hi", "b")}])
    assert messages_of(row["prompt"]) == [{"role": "user", "content": "Hi"}]
    assert transcript(row["prompt"]) == "Hi"


def test_pairs_of_equal_responses_and_answers_to_nobody_are_left_out(tmp_path, caplog):
    rows = [
        {"chosen": dialogue("Hi", "same"), "rejected": dialogue("Hi", "same ", "and?")},
        {"chosen": dialogue("Hi", "a"), "rejected": dialogue("Hi", "b")},
        {side: dialogue("Hi", "a") + f"\n\nAssistant: {side}" for side in ("chosen", "rejected")},
    ]
    path = tmp_path / "hh.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.INFO):
        pairs = load_pairs(str(path), "hh")
    assert pairs["source_row"].to_pylist() == [1]
    assert "1 pairs of two equal responses left out" in caplog.text
    assert "1 pairs whose responses answer no human left out" in caplog.text
    path.write_text(json.dumps(rows[0]))
    with pytest.raises(InputError, match="hh.jsonl: chosen and rejected are the same text in ever"):
        load_pairs(str(path), "hh")


def test_pairs_of_mixed_prompts_alone_are_refused():
    with pytest.raises(InputError, match="published: chosen and rejected have different prompts"):
        read("hh", HH[1:2])


def test_hh_from_its_gzipped_files_as_rows_and_as_pairs(tmp_path):
    path = tmp_path / "harmless-base.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in HH)
    pairs = load_pairs(str(path), "hh", "harmless=preferred")
    assert pairs["harmless"].to_pylist() == [1, 1]
    rows = load_rows(str(path), "hh")
    assert rows["response"].to_pylist() == ["So.", "No!", "the", "r"]
    assert rows["source_row"].to_pylist() == [0, 0, 3, 3]


def test_the_red_team_file_of_hh_has_other_fields():
    with pytest.raises(InputError, match="published: no column 'chosen', 'rejected'"):
        read("hh", [{"transcript": dialogue("a", "b"), "rating": 1.0}])


def test_a_text_that_is_no_dialogue_is_named():
    with pytest.raises(InputError, match="published: row 1: rejected has no .*Assistant"):
        read("hh", [HH[0], {"chosen": HH[0]["chosen"], "rejected": "So."}])


def comparison(post, choice, id="t3_1", texts=(" first", "second\nline ")):
    """A row of `comparisons`; news have an article in place of a post."""
    info = {"id": id, "post": post, "title": "t", "subreddit": "r", "site": None}
    summaries = [{"text": text, "policy": "sup2", "note": "ok"} for text in texts]
    return {
        "info": info | {"article": None if post else "CNN"},
        "summaries": summaries,
        "choice": choice,
        "worker": "w",
        "batch": "b",
        "split": "train",
        "extra": {"confidence": None},
    }


def test_summaries_are_chosen_by_the_index_and_news_have_no_post(caplog):
    with caplog.at_level(logging.INFO):
        pairs = read("summarize", [comparison("A post.\nMore.", 1), comparison(None, 0)])
    assert pairs == [
        {"prompt": "A post. More.", "chosen": "second line", "rejected": "first", "preferred": 1,
         "source_row": 0}
    ]  # fmt: skip
    assert "1 rows with an empty text left out" in caplog.text


def test_comparisons_of_one_post_share_their_prompt_and_no_summary_is_there_twice(tmp_path):
    rows = [comparison("post", 0), comparison("post", 1, texts=("second line", "third"))]
    path = tmp_path / "comparisons.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = load_rows(str(path), "summarize")
    assert set(table["prompt"].to_pylist()) == {"post"}
    assert table["response"].to_pylist() == ["first", "second line", "third"]


@pytest.mark.parametrize("choice", [2, None, -1])
def test_a_choice_that_is_none_of_two_is_named(choice):
    with pytest.raises(InputError, match=f"published: row 1: choice is {choice}, not 0 or 1"):
        read("summarize", [comparison("post", 0), comparison("post", choice)])


def safe_rlhf(better, safer):
    responses = {"response_0": "zero", "response_1": "one"}
    safe = {"is_response_0_safe": True, "is_response_1_safe": False}
    ids = {"better_response_id": better, "safer_response_id": safer}
    return {"prompt": "p"} | responses | safe | ids


def test_safe_rlhf_has_two_labels_that_conflict_where_the_ids_differ():
    pairs = read("safe_rlhf", [safe_rlhf(0, 0), safe_rlhf(1, 0), safe_rlhf(1, 1)])
    found = [(row["chosen"], row["rejected"], row["helpful"], row["harmless"]) for row in pairs]
    assert found == [("zero", "one", 1, 1), ("one", "zero", 1, -1), ("one", "zero", 1, 1)]


def test_an_unknown_winner_is_named():
    with pytest.raises(InputError, match="row 0: safer_response_id is 3, not 0 or 1"):
        read("safe_rlhf", [safe_rlhf(0, 3)])


def test_beavertails_counts_the_annotators_who_disagree():
    rows = [
        {"prompt": "p", "response": response, "category": {"violence": not safe}, "is_safe": safe}
        for response, safe in [("a", True), ("b", False), ("a", False), ("a", True), ("a", True)]
    ]
    assert read("beavertails", rows) == [
        {"prompt": "p", "response": "a", "safe": 0.75, "source_row": 0},
        {"prompt": "p", "response": "b", "safe": 0.0, "source_row": 1},
    ]


def helpsteer(prompt, response, *scores):
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response} | dict(zip(names, scores, strict=True))


HELPSTEER = [
    helpsteer("p", "a", 4, 4, 4, 1, 1),
    helpsteer("p", "b", 3, 4, 4, 2, 0),
    helpsteer("q", "c", 1, 1, 1, 1, 1),
    helpsteer("q", "d", 1, 1, 1, 1, 1),  # ties with c on everything
    helpsteer("p", "e", 4, 4, 4, 1, 2),  # apart from the other rows of its prompt
]


@pytest.fixture
def helpsteer_file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in HELPSTEER))
    return str(path)


def test_helpsteer_scores_and_their_sum():
    row = read("helpsteer", HELPSTEER)[0]
    assert row == HELPSTEER[0] | {"overall": 14, "source_row": 0}


def test_a_prompt_is_one_group_wherever_its_rows_stand_and_ties_are_no_pairs(helpsteer_file):
    pairs = load_pairs(helpsteer_file, "helpsteer").to_pylist()
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [
        ("a", "b"),
        ("e", "a"),
        ("e", "b"),
    ]
    a_b = {
        name: pairs[0][name] for name in ("helpfulness", "correctness", "complexity", "verbosity")
    }
    assert a_b == {"helpfulness": 1, "correctness": 0, "complexity": -1, "verbosity": 1}
    assert [row["overall"] for row in pairs] == [1, 1, 1]


HELPSTEER2 = (
    "Hi\n<extra_id_1>Assistant\nHello <b>\n\nyou\n<extra_id_1>User\nA joke\n<extra_id_1>Assistant\n"
)


def test_helpsteers_turn_markers_make_a_dialogue(caplog):
    scores = (4, 4, 4, 1, 1)
    rows = [
        helpsteer(prompt, "a", *scores)
        for prompt in (
            HELPSTEER2,
            "<extra_id_0>System\nBe kind.\n<extra_id_1>User\nHi",
            "what is <extra_id_1>?",
            "Hi\n<extra_id_1>Assistant\nHello",  # nobody is asked
        )
    ]
    with caplog.at_level(logging.INFO):
        prompts = [row["prompt"] for row in read("helpsteer", rows)]
    system = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert prompts == [
        conversation("Hi", "Hello <b>\n\nyou", "A joke"),
        as_conversation(system),
        "what is <extra_id_1>?",
    ]
    assert "1 rows with an empty text left out" in caplog.text


def test_prompts_of_one_table_are_all_conversations_or_all_texts(tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [helpsteer("p", "a", 4, 4, 4, 1, 1), helpsteer(HELPSTEER2, "b", 4, 4, 4, 1, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = load_rows(str(path), "helpsteer")["prompt"].to_pylist()
    assert prompts == [conversation("p"), conversation("Hi", "Hello <b>\n\nyou", "A joke")]
    path.write_text(json.dumps(rows[0]))
    assert load_rows(str(path), "helpsteer")["prompt"].to_pylist() == ["p"]


def preference(strength, prompt="p"):
    return {"prompt": prompt, "response_1": "one", "response_2": "two",
            "preference_strength": strength, "all_preferences_unprocessed": []}  # fmt: skip


def test_helpsteers_preferences_are_for_the_second_response_above_zero():
    pairs = read("helpsteer2_preference", [preference(s) for s in (-2, 3, 0, None)])
    assert [(row["chosen"], row["preferred"]) for row in pairs] == [
        ("one", 1), ("two", 1), ("one", 0), ("one", 0)
    ]  # fmt: skip
    [row] = read("helpsteer2_preference", [preference(1, HELPSTEER2)])
    assert row["prompt"] == conversation("Hi", "Hello <b>\n\nyou", "A joke")
    with pytest.raises(InputError, match="row 0: preference_strength is -100, not from -3 to 3"):
        read("helpsteer2_preference", [preference(-100)])


def test_helpsteer3_has_conversations():
    messages = messages_of(conversation("Hi", "Hello", "Why?"))
    row = {"domain": "general", "context": messages, "response1": "one", "response2": "two",
           "overall_preference": 1, "individual_preference": [{"score": 1}]}  # fmt: skip
    [pair] = read("helpsteer3", [row])
    assert pair["prompt"] == as_conversation(messages)
    assert (pair["chosen"], pair["rejected"], pair["preferred"]) == ("two", "one", 1)
    tool = [{"role": "tool", "content": "x"}]
    with pytest.raises(InputError, match=r"row 0: context\[0\] has the role 'tool'"):
        read("helpsteer3", [row | {"context": tool}])


def completion(response, *ratings, overall=7.5):
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    annotations = {
        aspect: {"Rating": rating, "Rationale": "..."}
        for aspect, rating in zip(aspects, ratings, strict=True)
    }
    return {"model": "m", "response": response, "annotations": annotations,
            "critique": "", "fine-grained_score": 1.0, "overall_score": overall}  # fmt: skip


ULTRAFEEDBACK = [
    {
        "source": "evol_instruct", "instruction": "Do it", "models": ["m"] * 4,
        "completions": [
            completion("a", "5", "N/A", "5", "10"), completion("b", "4", "5", "5", "9"),
            completion("c", "1", "1", "1", "N/A"), completion("d", "2", "2", "2", "2"),
            completion(" ", "2", "2", "2", "2"),
        ],
        "correct_answers": ["None"], "incorrect_answers": ["None"],
    }
]  # fmt: skip


def test_ultrafeedback_ratings_are_numbers_and_not_available_is_missing(caplog):
    with caplog.at_level(logging.INFO):
        rows = read("ultrafeedback", ULTRAFEEDBACK)
    assert [row["response"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["honesty"] for row in rows] == [None, 5.0, 1.0, 2.0]
    assert [row["helpfulness"] for row in rows] == [10.0, 9.0, None, 2.0]  # not "9" > "10"
    assert rows[0]["overall"] == 7.5
    assert "1 rows with an empty text left out" in caplog.text


def test_an_overall_score_of_ten_that_was_one_is_mended(caplog):
    completions = [
        completion("bad", "1", "1", "2", "1", overall=10.0) | {"fine-grained_score": 1.25},
        completion("best", "5", "5", "5", "5", overall=10.0) | {"fine-grained_score": 5.0},
        completion("unrated", "N/A", "N/A", "N/A", "N/A", overall=10.0)
        | {"fine-grained_score": 0.0},
        completion("older", "1", "N/A", "2", "1", overall=10) | {"fine-grained_score": None},
    ]
    rows = read("ultrafeedback", [{"instruction": "i", "completions": completions}])
    assert [row["overall"] for row in rows] == [1.0, 10.0, 10.0, 1.0]
    assert "2 overall scores of 10 beside ratings of 2 or less" in caplog.text


def binarized(chosen, rejected, better=8.0, worse=2.0, prompt="q"):
    asked = [{"role": "user", "content": "q"}]
    sides = {
        side: [*asked, {"role": "assistant", "content": text}]
        for side, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {"prompt": prompt, "prompt_id": "0", **sides, "messages": sides["chosen"],
            "score_chosen": better, "score_rejected": worse}  # fmt: skip


def test_ultrafeedback_binarized_is_labelled_by_its_scores():
    rows = [binarized("a", "b"), binarized("c", "d", 5.0, 5.0), binarized("e", "f", 1.0, None)]
    pairs = read("ultrafeedback_binarized", rows)
    assert [(row["chosen"], row["rejected"], row["preferred"]) for row in pairs] == [
        ("a", "b", 1), ("c", "d", 0), ("e", "f", 0)
    ]  # fmt: skip
    assert {row["prompt"] for row in pairs} == {conversation("q")}
    implicit = [{key: value for key, value in rows[0].items() if key != "prompt"}]
    assert read("ultrafeedback_binarized", implicit) == pairs[:1]


def test_ultrafeedback_has_six_pairs_with_no_label_where_a_rating_is_missing(tmp_path):
    path = tmp_path / "evol_instruct.jsonl"
    path.write_text(json.dumps(ULTRAFEEDBACK[0]))
    pairs = load_pairs(str(path), "ultrafeedback").to_pylist()
    assert len(pairs) == 6
    labels = {(row["chosen"], row["rejected"]): row for row in pairs}
    assert labels["a", "b"]["instruction_following"] == 1
    assert labels["a", "b"]["honesty"] == labels["a", "b"]["truthfulness"] == 0
    assert labels["d", "c"]["helpfulness"] == 0 and labels["d", "c"]["honesty"] == 1


def test_messages_count_the_rows_that_were_published(tmp_path):
    path = tmp_path / "evol_instruct.jsonl"
    other = ULTRAFEEDBACK[0] | {"instruction": "another"}
    path.write_text("\n".join(json.dumps(row) for row in (ULTRAFEEDBACK[0], other)))
    with pytest.raises(InputError, match="row 0: 'honesty' is missing"):
        load_rows(str(path), "ultrafeedback", scores="honest=honesty")
    plain = {"instruction": "x", "completions": [completion("a", "5", "5", "5", "5")] * 3}
    path.write_text("\n".join(json.dumps(row) for row in (plain, other)))
    with pytest.raises(InputError, match="row 1: 'honesty' is missing"):
        load_rows(str(path), "ultrafeedback", scores="honest=honesty")
    with pytest.raises(InputError, match="row 0: 'instruction_following' is 5.0, no probability"):
        load_rows(str(path), "ultrafeedback", scores="honest=log_odds(instruction_following)")


def test_a_rating_that_is_no_number_is_named():
    rows = [{"instruction": "i", "completions": [completion("a", "5", "five", "5", "5")]}]
    with pytest.raises(InputError, match="row 0: honesty.Rating is 'five', not a number"):
        read("ultrafeedback", rows)


def test_ric_prompts_lose_their_end_and_rounded_scores_are_warned_of(caplog):
    rows = [
        {
            "text": "...", "prompt": dialogue("Hi") + " \n\nAssistant:", "response": "Hello",
            "input_ids": [1, 2], "query": "...", "score1": 0.4933, "score2": -0.0107,
            "prompt_with_score": "...",
        }
    ]  # fmt: skip
    assert read("ric", rows) == [
        {"prompt": dialogue("Hi"), "response": "Hello", "score1": 0.4933, "score2": -0.0107,
         "source_row": 0}
    ]  # fmt: skip
    assert "rounded to 0.1" in caplog.text and "score the rows again" in caplog.text


@pytest.mark.parametrize("format", PUBLIC_FORMATS)
def test_a_table_of_another_set_is_refused_with_the_fields_it_lacks(format):
    with pytest.raises(InputError, match="published: no column .*; the file has 'question'"):
        read(format, [{"question": "?"}])


def test_nothing_but_empty_texts_is_an_error():
    with pytest.raises(InputError, match="no row has a prompt, response; is config.data.format"):
        read("helpsteer", [helpsteer(" ", "a", 1, 1, 1, 1, 1)])


@pytest.mark.parametrize(
    ("format", "row", "message"),
    [
        ("summarize", comparison("post", 0) | {"summaries": None}, "has 0 summaries, not 2"),
        ("summarize", comparison("post", 0) | {"summaries": ["a", "b"]}, "summaries is 'a', not a"),
        ("summarize", comparison("post", 0) | {"info": "t3_1"}, "info is 't3_1', not a record"),
        ("ultrafeedback", {"instruction": "i", "completions": ["a"]}, "completions is 'a', not a"),
        ("ultrafeedback", {"instruction": 5, "completions": []}, "instruction is 5, not text"),
        ("helpsteer", helpsteer(["p"], "a", 4, 4, 4, 1, 1), r"prompt is \['p'\], not text"),
        ("beavertails", {"prompt": [1], "response": "a", "is_safe": True}, r"is \[1\], not text"),
        ("safe_rlhf", safe_rlhf(0, 0) | {"response_1": 7}, "response_1 is 7, not text"),
        ("ric", {"prompt": 1.5, "response": "a", "score1": 0.1}, "prompt is 1.5, not text"),
    ],
)
def test_a_field_of_another_kind_is_named(format, row, message):
    with pytest.raises(InputError, match=f"published: row 0: .*{message}"):
        read(format, [row])


def test_a_missing_score_makes_the_overall_missing_and_a_missing_text_leaves_the_row_out():
    rows = [helpsteer("p", "a", 4, 4, 4, 1, None), helpsteer("q", None, 4, 4, 4, 1, 1)]
    [row] = read("helpsteer", rows)
    assert row["prompt"] == "p" and row["overall"] is None
