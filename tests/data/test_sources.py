from __future__ import annotations

import importlib.resources

import numpy as np
import pytest

from paretohqd_jax.data.overlap import echoed_share, near_duplicates
from paretohqd_jax.data.sources import check_source, load_pairs, load_rows, split_by_prompt
from paretohqd_jax.errors import InputError

ASSETS = importlib.resources.files("paretohqd_jax.data") / "assets"


def rows_of_this_module():
    return [{"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r"}]


def test_a_users_function_is_a_source_and_duplicates_go():
    assert load_rows(f"{__name__}:rows_of_this_module").num_rows == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no.such.module:rows", "cannot import no.such.module"),
        (".relative:rows", "cannot import .relative"),
        (":rows", "package.module:function"),
        (f"{__name__}:", "package.module:function"),
        (f"{__name__}:no_such_function", "has no function 'no_such_function'"),
        ("os:path", "os has no function 'path'"),
    ],
)
def test_a_function_that_cannot_be_found_is_named(source, message):
    with pytest.raises(InputError, match=f"data.source='{source}': .*{message}"):
        load_rows(source)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "returned NoneType"),
        ({"prompt": ["p"], "response": ["r"]}, "returned dict"),
        ([{"prompt": "p", "response": "r"}, "text"], "row 1 is 'text'"),
        ([{"prompt": "p", "response": "r", 3: "x"}], "row 0 is"),
        ([{"prompt": "p", "response": "r"}, {"prompt": 1, "response": "r"}], "make no table"),
        ([], "no rows"),
        (
            [{"prompt": "p", "response": "r"}, {"prompt": "p", "response": "\udc00"}],
            "in row 1: 'response' is '.udc00': half of a surrogate pair is no character",
        ),
    ],
)
def test_a_function_that_returns_no_rows_is_named(rows, message, monkeypatch):
    monkeypatch.setattr(f"{__name__}.rows_of_this_module", lambda: rows)
    with pytest.raises(InputError, match=f"data.source='{__name__}:rows_of_.*{message}") as error:
        load_rows(f"{__name__}:rows_of_this_module")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [load_rows, load_pairs])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["prompt,response,score", "p,a,1", "p,b,2", "p, ,3"], "row 2: response is empty"),
        (["prompt,chosen,rejected", "p,a,b", "p,a,"], "row 1: rejected is empty"),
        (["prompt,chosen,score", "p,a,1"], "no column 'response'; .* has 'prompt', 'chosen', 'sco"),
        (["question,response,score", "p,a,1"], "no column 'prompt'"),
        (["chosen,rejected,score", "a,b,1"], "no column 'prompt'; .* has 'chosen', 'rejected', '"),
    ],
)
def test_an_unfit_text_is_named_by_its_row_in_the_source(tmp_path, load, lines, message):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"rows.csv: {message}"):
        load(str(path))


@pytest.mark.parametrize("answers", [("4", "6"), ("true", "false"), ("2020-01-01", "1999-12-31")])
def test_texts_of_a_csv_stay_texts_whatever_they_look_like(tmp_path, answers):
    path = tmp_path / "rows.csv"
    path.write_text(
        "".join(f"{line}\n" for line in ("prompt,response", *map("p,{}".format, answers)))
    )
    assert load_rows(str(path))["response"].to_pylist() == [*answers]


def test_a_split_holds_out_whole_prompts():
    prompts = [f"prompt {i % 7}" for i in range(50)]
    held_out = split_by_prompt(prompts, 3, seed=1)
    outside = {p for p, out in zip(prompts, held_out, strict=True) if not out}
    inside = {p for p, out in zip(prompts, held_out, strict=True) if out}
    assert len(inside) == 3 and len(outside) == 4 and not inside & outside
    assert (held_out == split_by_prompt(prompts, 3, seed=1)).all()
    assert any((held_out != split_by_prompt(prompts, 3, seed=s)).any() for s in range(2, 6))


def test_holding_out_everything_is_refused():
    with pytest.raises(InputError, match="only 2 different prompts"):
        split_by_prompt(["a", "b", "a"], 2, seed=0)


def test_the_embedded_rows_are_what_the_page_of_data_says():
    table = load_rows("quickstart")
    prompts, responses = table["prompt"].to_pylist(), table["response"].to_pylist()
    assert table.num_rows >= 2500 and len(set(prompts)) >= 240
    assert set(prompts) <= {*(ASSETS / "quickstart_prompts.txt").read_text().splitlines()}
    assert (ASSETS / "quickstart.parquet").stat().st_size < 1e6
    words = np.array([len(response.split()) for response in responses])
    assert words.min() >= 6 and np.quantile(words, 0.9) >= 40
    assert max(map(echoed_share, prompts, responses)) <= 0.5
    assert not any(near_duplicates(prompts, responses, 0.7))


def test_columns_that_become_texts_are_texts_in_a_csv(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.csv").write_text("question,answer\n7,2024-01-01\n1.50,NA\n")
    rows = load_rows("~/rows.csv", columns="prompt=question,response=answer")
    assert rows["prompt"].to_pylist() == ["7", "1.50"]
    assert rows["response"].to_pylist() == ["2024-01-01", "NA"]
    check_source("~/rows.csv")
    with pytest.raises(InputError, match="source_row counts the source's rows"):
        load_rows("~/rows.csv", columns="source_row=answer")
