"""A study of selections from the command line: its tables, its resumption and its mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.main import console, parse_flags
from paretohqd_jax.pareto import preference_grid, select
from paretohqd_jax.studies import selection as selection_study
from paretohqd_jax.studies.selection import Rows, measure_draw, select_with, with_outlier

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
SMALL = {"k": 4, "min_pool_size": 8, "rule": "ray", "pool": "layers", "range_scope": "data",
         "normalize": True, "decimals": -1}  # fmt: skip


def run(name, workdir, **options):
    flags = [f"--config.{option}={value}" for option, value in options.items()]
    console(["paretohqd", f"--config={STUDIES / name}.py", f"--workdir={workdir}", *flags])


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Longer answers win more often, with exceptions: 30 prompts with 6 answers each."""
    random = np.random.default_rng(0)
    words = random.integers(8, 60, 180)
    odds = words / 15 - 2 + random.normal(size=180)
    rows = [
        {"prompt": f"sing {i % 30}", "response": "la " * n + str(i), "win_rate": p}
        for i, (n, p) in enumerate(zip(words, 1 / (1 + np.exp(-odds)), strict=True))
    ]
    path = tmp_path_factory.mktemp("data") / "scored.jsonl"
    write_table(path, pa.Table.from_pylist([*rows, {**rows[0], "response": "too short"}]))
    return path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, scored):
    path = tmp_path_factory.mktemp("study")
    settings = "('k=8','k=4','rule=weighted_sum,k=4')"
    options = {"data.source": scored, "num_draws": 3, "preferences": 5, "settings": settings}
    run("k", path, **options)
    return path, options


def test_tables_and_plot(workdir):
    directory = workdir[0] / "study"
    assert (directory / "front.png").read_bytes().startswith(b"\x89PNG")
    text = (directory / "table.md").read_text()
    assert "## data: 3 draws of 90 rows" in text
    assert sum(line.startswith("| `k=8` |") for line in text.splitlines()) == 2
    assert "steerability, helpful" in text and "balanced, brief" in text
    rows = read_table(directory / "table.csv").to_pylist()
    of = {(r["setting"], r["measure"], r["preference"], r["objective"]): r for r in rows}
    assert of["k=8", "gain", "", ""]["mean"] == 0
    assert of["k=4", "pool_size", "", ""]["mean"] >= 20
    steered = of["k=4", "steerability", "", "helpful"]
    assert 0.5 < steered["low"] <= steered["mean"] <= steered["high"] <= 1
    ends = [of["k=8", "mean_rewards", ends, "brief"]["mean"] for ends in ("0,1", "1,0")]
    assert -np.log(61) < ends[1] < ends[0] < -np.log(9)  # nothing of fewer than 8 words


def test_a_finished_study_is_not_done_again(workdir, capsys):
    path, options = workdir
    run("k", path, **options)
    assert ": started" not in capsys.readouterr().err


def test_a_changed_reward_model_scores_again(workdir, tmp_path, capsys, monkeypatch):
    path, options = workdir
    asked = []

    def changed(models):
        asked.extend(models)
        return {"checkpoints": {"brief": "another"}}

    monkeypatch.setattr(selection_study, "checkpoints", changed)
    shutil.copytree(path, tmp_path, dirs_exist_ok=True)
    run("k", tmp_path, **options)
    assert asked == ["brief"]  # helpful comes with the rows
    assert "score: started (checkpoints.brief was None" in capsys.readouterr().err


def test_draws_that_are_done_are_kept(workdir, scored, tmp_path, monkeypatch):
    path, options = workdir
    done = []

    def count(*arguments):
        done.append(arguments)
        if len(done) == 3 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return measure_draw(*arguments)

    interrupted = []
    monkeypatch.setattr(selection_study, "measure_draw", count)
    with pytest.raises(SystemExit):
        run("k", tmp_path, **options)
    run("k", tmp_path, **options)
    assert len(done) == 4  # the third twice, the first two once
    assert (tmp_path / "measures.json").read_text() == (path / "measures.json").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": "('size=4',)"}, "'size=4': write NAME=VALUE with a name of config.select"),
        ({"settings": "('k=four',)"}, "'k=four': k='four' is not valid; give int"),
        ({"settings": "('normalize=0',)"}, "normalize='0' is not valid; give True or False"),
        ({"settings": "('k=0',)"}, "k=0 is not valid; use at least 1"),
        ({"settings": "('rule=sum',)"}, "rule='sum' is not valid; use one of ray, weighted_sum"),
        ({"settings": "('rule=chebyshev,augmentation=-1',)"},
         "augmentation=-1.0 is not valid; use 0 or more"),
        ({"settings": "('min_gap=0',)"}, "min_gap=0.0 is not valid; use above 0"),
        ({"settings": "('k=9','k=9')"}, "is not valid; use one text or more, each once"),
        ({"settings": "(9,)"}, "config.settings=(9,) is not valid"),
        ({"populations": "(3,)"}, "config.populations=(3,) is not valid"),
        ({"rewards.models": "('brief','brief')"}, "use two or more of different names"),
        ({"settings": "('k=50,min_pool_size=10',)"}, "min_pool_size=10 is not valid; use 0 or >="),
        ({"settings": "('k=91',)"}, "'data', setting 'k=91': k: 91 rows wanted of 90"),
        ({"num_draws": 2}, "config.num_draws=2 is not valid; use at least 3"),
        ({"data.share": 0.0}, "config.data.share=0.0"),
        ({"data.min_words": 99}, "no response has 99 words; lower config.data.min_words"),
        ({"data.scores": "helpful=quality"}, "no column 'quality'"),
        ({"data.scores": "kind=win_rate"}, "config.data.scores='kind=win_rate' is not valid"),
        ({"data.source": "nowhere.jsonl"}, "no such file"),
        ({"populations": "('configs.toy:vowel',)"}, "configs.toy has no function 'vowel'"),
        ({"populations": "('configs.studies.populations:three_scales',)"},
         "returned float64 of shape (20000, 3); it must return floats [num_rows, 2]"),
    ],
)  # fmt: skip
def test_mistakes_are_named(scored, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run("k", tmp_path, **{"data.source": scored, "num_draws": 3, "preferences": 5} | options)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "name",
    ["direction.py", "k.py", "many_objectives.py", "many_objectives.py:3", "many_objectives.py:8",
     "normalization.py", "pool.py", "pool_size.py", "pool_size.py:chebyshev", "reward_range.py"],
)  # fmt: skip
def test_the_studies_are_valid_as_they_stand(name, scored):
    flags = [f"--config={STUDIES / name}", "--workdir=run", f"--config.data.source={scored}"]
    selection_study.check(parse_flags(["paretohqd", *flags])[0])


REWARDS = np.random.default_rng(0).normal(size=(200, 2))
GRID = preference_grid(5)


def test_normalisation_changes_nothing_with_two_objectives():
    rewards = REWARDS * [1, 50]
    raw = select_with(rewards, GRID, **SMALL | {"normalize": False}).row_ids
    np.testing.assert_array_equal(raw, select_with(rewards, GRID, **SMALL).row_ids)


def test_pools():
    expected = select(REWARDS, GRID, 4, 8)
    np.testing.assert_array_equal(select_with(REWARDS, GRID, **SMALL).row_ids, expected.row_ids)
    assert (select_with(REWARDS, GRID, **SMALL | {"pool": "all"}).ranks >= 0).all()
    by_sum = select_with(REWARDS, GRID, **SMALL | {"pool": "sum"})
    spread = np.ptp(REWARDS, axis=0)
    pool = np.argsort(-(REWARDS / spread).sum(axis=1))[:8]
    assert set(np.flatnonzero(by_sum.ranks == 0)) == set(pool)
    assert set(by_sum.row_ids.ravel()) <= set(pool)
    rounded = select_with(REWARDS, GRID, **SMALL | {"decimals": 0})
    np.testing.assert_array_equal(rounded.row_ids, select(np.round(REWARDS), GRID, 4, 8).row_ids)


def test_an_outlier_tilts_the_range_of_the_data_alone():
    rows = Rows(REWARDS, np.arange(200))
    widened = with_outlier(rows, 4.0)
    assert widened.rewards[-1, 0] == pytest.approx(REWARDS[:, 0].min() - 4 * np.ptp(REWARDS[:, 0]))
    for scope, same in (("data", False), ("pareto", True)):
        options = SMALL | {"range_scope": scope}
        before, after = (select_with(r.rewards, GRID, **options) for r in (rows, widened))
        assert np.array_equal(before.row_ids, after.row_ids) == same
    assert with_outlier(rows, 0.0) is rows
