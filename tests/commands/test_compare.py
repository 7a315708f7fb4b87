"""`paretohqd compare` on run directories that were filled with made-up answers."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from finished_runs import finished_run
from PIL import Image

from paretohqd_jax.commands import compare as compare_command
from paretohqd_jax.commands import run
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.comparison_latex import escape
from paretohqd_jax.evaluation.comparison_tables import comparison_text
from paretohqd_jax.files import write_json


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "runs"
    finished_run(path / "plain")
    finished_run(path / "seed0", gain=0.5, seed=1)
    finished_run(path / "seed1", gain=0.6, seed=2)
    shutil.copytree(path / "seed0", path / "seed2")
    finished_run(path / "other_prompts", prompts=range(4, 14), seed=3)
    return path


@pytest.fixture(scope="module")
def damaged(runs):
    """A finished run with a part of it missing, one copy for each part."""
    names = ("no_points", "text", "no_options", "no_lengths", "no_last_answer")
    for name in names:
        shutil.copytree(runs / "plain", runs / name)
    write_json(runs / "no_points/evaluation/points.json", [])
    write_json(runs / "text/evaluation/points.json", "objectives frames")
    write_json(runs / "no_options/config.json", {"evaluate": {}})
    answers = read_table(runs / "plain/evaluation/scores.parquet")
    write_table(runs / "no_lengths/evaluation/scores.parquet", answers.drop_columns(["num_tokens"]))
    write_table(runs / "no_last_answer/evaluation/scores.parquet", answers[:-1])


@pytest.fixture(autouse=True)
def in_runs(runs, monkeypatch):
    monkeypatch.chdir(runs)


def compare(*arguments, draws=False):
    """What the command leaves; to draw takes it a second, so that few tests have it do so."""
    with pytest.MonkeyPatch.context() as patch:
        if not draws:
            patch.setattr(compare_command, "plot_comparison", lambda *_: None)
        run(["compare", *arguments, "--out", "comparison"])
    return json.loads(Path("comparison/comparison.json").read_text())


def test_runs_are_on_one_normalisation_with_intervals_and_gains(capsys):
    result = compare("plain", "ours=seed0,seed1", draws=True)
    z_score, min_max = result["frames"]
    assert z_score["offset"] == [1.0, 1.0]  # of the training rows of the first run
    assert "of the 7 models compared here (plain, ours, base model)" in min_max["source"]
    plain, ours = result["fronts"]["plain"], result["fronts"]["ours"]
    assert (plain["num_runs"], ours["num_runs"]) == (1, 2)
    assert result["runs"] == {"plain": ["plain"], "ours": ["seed0", "seed1"]}
    np.testing.assert_allclose(ours["models"][0]["mean_rewards"], [1.55, 2.55], atol=0.1)
    for frame in ("z-score", "min-max"):
        gain, (low, high) = ours["gain"][frame], ours["gain_interval"][frame]
        assert 0 < low < gain < high
        assert gain == pytest.approx(ours["hypervolume"][frame] - plain["hypervolume"][frame])
    assert "gain" not in plain
    assert ours["igd_plus"] < 0.05 < plain["igd_plus"]
    assert result["bases"]["base model"]["num_tokens"] == 7  # of all three runs
    printed = capsys.readouterr().out
    assert printed.startswith(Path("comparison/comparison.md").read_text())
    assert "| ours | 2 |" in printed and "10 prompts. Of several runs each measure is" in printed
    assert " | 2.000 | TPU v9 |" in printed  # half an hour on four devices
    assert "ours: the token limit cut 0% of the answers, of the base model's 100%" in printed
    assert Image.open("comparison/comparison.png").size[0] > 500
    assert Path("comparison/comparison.pdf").read_bytes().startswith(b"%PDF")
    assert "svg" in Path("comparison/comparison.svg").read_text()[:300]


def test_mean_rewards_by_preference_and_what_made_them():
    result = compare("plain", "ours=seed0,seed1")
    text = Path("comparison/comparison.md").read_text()
    for name in ("plain", "ours"):
        for model in result["fronts"][name]["models"]:
            (low, _), (high, _), mean = *model["interval"], model["mean_rewards"][0]
            weights = " / ".join(f"{weight:.2f}" for weight in model["preference"])
            assert f"| {name}, {weights} | {mean:.3f} [{low:.3f}, {high:.3f}] | " in text
    assert "\n| base model | 0." in text or "\n| base model | -0." in text
    assert "command: paretohqd compare plain ours=seed0,seed1 --out comparison" in text
    made_by = result["made_by"]
    assert made_by["paretohqd_jax"].startswith("0.") and made_by["date"][:2] == "20"


def test_tables_in_latex():
    shutil.copytree("plain", "a_b")
    compare("a_b", "50%=seed0")
    text = Path("comparison/comparison.tex").read_text()
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 3
    assert r"measure & a\_b & 50\% \\" in text and r"50\%, 0.50 / 0.50 & " in text
    assert r"Kendall's $\tau$ & " in text and r"95\% intervals" in text
    rows = [line for line in text.splitlines() if " & " in line and not line.startswith("%")]
    assert all(re.fullmatch(r"(\\[&%$#_{}]|\\tau|[^\\%#_])*\\\\", row) for row in rows)
    for table in re.findall(r"\\begin{longtable}(.*?)\\end{longtable}", text, re.DOTALL):
        columns = re.search(r"l(r+)@{}}$", table, re.M)[1]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in table.splitlines() if row in rows} == {
            len(columns)
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.1 [-0.2, +0.3]", "$-$0.1 [$-$0.2, +0.3]"),
        ("run-1, 1-2", "run-1, 1-2"),
        ('a<b>|"', r"a\textless{}b\textgreater{}\textbar{}''"),
        ("\\{~^}", r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}\}"),
    ],
)
def test_texts_in_latex(text, expected):
    assert escape(text) == expected


def test_estimated_hypervolumes_are_marked():
    result = compare("plain", "ours=seed0")
    assert "±" not in comparison_text(result, {}, {})
    result["fronts"]["ours"]["hypervolume_error"]["min-max"] = 0.012
    table = comparison_text(result, {}, {})
    assert table.count(" ± 0.012 [") == 1 and "--exact makes it exact" in table


def test_a_run_gains_nothing_over_itself():
    result = compare("plain", "copy=plain")
    copy = result["fronts"]["copy"]
    for frame in ("z-score", "min-max"):
        assert copy["gain"][frame] == 0 and copy["gain_interval"][frame] == [0, 0]


def test_gains_above_the_base_model(capsys):
    result = compare("plain", "ours=seed0,seed1", "--base", draws=True)
    base, ours = result["fronts"]["base model"], result["fronts"]["ours"]
    assert base["num_runs"] == 3 and len(base["models"]) == 1  # pooled over the runs of all
    [pooled] = result["bases"].values()
    assert base["models"][0]["mean_rewards"] == pooled["mean_rewards"]
    assert "7 models compared here (base model, plain, ours)" in result["frames"][1]["source"]
    gain = ours["hypervolume"]["z-score"] - base["hypervolume"]["z-score"]
    assert ours["gain"]["z-score"] == pytest.approx(gain) and gain > 1
    header, _, alone, _, several = (
        line.split(" | ") for line in capsys.readouterr().out.splitlines()[:5]
    )
    column = header.index("steerability")
    assert (alone[column], several[column]) == ("", "1.00, 1.00")


def test_an_earlier_stage(runs):
    first = compare("plain", "seed0", "--family", "stage1")["fronts"]["seed0"]
    np.testing.assert_allclose(first["models"][0]["mean_rewards"], [0, 1], atol=0.1)
    with pytest.raises(InputError, match="plain: has no 'stage3'; use one of stage1, stage2"):
        compare("plain", "--family", "stage3")


def test_a_file_is_no_folder_to_write_to():
    Path("taken").write_text("")
    with pytest.raises(InputError, match="taken is not a folder; give another path"):
        run(["compare", "nowhere", "--out", "taken"])  # said before any run is read


def test_different_test_prompts_are_refused_or_intersected(caplog):
    with pytest.raises(InputError, match="plain 10, other_prompts 10.*, 6 of them shared; --inter"):
        compare("plain", "other_prompts")
    with caplog.at_level(logging.WARNING):
        result = compare("plain", "other_prompts", "--intersect")
    assert result["num_prompts"] == 6
    assert "6 of them shared; compared on these" in caplog.text


def test_an_intersection_takes_the_same_prompts_of_every_model(runs):
    answers = json.loads((runs / "plain/evaluation/points.json").read_text())
    assert answers["num_prompts"] == 10
    from paretohqd_jax.steps.results import read_results

    whole = read_results(runs / "plain")
    part = whole.on(["prompt 7", "prompt 2"])
    assert part.prompts == ["prompt 7", "prompt 2"]
    np.testing.assert_array_equal(part.front[1].rewards, whole.front[1].rewards[[7, 2]])
    assert part.base.responses == [whole.base.responses[row] for row in (7, 2)]


def test_no_shared_prompt_is_refused_even_so(runs):
    finished_run(runs / "strange", prompts=range(50, 53))
    with pytest.raises(InputError, match="0 of them shared, so there is nothing to compare"):
        compare("plain", "strange", "--intersect")


def test_other_objectives_or_reward_models_are_refused(runs):
    shutil.copytree(runs / "seed0", runs / "scored_otherwise")
    config = json.loads((runs / "seed0/config.json").read_text())
    config["rewards"]["models"][0] = "helpful=another"
    write_json(runs / "scored_otherwise/config.json", config)
    with pytest.raises(InputError, match="its models are helpful=another, brief, those of plain"):
        compare("plain", "scored_otherwise")


def test_other_sampling_is_told(runs, caplog):
    shutil.copytree(runs / "seed0", runs / "sampled_otherwise")
    config = json.loads((runs / "seed0/config.json").read_text())
    config["evaluate"]["temperature"] = 0.5
    write_json(runs / "sampled_otherwise/config.json", config)
    with caplog.at_level(logging.WARNING):
        compare("plain", "sampled_otherwise")
    assert "sampled_otherwise sampled with {'temperature': 0.5}, plain with" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain", "plain"], "another run is called 'plain'"),
        (["=plain"], "write .NAME=.DIR"),
        (["nowhere"], "nowhere/policies.json: no such file; the run's models are not trained yet"),
        (["no_points"], "no_points/evaluation/points.json: has no objectives, frames, box, run"),
        (["text"], "text/evaluation/points.json: cannot be read"),
        (["no_options"], "no_options/config.json: has no rewards; is that a finished run"),
        (["no_lengths"], "no_lengths/evaluation/scores.parquet: no column 'num_tokens'"),
        (["no_last_answer"], "scores.parquet: holds no answer of each of .* to the same prompts"),
    ],
)
def test_what_does_not_fit_is_named(damaged, arguments, message):
    with pytest.raises(InputError, match=message):
        compare(*arguments)


def test_seeds_of_one_method_have_the_same_preferences(runs):
    finished_run(runs / "two", preferences=[[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(InputError, match="ours: its runs have different preferences"):
        compare("plain", "ours=seed0,two")
    assert len(compare("plain", "two")["fronts"]["two"]["models"]) == 2


def test_a_run_is_no_second_seed_of_itself():
    with pytest.raises(InputError, match="ours: names a run twice; give each once"):
        compare("plain", "ours=seed0,./seed0")


def test_seeds_of_one_method_differ_in_nothing_else(runs):
    shutil.copytree(runs / "seed1", runs / "another_rule")
    config = json.loads((runs / "seed1/config.json").read_text())
    config["select"]["rule"] = "chebyshev"
    config["evaluate"]["batch_size"] = 9  # which changes no result, nor do these
    config["train"] = {"held_out_loss": False}
    config["generate"] = {"engine_command": "python {script}"}
    write_json(runs / "another_rule/config.json", config)
    message = (
        r"ours: its runs differ in more than the seed \(select.rule is 'chebyshev' in "
        r"another_rule, 'ray' in seed0\); name them apart"
    )
    with pytest.raises(InputError, match=message):
        compare("plain", "ours=seed0,another_rule")


def test_a_run_that_began_again_is_refused(runs):
    shutil.copytree(runs / "plain", runs / "began_again")
    manifest = json.loads((runs / "plain/manifest.json").read_text())
    manifest["steps"]["stage2"]["fingerprint"] = "trained again"
    write_json(runs / "began_again/manifest.json", manifest)
    with pytest.raises(InputError, match="began_again: a run has begun there again and is not fin"):
        compare("began_again")


def test_frames_that_differ_are_refused_by_name(runs):
    shutil.copytree(runs / "seed0", runs / "other_frame")
    points = json.loads((runs / "seed0/evaluation/points.json").read_text())
    points["frames"][0]["offset"][1] = 7.0
    write_json(runs / "other_frame/evaluation/points.json", points)
    with pytest.raises(InputError, match=r"other_frame: the offset of its frame is \[1.0, 7.0\], "):
        compare("plain", "other_frame")
    points["frames"][0]["offset"][1] = 1.0
    points["box"]["high"][0] = 5.0
    write_json(runs / "other_frame/evaluation/points.json", points)
    with pytest.raises(InputError, match="other_frame: the high of its box is"):
        compare("plain", "other_frame")


def test_two_base_models_are_two_points_and_no_first_row(runs):
    shutil.copytree(runs / "seed0", runs / "other_base")
    policies = json.loads((runs / "seed0/policies.json").read_text())
    policies["base"]["source"] = "org/larger"
    write_json(runs / "other_base/policies.json", policies)
    bases = compare("plain", "other_base", draws=True)["bases"]
    assert set(bases) == {"random:toy", "org/larger"}
    with pytest.raises(InputError, match="--base: the runs have different base models: random:toy"):
        compare("plain", "other_base", "--base")
