"""The command line: what a user types, and what a user's mistake gets back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.commands import sample as sample_command
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.main import console
from paretohqd_jax.models.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[1]


def error_line(capsys, argv) -> str:
    """What a command that must fail prints: one line, and exit status 2."""
    with pytest.raises(SystemExit) as stop:
        console(["paretohqd", *map(str, argv)])
    assert stop.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == 1, errors
    assert not any("Traceback" in line for line in errors)
    return errors[-1]


@pytest.fixture
def scores(tmp_path):
    """Three hundred scored rows, as a path."""
    rewards = np.random.default_rng(0).normal(size=(300, 2))
    path = tmp_path / "scores.csv"
    table = {"prompt": [f"p{i}" for i in range(300)], "helpful": rewards[:, 0]}
    write_table(path, pa.table(table | {"harmless": rewards[:, 1]}))
    return path


def test_rank_tells_large_integers_apart(tmp_path):
    path, out = tmp_path / "scores.csv", tmp_path / "ranked.csv"
    write_table(path, pa.table({"a": [2**53, 2**53 + 1], "b": [2**60, 2**60 + 1]}))
    console(["paretohqd", "rank", str(path), "--objectives", "a,b", "--out", str(out)])
    assert read_table(out)["rank"].to_pylist() == [1, 0]


def test_integers_beyond_int64_stay_apart(tmp_path):
    path, out = tmp_path / "scores.csv", tmp_path / "ranked.csv"
    path.write_text("a,b\n9223372036854775808,1\n9223372036854775809,2\n")
    console(["paretohqd", "rank", str(path), "--objectives", "a,b", "--out", str(out)])
    assert read_table(out)["rank"].to_pylist() == [1, 0]
    path.write_text("a,b\n18446744073709551616,1\n18446744073709551617,2\n")
    with pytest.raises(SystemExit):
        console(["paretohqd", "rank", str(path), "--objectives", "a,b", "--out", str(out)])


@pytest.mark.parametrize(
    ("command", "objectives", "column"),
    [
        (["rank"], "rank,a", "rank"),
        (["select", "-k", "1", "--preferences", "2"], "a,b", "row_id"),
    ],
)
def test_columns_of_the_users_are_not_lost(tmp_path, capsys, command, objectives, column):
    path, out = tmp_path / "scores.parquet", tmp_path / "out.csv"
    write_table(path, pa.table({column: [5, 6], "a": [1.0, 2.0], "b": [2.0, 1.0]}))
    argv = [*command, path, "--objectives", objectives, "--out", out]
    assert f"has a column '{column}', and so has the output" in error_line(capsys, argv)
    assert not out.exists()


@pytest.mark.parametrize(
    "command",
    [["inspect", "--plot", "plot.png"], ["select", "-k", "1", "--out", "out.csv"],
     ["hypervolume", "--reference", "0,0"]],
)  # fmt: skip
@pytest.mark.parametrize("values", [[1e308, -1e308], [5e-324, 0.0]])
def test_rewards_of_extreme_size_are_refused(tmp_path, capsys, monkeypatch, command, values):
    monkeypatch.chdir(tmp_path)
    write_table("scores.parquet", pa.table({"a": values, "b": values[::-1]}))
    argv = [*command, "scores.parquet", "--objectives", "a,b"]
    assert "scores.parquet: objective 'a' goes from" in error_line(capsys, argv)


def test_home_directories_and_what_cannot_be_written(scores, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    argv = ["rank", "~/scores.csv", "--objectives", "helpful,harmless", "--out"]
    console(["paretohqd", *argv, "~/ranked.csv"])
    assert (tmp_path / "ranked.csv").is_file()
    assert "cannot be written in /proc" in error_line(capsys, [*argv, "/proc/x.parquet"])


def select(scores, *options):
    return ["select", scores, "--objectives", "helpful,harmless", *options]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_select_writes_the_nearest_rows_with_their_columns(scores, tmp_path, capsys, suffix):
    from paretohqd_jax.pareto import preference_grid
    from paretohqd_jax.pareto import select as select_rows

    out, plot = tmp_path / f"selection{suffix}", tmp_path / "front.png"
    argv = select(scores, "--preferences", "5", "-k", "7", "--pool", "60", "--out", out)
    console(["paretohqd", *map(str, argv), "--plot", str(plot)])
    table = read_table(scores)
    rewards = np.stack([table[name].to_numpy() for name in ("helpful", "harmless")], axis=1)
    expected = select_rows(rewards, preference_grid(5), 7, 60)
    rows = read_table(out)
    assert rows["row_id"].to_pylist() == np.asarray(expected.row_ids).ravel().tolist()
    assert rows["preference_id"].to_pylist() == np.repeat(range(5), 7).tolist()
    assert rows["prompt"].to_pylist() == [f"p{i}" for i in rows["row_id"].to_pylist()]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "7 rows for each of 5 preferences" in capsys.readouterr().out


def test_select_by_the_weighted_sum(scores, tmp_path):
    from paretohqd_jax.pareto import preference_grid
    from paretohqd_jax.pareto import select as select_rows

    out = tmp_path / "selection.parquet"
    options = ["--preferences", "3", "-k", "7", "--pool", "60", "--rule", "weighted_sum"]
    console(["paretohqd", *map(str, select(scores, *options, "--out", out))])
    table = read_table(scores)
    rewards = np.stack([table[name].to_numpy() for name in ("helpful", "harmless")], axis=1)
    expected = select_rows(rewards, preference_grid(3), 7, 60, rule="weighted_sum")
    assert read_table(out)["row_id"].to_pylist() == np.asarray(expected.row_ids).ravel().tolist()


def test_select_by_the_chebyshev_distance_from_all_rows(scores, tmp_path, capsys):
    from paretohqd_jax.pareto import preference_grid, smallest_chebyshev_distance

    out = tmp_path / "selection.parquet"
    options = ["--preferences", "3", "-k", "7", "--rule", "chebyshev", "--augmentation", "0.2"]
    console(["paretohqd", *map(str, select(scores, *options, "--out", out))])
    table = read_table(scores)
    rewards = np.stack([table[name].to_numpy() for name in ("helpful", "harmless")], axis=1)
    expected, _ = smallest_chebyshev_distance(
        rewards, preference_grid(3), 7, rewards.min(axis=0), rewards.max(axis=0), augmentation=0.2
    )
    assert read_table(out)["row_id"].to_pylist() == expected.ravel().tolist()
    assert "from a pool of 300 in" in (printed := capsys.readouterr().out)
    assert "fewer than a pool" not in printed


def test_select_among_rows_that_pass_the_gates(scores, tmp_path, capsys):
    from paretohqd_jax.pareto import preference_grid
    from paretohqd_jax.pareto import select as select_rows

    out, table = tmp_path / "selection.parquet", read_table(scores)
    rewards = np.stack([table[name].to_numpy() for name in ("helpful", "harmless")], axis=1)
    low, high = np.quantile(rewards, (0.2, 0.9), axis=0)
    passed = np.flatnonzero((rewards[:, 0] >= low[0]) & (rewards[:, 1] < high[1]))
    options = ["--preferences", "3", "-k", "7", "--pool", "60"]
    gates = ["--gate", f"helpful >= {low[0]}", "--gate", f"harmless<{high[1]}"]
    console(["paretohqd", *map(str, select(scores, *options, *gates, "--out", out))])
    expected = passed[select_rows(rewards[passed], preference_grid(3), 7, 60).row_ids]
    assert read_table(out)["row_id"].to_pylist() == expected.ravel().tolist()
    printed = capsys.readouterr().out
    assert f"{len(passed)} rows to select from; of 300 rows the gate helpful>=" in printed


@pytest.mark.parametrize(("rule", "warns"), [("ray", True), ("chebyshev", False)])
def test_select_says_where_layers_make_no_pool(tmp_path, capsys, rule, warns):
    scores, names = tmp_path / "scores.csv", "abcde"
    rewards = np.random.default_rng(0).normal(size=(300, 5))
    write_table(scores, pa.table(dict(zip(names, rewards.T, strict=True))))
    options = ["--objectives", ",".join(names), "--preferences", "5", "-k", "4", "--rule", rule]
    console(["paretohqd", "select", str(scores), *options, "--out", str(tmp_path / "out.csv")])
    advice = "rows, more than the pool of 20 that is wanted: poor rows are in it"
    assert (advice in capsys.readouterr().out) == warns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "chebyshev", "--augmentation", "-1"], "augmentation: -1.0; give a finite"),
        (["--rule", "chebyshev", "--min-gap", "0"], "min_gap: 0.0; give a finite number above 0"),
        (["--rule", "ray", "--min-gap", "0"], "min_gap: 0.0; give a finite number above 0"),
        (["--gate", "helpful"], "--gate: 'helpful' is no gate; write a name, one of >=, <="),
        (["--gate", "kind>0"], "no column 'kind'; the file has"),
        (
            ["--gate", "helpful>99"],
            "fewer than k=100; of 300 rows the gate helpful>99 takes 300 (300 alone); lower",
        ),
        (["--rule", "sum"], "--rule: invalid choice: 'sum'"),
        (["-k", "301"], "300 rows, fewer than k=301"),
        (["-k", "5", "--pool", "4"], "--pool"),
        (["--preferences", "0.9,0.3"], "preference"),
        (["--preferences", "spiral"], "spiral"),
        (["--preferences", "-0.5,1.5"], "preferences: row 0 is [-0.5, 1.5]; give weights >= 0"),
        (["--objectives", "helpful,helpful"], "--objectives helpful,helpful: name each"),
        (["-k", "0"], "-k: '0' is not a whole number of 1 or more"),
        (["-k", "ten"], "-k: 'ten' is not a whole number of 1 or more"),
        (["--pol", "9"], "unknown option --pol; did you mean --pool? see paretohqd select --help"),
    ],
)
def test_select_refuses_what_it_cannot_do(scores, tmp_path, capsys, options, message):
    out = tmp_path / "out.parquet"
    assert message in error_line(capsys, select(scores, *options, "--out", out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, 1.0, 1.0], "'harmless' is 1.0 in every row"),
        ([1.0, float("nan"), 2.0], "row 1: 'harmless' is nan"),
        (["1", "2", "high"], "row 2: 'harmless' is 'high', not a number"),
    ],
)
def test_select_names_the_row_that_is_wrong(tmp_path, capsys, column, message):
    path = tmp_path / "scores.parquet"
    write_table(path, pa.table({"helpful": [0.0, 1.0, 2.0], "harmless": column}))
    options = ["-k", "2", "--preferences", "2", "--out", tmp_path / "out.csv"]
    assert message in error_line(capsys, select(path, *options))


@pytest.mark.parametrize("pool", [[], ["--pool", "500"]])
def test_select_takes_all_rows_where_the_pool_wants_more(scores, tmp_path, capsys, recwarn, pool):
    options = ["-k", "100", "--preferences", "5", *pool, "--out", tmp_path / "out.parquet"]
    console(["paretohqd", *map(str, select(scores, *options))])
    assert "has 300 rows, fewer than a pool of 500" in (out := capsys.readouterr().out)
    assert "from a pool of 300" in out
    assert not any("pool" in str(warning.message) for warning in recwarn)


@pytest.mark.parametrize(
    "argv",
    [
        ["select", "absent.csv", "--objectives", "a,b", "--out", "out.txt"],
        ["select", "absent.csv", "--objectives", "a,b", "--out", "o.csv", "--plot", "out.txt"],
        ["rank", "absent.csv", "--objectives", "a,b", "--out", "out.txt"],
        ["sample", "--model", "absent", "--prompts", "absent", "--instructions", "absent",
         "--out", "out.txt"],
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys, argv):
    argv = [str(tmp_path / word) if "." in word else word for word in argv]
    assert "out.txt: cannot be written; the name must end in" in error_line(capsys, argv)


def test_an_error_in_the_options_is_one_line(capsys):
    assert "arguments are required: file" in error_line(capsys, ["rank", "--objectives", "a"])
    assert len(capsys.readouterr().err.splitlines()) == 0


def test_a_reader_of_the_output_may_stop(tmp_path):
    command = [sys.executable, "-m", "paretohqd_jax.main", "options"]
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_rank_adds_the_layer_of_every_row(scores, tmp_path):
    from paretohqd_jax.pareto import non_dominated_rank

    out = tmp_path / "ranked.csv"
    columns = ["--objectives", "helpful,harmless"]
    console(["paretohqd", "rank", str(scores), *columns, "--out", str(out)])
    table = read_table(out)
    rewards = np.stack([table[name].to_numpy() for name in ("helpful", "harmless")], axis=1)
    assert table["rank"].to_pylist() == np.asarray(non_dominated_rank(rewards)).tolist()
    console(["paretohqd", "rank", str(out), *columns, "--out", str(out)])
    assert read_table(out).to_pylist() == table.to_pylist()


def test_hypervolume_prints_the_golden_value(tmp_path, capsys):
    path = tmp_path / "points.csv"
    path.write_text("a,b\n.1,.9\n.4,.75\n.6,.5\n.8,.2\n.5,.4\n.4,.75\n")
    argv = ["hypervolume", path, "--objectives", "a,b", "--reference"]
    console(["paretohqd", *map(str, argv), "0.2,0.1"])
    np.testing.assert_allclose(float(capsys.readouterr().out), 0.23, rtol=1e-6)
    console(["paretohqd", *map(str, argv), "-.8,-1"])
    golden = capsys.readouterr().out
    console(["paretohqd", *map(str, argv[:-1]), "--reference=-.8,-1"])
    assert capsys.readouterr().out == golden and 2 < float(golden) < 1.6 * 1.9
    for wrong, message in (("0.2", "1 values for 2"), ("0.2,x", "could not convert")):
        assert message in error_line(capsys, [*argv, wrong])


def test_a_large_hypervolume_is_estimated_unless_it_shall_be_exact(tmp_path, capsys, monkeypatch):
    path = tmp_path / "points.csv"
    path.write_text("a,b,c,d\n1,2,3,4\n4,3,2,1\n2,4,1,3\n")
    argv = ["paretohqd", "hypervolume", str(path), "--objectives", "a,b,c,d", "--reference=0,0,0,0"]
    console([*argv, "--exact"])
    exact = float(capsys.readouterr().out)
    monkeypatch.setattr("paretohqd_jax.pareto.measured_volume.QUICK", 1)
    console(argv)
    value, error = capsys.readouterr().out.split(", standard error ")
    assert float(value) == pytest.approx(exact, rel=0.01)
    assert 0 < float(error.split()[0]) < 1 and "Monte-Carlo estimate; or give --exact" in error
    console([*argv, "--exact"])
    assert float(capsys.readouterr().out) == exact


def test_inspect_describes_the_objectives(tmp_path, capsys):
    path = tmp_path / "points.csv"
    path.write_text("a,b\n0,9\n1,8\n2,7\n0,0\n")
    console(["paretohqd", "inspect", str(path), "--objectives", "a,b"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("4 rows") and lines[-1] == "2 non-dominated layers: 3, 1 rows"
    assert lines[2].split() == ["a", "0", "0", "0.5", "1.97", "2", "0.75", "0.8292", "3"]
    correlation = np.corrcoef([0, 1, 2, 0], [9, 8, 7, 0])[0, 1]
    assert lines[5].split() == ["a", "1.000", f"{correlation:.3f}"]


SAMPLING = {"instruction": "sing", "temperature": 1.0, "max_new_tokens": 40}


def sample(tmp_path, *instructions):
    prompts, told = tmp_path / "prompts.txt", tmp_path / "instructions.jsonl"
    prompts.write_text("\n".join(f"prompt {i}" for i in range(6)) + "\n\n")
    told.write_text("\n".join(map(json.dumps, instructions)))
    files = ["--prompts", prompts, "--instructions", told, "--out", tmp_path / "rows.parquet"]
    return ["sample", "--model", "random:toy", *files, "--batch-size", "3"]


def test_sample_answers_every_prompt_under_every_instruction(tmp_path, capsys, monkeypatch):
    from paretohqd_jax.evaluation import collapse

    # The toy's gibberish has few words, so nothing but the real detector's verdict is changed.
    monkeypatch.setattr(collapse, "collapse_causes", lambda ts: ["" if t else "short" for t in ts])
    other = SAMPLING | {"examples": [["a", "b"]], "temperature": 0.5}
    console(["paretohqd", *map(str, sample(tmp_path, SAMPLING, other))])
    rows = read_table(tmp_path / "rows.parquet")
    assert set(rows["prompt"].to_pylist()) <= {f"prompt {i}" for i in range(6)}
    assert rows.num_rows == len(set(zip(*rows.to_pydict().values(), strict=True))) > 0
    assert f"{rows.num_rows} rows for 6 prompts" in capsys.readouterr().out
    assert not (tmp_path / "rows.parquet.partial").exists()


def test_sample_puts_prompts_in_a_format_and_names_what_will_not_do(tmp_path, capsys, monkeypatch):
    from paretohqd_jax.evaluation import collapse

    monkeypatch.setattr(collapse, "collapse_causes", lambda ts: ["" if t else "short" for t in ts])
    argv = [*map(str, sample(tmp_path, SAMPLING)), "--prompt-format"]
    console(["paretohqd", *argv, "Q: {prompt}\nA:"])
    assert "rows for 6 prompts" in capsys.readouterr().out
    assert "once, such as" in error_line(capsys, [*argv, "Q:"])
    line = error_line(capsys, [*argv, "chat:rag"])
    assert line.startswith("error: data.prompt_format='chat:rag': "), "not of an instruction"


def test_sample_says_so_when_nothing_is_left(tmp_path, capsys, monkeypatch):
    from paretohqd_jax.evaluation import collapse

    monkeypatch.setattr(collapse, "collapse_causes", lambda texts: ["short"] * len(texts))
    assert "all 6 responses are collapsed" in error_line(capsys, sample(tmp_path, SAMPLING))
    assert not (tmp_path / "rows.parquet").exists()


def test_sample_cuts_gates_and_drops_near_duplicates(tmp_path, capsys, monkeypatch):
    from paretohqd_jax.sampling import generation

    one = "One two three."
    texts = [f"{one} Four five six.", f"{one} Four five seven.", "Prompt 2. Prompt 5!"]

    def respond(*_, **__):
        answers = [texts[number % 3] for number in range(6)]
        return pa.table({"response": answers, "truncated": [False] * 6})

    monkeypatch.setattr(generation, "generate_responses", respond)
    argv = [*map(str, sample(tmp_path, SAMPLING)), "--sentences", "1", "--gate", "echo<0.5"]
    console(["paretohqd", *argv, "--gate", "words>=3", "--max-overlap", "0.9"])
    rows = read_table(tmp_path / "rows.parquet").to_pydict()
    assert rows["response"] == [*(texts[:2] * 2), *[one] * 4]
    assert rows["prompt"] == [f"prompt {number}" for number in (0, 1, 3, 4) * 2]
    said = capsys.readouterr().out
    assert "8 rows for 6 prompts; of 10 rows the gate echo<0.5 takes 2 (2 alone)" in said
    console(["paretohqd", *argv, "--max-overlap", "0.4"])  # three of six words, and of seven
    assert read_table(tmp_path / "rows.parquet")["response"].to_pylist() == texts[:2] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sentences", "1,none"], "--sentences '1,none': write numbers of sentences, such as"),
        (["--max-overlap", "2"], "--max-overlap 2: give a share from 0 to 1"),
        (["--gate", "ecko<1"], "unknown reward model 'ecko'; did you mean echo?"),
        (["--gate", "echo"], "--gate: 'echo' is no gate"),
    ],
)
def test_sample_refuses_what_it_cannot_keep_rows_by(tmp_path, capsys, words, message):
    assert message in error_line(capsys, [*map(str, sample(tmp_path, SAMPLING)), *words])
    assert not (tmp_path / "rows.parquet.partial").exists()


def test_sample_never_takes_the_responses_of_another_model(tmp_path, capsys, monkeypatch):
    from paretohqd_jax.evaluation import collapse

    # Nothing is written, so the partial responses stay, as after a kill.
    monkeypatch.setattr(collapse, "collapse_causes", lambda texts: ["short"] * len(texts))
    argv, counts = sample(tmp_path, SAMPLING), []
    for weights, dtype in (
        ("one", "float32"), ("two", "float32"), ("one", "bfloat16"), ("two", "float32")
    ):  # fmt: skip
        monkeypatch.setattr(sample_command, "source_digest", lambda _, weights=weights: weights)
        error_line(capsys, [*argv, "--dtype", dtype])
        kept = (tmp_path / "rows.parquet.partial").rglob("*.parquet")
        counts.append(len({shard.parent for shard in kept}))
    assert counts == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": "warm"}, "temperature is 'warm'"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
        ({"max_tokens": 3}, "unknown option 'max_tokens'"),
        ({"instruction": 3}, '"instruction" is 3'),
        ({"examples": [["no pair"]]}, '"examples" must be a list of pairs'),
        ({"examples": ["ab"]}, '"examples" must be a list of pairs'),
        ({"examples": [["a", 1]]}, '"examples" must be a list of pairs'),
    ],
)
def test_an_instruction_that_makes_no_sense_is_named(tmp_path, capsys, change, message):
    argv = sample(tmp_path, SAMPLING)
    told = tmp_path / "instructions.jsonl"
    told.write_text(f"{json.dumps(SAMPLING)}\n\n{json.dumps(SAMPLING | change)}\n")
    assert f"{told}: line 3: {message}" in error_line(capsys, argv)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "not an object in braces"),
        ("{", "Expecting property name enclosed in double quotes; write"),
        ('{"instruction": "sing"}', "max_new_tokens is None"),
    ],
)
def test_an_instruction_that_is_not_complete_is_named(tmp_path, capsys, line, message):
    argv = sample(tmp_path, SAMPLING)
    (tmp_path / "instructions.jsonl").write_text(line)
    assert re.search(f"instructions.jsonl: line 1: {message}", error_line(capsys, argv))


def test_a_prompt_too_long_for_the_model_is_named_by_its_line(tmp_path, capsys):
    argv = sample(tmp_path, SAMPLING)
    (tmp_path / "prompts.txt").write_text("short\n\n  \n" + "long " * 2000 + "\n")
    line = error_line(capsys, argv)
    assert re.search(r"prompts.txt: line 4: the prompt has \d+ tokens", line), line
    assert not (tmp_path / "rows.parquet").exists()


def templated(tmp_path, template):
    """A directory with the toy's tokenizer and another chat template."""
    tokenizer = load_tokenizer("random:toy")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path / "model")
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads"), 8)
    values = {"model_type": "llama", "vocab_size": 258, "num_hidden_layers": 1, "head_dim": 2}
    (tmp_path / "model" / "config.json").write_text(json.dumps(values | sizes))
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ messages[-1].content }}",
            "instructions.jsonl: line 2: .* leaves out the system message 'sing'",
        ),
        (
            "{{ raise_exception('No system role.') if messages[0].role == 'system' else "
            "messages[0].content }}",
            r"instructions.jsonl: line 2: .* system, user messages \(No system role.\)",
        ),
        ("{% for", "error: data.prompt_format='chat': .* cannot be rendered"),
    ],
)
def test_sample_says_what_a_template_makes_of_instructions(tmp_path, capsys, template, message):
    argv = sample(tmp_path, SAMPLING | {"instruction": ""}, SAMPLING)
    argv[argv.index("random:toy")] = templated(tmp_path, template)
    line = error_line(capsys, argv)
    assert re.search(message, line), line
    assert not (tmp_path / "rows.parquet.partial").exists()


def test_prompts_files_of_windows(tmp_path):
    (tmp_path / "prompts.txt").write_bytes("\ufeffSay hi\r\n\r\n日本 \r\n".encode())
    lines = sample_command._read_lines(str(tmp_path / "prompts.txt"))
    assert lines == [(1, "Say hi"), (3, "日本")]


def test_sampling_that_goes_on_another_day_keeps_its_date(tmp_path):
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", sample_command._first_day(tmp_path))
    (tmp_path / "date").write_text("2024-02-03")
    assert sample_command._first_day(tmp_path) == "2024-02-03"


WITHOUT_ROOTS_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("workdir", ["run", "run/deeper"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, workdir):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    command = [sys.executable, "-m", "paretohqd_jax.main", *run_flags(tmp_path)[:1]]
    if os.geteuid() == 0:  # who may write anywhere
        if (
            not shutil.which(WITHOUT_ROOTS_RIGHTS[0])
            or subprocess.run([*WITHOUT_ROOTS_RIGHTS, "true"], capture_output=True).returncode
        ):
            pytest.skip("needs a setpriv that may, or a user other than root")
        command = WITHOUT_ROOTS_RIGHTS + command
    ran = subprocess.run(
        [*command, f"--workdir={tmp_path / workdir}"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(f"{folder}.*: Permission denied; give another path", line), line
    assert not list(folder.iterdir())


def test_a_link_to_nothing_as_the_run_directory_is_named(tmp_path, capsys):
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    message = f"{tmp_path / 'run'}: a link to {tmp_path / 'gone'}, which is not there"
    assert message in error_line(capsys, run_flags(tmp_path))


def run_flags(tmp_path, *options, config="configs/toy.py"):
    return [f"--config={ROOT / config}", f"--workdir={tmp_path / 'run'}", *options]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config.select.kk=50"], "key: kk of config.select; did you mean config.select.k? `pa"),
        (["--config.selec.k=50"], "no such option or key: selec"),
        (["--config.select.k=many"], "many"),
        (["--config.select.k=0"], "config.select.k=0"),
        (["--config.preferences=0.9,0.3"], "preference"),
        (["--config.lora.targets=('q','v_proj')"], "'q'"),
        (["--config.model.attention=splash"], "config.model.attention='splash' needs TPUs"),
        (["--config.rewards.models=('brief','nothing')"], "nothing"),
        (["--config.rewards.models=brief"], "two or more of different names, written like"),
        (["--config.rewards.models=breif,positivity"], "'breif'; did you mean brief? use one of"),
        (
            ["--config.train.batch_sise=4"],
            "no such option or key: batch_sise of config.train; did "
            "you mean config.train.batch_size? `paretohqd options paretohqd` lists all",
        ),
        (["--stage=stag1"], "'stag1' does not exist; did you mean stage1?"),
        (["--stages=stage1"], "unknown option --stages; did you mean --stage?"),
        (["--config.model.source=/no/such/model"], "/no/such/model"),
        (["--config.data.source=/no/such/rows.jsonl"], "/no/such/rows.jsonl"),
        (["--config.method=magic"], "config.method='magic': use one of paretohqd, sft"),
        (["--config.method=sft", "--config.draw.k=9"], "configs/toy.py:sft, if its get_config()"),
        (["--stage=stage3"], "--stage='stage3' does not exist"),
        (["--stage=stage1"], "needs step score"),
        (["--unknown=1"], "unknown"),
        (["select.k=50"], "select.k=50"),
    ],
)
def test_a_run_refuses_bad_options_before_it_starts(tmp_path, capsys, options, message):
    assert message in error_line(capsys, run_flags(tmp_path, *options))
    assert not (tmp_path / "run" / "scores.parquet").exists()


def test_a_model_without_weights_is_refused_before_rows_are_scored(tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "tests/models/golden/llama3", model)
    (model / "model.safetensors").unlink()
    flags = run_flags(tmp_path, f"--config.model.source={model}")
    assert "holds no model.safetensors" in error_line(capsys, flags)
    assert not (tmp_path / "run").exists()


def test_a_config_file_that_is_not_there_is_named(tmp_path, capsys):
    assert "absent.py" in error_line(capsys, run_flags(tmp_path, config="configs/absent.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("def get_config(): return {'a': 1}", "must return a ConfigDict"),
        ("def get_config(): raise RuntimeError('two\\nlines')", "RuntimeError: lines"),
        ("def get_config(): raise ValueError('no such task')", "ValueError: no such task"),
        (
            "from paretohqd_jax.config import default_config\n"
            "def get_config():\n"
            "    config = default_config()\n"
            "    config.select.kk = 5\n"
            "    return config",
            "kk",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(): return ConfigDict({'method': 'paretohqd'})",
            "config.data is missing",
        ),
    ],
)
def test_a_config_file_with_a_mistake_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "mistaken.py"
    path.write_text(text)
    flags = [f"--config={path}", f"--workdir={tmp_path / 'run'}"]
    assert message in error_line(capsys, flags)


@pytest.mark.parametrize("workdir", ["file", "file/below", "/proc/nowhere/run"])
def test_a_workdir_that_cannot_be_is_named(tmp_path, capsys, workdir):
    (tmp_path / "file").touch()
    path = tmp_path / workdir
    assert str(path).split("/run")[0] in error_line(
        capsys, [f"--config={ROOT / 'configs/toy.py'}", f"--workdir={path}"]
    )


@pytest.mark.parametrize("missing", ["config", "workdir"])
def test_a_run_needs_config_and_workdir(tmp_path, capsys, missing):
    given = [flag for flag in run_flags(tmp_path) if not flag.startswith(f"--{missing}=")]
    assert f"--{missing} is missing" in error_line(capsys, given)


def test_a_full_disk_is_a_message_and_not_a_traceback(scores, tmp_path, capsys, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    out = tmp_path / "out.parquet"
    argv = select(scores, "-k", "3", "--preferences", "2", "--out", out)
    assert "disk is full" in error_line(capsys, argv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv"]


def test_what_was_meant(scores, capsys):
    assert "no command 'selct'; did you mean select? commands" in error_line(capsys, ["selct"])
    argv = ["rank", scores, "--objectve=helpful", "--out=x.csv"]
    assert "unknown option --objectve; did you mean --objectives?" in error_line(capsys, argv)
    argv = select(scores, "-k", "7", "--pool", "3", "--out", "x.csv")
    assert "--pool 3 is below -k 7; give at least as many" in error_line(capsys, argv)


def test_help_explains_the_flags_of_a_run(capsys):
    console(["paretohqd", "--help"])
    printed = capsys.readouterr().out
    for name in ("--config", "--workdir", "--stage", "--check", "--debug"):
        assert re.search(rf"^  {name} +\w.{{20}}", printed, re.MULTILINE)
