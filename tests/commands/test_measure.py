"""`paretohqd measure --robustness` and `inspect --models` with scorers whose weakness is known."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import write_table
from paretohqd_jax.main import console

SCORERS = '''
def late_z(prompts, responses):
    """Fooled by the order of words alone."""
    return [response.rfind("z") for response in responses]


def whole(prompts, responses):
    """Knows the one right answer to each prompt."""
    texts = zip(prompts, responses)
    return [float(response.endswith(f"of {prompt}.")) for prompt, response in texts]
'''


@pytest.fixture
def rows(tmp_path, monkeypatch):
    (tmp_path / "judges.py").write_text(SCORERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [
        {"prompt": f"q{i}", "response": f"zz begins it. This is the {j} answer of q{i}.",
         "a": i + j, "b": -i * j}
        for i in range(40) for j in range(2)
    ]  # fmt: skip
    write_table("rows.jsonl", pa.Table.from_pylist(rows))
    return rows


def measured(*arguments):
    console(["paretohqd", "measure", *arguments, "--robustness", "--json", "out.json"])
    with open("out.json") as file:
        return json.load(file)["robustness"]


def test_any_scorer_on_rows_and_on_pairs(rows, capsys):
    figures = measured("judges:whole", "rows.jsonl")
    assert figures["other_prompt"]["preferred"] == 1 and figures["other_prompt"]["num_pairs"] == 40
    assert figures["cut"]["verdict"] == figures["echo"]["verdict"] == "sound"
    assert "temperature_2" not in figures
    assert "an answer to another prompt         1.000  [1.000, 1.000]" in capsys.readouterr().out
    assert measured("judge=judges:late_z", "rows.jsonl")["shuffled"]["verdict"] == "fooled"
    pairs = [
        {"prompt": row["prompt"], "chosen": row["response"], "rejected": "no"} for row in rows[::2]
    ]
    write_table("pairs.jsonl", pa.Table.from_pylist(pairs))
    assert measured("judges:whole", "pairs.jsonl")["cut"]["preferred"] == 1
    assert measured("judges:whole", "pairs.jsonl", "--num-prompts", "19")["cut"]["verdict"] == (
        "too few pairs"
    )


def test_texts_at_temperature_2_of_the_same_prompts(rows):
    noise = [{"prompt": f"q{i}", "response": f"qua of q{i}."} for i in range(25)]
    write_table("noise.csv", pa.Table.from_pylist(noise))
    figures = measured("judges:whole", "rows.jsonl", "--temperature-2", "noise.csv")
    found = figures["temperature_2"]
    assert (found["num_pairs"], found["num_skipped"], found["preferred"]) == (25, 15, 0.5)


def test_inspect_warns_of_a_model_that_is_fooled(rows, capsys):
    command = ["paretohqd", "inspect", "rows.jsonl", "--objectives", "a,b"]
    console([*command, "--models", "z=judges:late_z,judges:whole"])
    lines = capsys.readouterr().out.splitlines()
    [warning] = [line for line in lines if line.startswith("warning: z: fooled by its words sh")]
    assert "of 40 prompts, 95 % are due" in warning
    prompt, answer, copy = lines[lines.index(warning) + 1 :][:3]
    assert prompt.split()[0] == "prompt" and "'zz begins it." in answer
    assert float(answer.split()[0]) < float(copy.split()[0])
    assert not any(line.startswith("warning: judges:whole: fooled by its words") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["measure", "nobody", "rows.jsonl", "--robustness"], "unknown reward model 'nobody'"),
        (["measure", "brief", "rows.jsonl"], "no reward model that was trained here"),
        (["measure", "brief", "rows.jsonl", "--robustness", "--temperature-2", "rows.txt"],
         "rows.txt: no such file"),
        (["inspect", "rows.jsonl", "--objectives", "a,b", "--models", "nobody"],
         "unknown reward model 'nobody'"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(rows, capsys, arguments, message):
    with pytest.raises(SystemExit):
        console(["paretohqd", *arguments])
    assert message in capsys.readouterr().err
