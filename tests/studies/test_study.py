"""`paretohqd study`: what runs, what is kept, who waits for whom, and the tables."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from finished_runs import finished_run

from paretohqd_jax.commands import run as run_command
from paretohqd_jax.commands import study as study_command
from paretohqd_jax.commands.study import _part
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.distributed import Preempted
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.studies import run_tables, running
from paretohqd_jax.studies.plan import Row, Runs, Study, Table, load_study, plan
from paretohqd_jax.studies.run_tables import write_tables
from paretohqd_jax.studies.stored import points_of, read_points

NO_METRICS = '"constraints": {"adapters": ["a"], "steps": [1, 2], "metrics": {}}'
UNEVEN_METRICS = NO_METRICS.replace("{}", '{"kl": [[0.1]]}')
RESULTS = Path(__file__).parents[2] / "docs" / "results"
# Stands for a run: leaves what a finished one left, or fails where it is told to.
PROGRAM = """
import os, pathlib, shutil, sys
options = dict(word.split("=", 1) for word in sys.argv[1:])
begins = [pathlib.Path(options["--begin_with"]).name] if "--begin_with" in options else []
seed, workdir = options["--config.seed"], pathlib.Path(options["--workdir"])
here = pathlib.Path({here!r})
with open(here / "begun", "a") as file:
    file.write(" + ".join([workdir.name, *begins]) + "\\n")
with open(here / "shared", "a") as file:
    programs, scores = os.environ["JAX_COMPILATION_CACHE_DIR"], options["--config.rewards.cache"]
    file.write(f"{{programs}} {{scores}}\\n")
if (here / "fails").exists() and workdir.name == (here / "fails").read_text():
    sys.exit("error: the loss became nan")
shutil.copytree(here / options["--config.data.revision"] / seed, workdir, dirs_exist_ok=True)
"""
# It has the lock of what it prepares, so that others wait for it where its study is killed.
PREPARE = """
import os, pathlib, sys
path = pathlib.Path(sys.argv[2])
files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
assert str(path.parents[1] / "locks" / "prepare-base") in files
path.write_text("base")
"""
STUDY = """
from paretohqd_jax.studies.plan import Row, Runs, Study, Table

def get_study(seeds="2"):
    def of(name):  # the option is free to tell the runs apart
        overrides = ("rewards.models=('helpful=words','brief')", f"data.revision={name}")
        return Runs(name, "toy", (*overrides, "model.source={base}"), range(int(seeds)))
    rows = [Row("base model", "plain", "base"), Row("plain", "plain"), Row("better", "better")]
    return Study([of("plain"), of("better")], [Table("all", rows, "plain")],
                 {"base": "here:write"})
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished")
    for name, gain in (("plain", 0.0), ("better", 0.5)):
        for seed in range(2):
            finished_run(path / name / str(seed), gain=gain, seed=seed)
    return path


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A folder with a study, whose runs take no time."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "program.py").write_text(PROGRAM.format(here=str(tmp_path)))
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "here.py").write_text("def write(path): path.write_text('base')\n")
    monkeypatch.setattr(running, "PROGRAM", (sys.executable, str(tmp_path / "program.py")))
    monkeypatch.setattr(running, "PREPARE", PREPARE)
    monkeypatch.setattr(running, "SECONDS_TO_WAIT", 0.1)
    monkeypatch.setattr(running, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("here", None)


def begun(here):
    """The runs that were started, in order."""
    lines = (here / "begun").read_text().splitlines()
    (here / "begun").unlink()
    return lines


def study(*words):
    run_command(["study", "study.py", "--workdir", "out", *words])


def test_a_study_runs_resumes_and_tells(here):
    (here / "fails").write_text("better-0")
    with pytest.raises(InputError, match="1 runs failed.*better-0: status 1: error: the loss beca"):
        study("--jobs", "1")
    assert begun(here) == ["plain-0", "better-0", "plain-1", "better-1"]
    assert json.loads((here / "out/table.json").read_text())["all"]["rows"]["better"]["seeds"] == [
        1
    ]
    (here / "fails").unlink()
    study("--jobs", "2")  # the same command goes on
    assert begun(here) == ["better-0"]
    assert (here / "out/prepared/base").read_text() == "base"
    study()
    assert not (here / "begun").exists()
    rows = json.loads((here / "out/table.json").read_text())["all"]["rows"]
    gain = rows["better"]["differences"]["mean_reward/0"]
    assert [gain["value"], *gain["interval"]] == pytest.approx([0.5] * 3, abs=1e-4)
    assert rows["plain"]["differences"] == {} and rows["plain"]["num_runs"] == 2
    assert rows["base model"]["differences"]["hypervolume (z-score)"]["interval"][1] < 0
    assert rows["better"]["cost"]["seconds"]["stage2"] == 1800
    table = read_table(here / "out/table.csv").to_pylist()
    measured = {row["measure"] for row in table if row["row"] == "better"}
    assert measured >= {
        "hypervolume (z-score)", "hypervolume (min-max)", "prompt_hypervolume", "igd_plus",
        "generational_distance", "spacing", "sparsity", "dominated_share", "steerability",
        "kendall", "inner_product", "achievement", "collapsed", "truncated", "num_tokens",
        "distinct_1", "distinct_2", "win_rate", "mean_reward",
    }  # fmt: skip
    assert all(row["low"] <= row["high"] for row in table)
    for picture in ("fronts.png", "measures.png"):
        assert (here / "out" / picture).read_bytes().startswith(b"\x89PNG")
    text = (here / "out/table.md").read_text()
    assert "| better | 2 |" in text and "Above plain, over the seeds of both" in text


def test_runs_share_programs_and_scores_and_the_rest_is_estimated(here, caplog):
    with caplog.at_level("INFO", running.__name__):
        study("--jobs", "2")
    [shared] = {*(here / "shared").read_text().splitlines()}
    assert shared.split() == [str(here / "out" / name) for name in ("compiled", "score_store")]
    told = [line for line in caplog.messages if "runs left" in line]
    assert len(told) == 4 and "done in" in told[0] and "3 runs left, about 0 min" in told[0]


@pytest.mark.parametrize("done", [False, True])
def test_runs_begin_with_what_earlier_ones_have_done(done, here):
    """With what one has done that failed later, too."""
    (here / "study.py").write_text(
        STUDY.replace("range(int(seeds)))", "range(int(seeds)), 'plain' * (name == 'better'))")
    )
    (here / "fails").write_text("plain-1")
    (here / "out" / "runs" / "plain-1").mkdir(parents=True)
    if done:
        (here / "out" / "runs" / "plain-1" / "manifest.json").write_text("{}")
    failed = running.run_all(plan(load_study("study.py"), here / "out"), here / "out", 4)
    assert [*failed] == ["plain-1"]
    second = "better-1 + plain-1" if done else "better-1"
    assert sorted(begun(here)) == ["better-0 + plain-0", second, "plain-0", "plain-1"]


def test_all_seeds_begin_with_what_the_first_has_done(here):
    (here / "study.py").write_text(STUDY.replace("range(int(seeds)))", "range(int(seeds)), name)"))
    assert running.run_all(plan(load_study("study.py"), here / "out"), here / "out", 4) == {}
    assert sorted(begun(here)) == [
        "better-0",
        "better-1 + better-0",
        "plain-0",
        "plain-1 + plain-0",
    ]


def test_runs_end_with_a_study_that_is_stopped(here, monkeypatch):
    sleeps = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid()))"
    program = (sys.executable, "-c", f"{sleeps}; time.sleep(60)")
    monkeypatch.setattr(running, "PROGRAM", program)
    sleep = time.sleep

    def stopped(seconds):
        if (here / "pid").exists() and (here / "pid").read_text():
            raise Preempted
        sleep(seconds)

    monkeypatch.setattr(running.time, "sleep", stopped)
    with pytest.raises(Preempted):
        study()
    with pytest.raises(ProcessLookupError):
        os.kill(int((here / "pid").read_text()), 0)


def test_a_failure_is_named_where_no_run_is_done(here):
    (here / "fails").write_text("plain-0")
    (here / "study.py").write_text(STUDY.replace('of("plain"), of("better")', 'of("plain")')
                                   .replace(', Row("better", "better")', ""))  # fmt: skip
    with pytest.raises(InputError, match="plain-0: status 1: error: the loss became nan"):
        run_command(["study", "study.py:1", "--workdir", "out"])


def test_stored_points_do_not_say_what_is_called(here):
    """A true front is a function: that of the study is, and not one that a file names."""
    study()
    path = here / "out/points/plain-0.json"
    path.write_text(path.read_text().replace('"truth": ""', '"truth": "os:abort"'))
    with pytest.raises(InputError, match="against the true front 'os:abort', and its config names"):
        run_command(["study", "study.py", "--workdir", "again", "--points", str(path)])


def test_no_fronts_are_drawn_that_cannot_be_told_apart(here, monkeypatch):
    monkeypatch.setattr(run_tables, "MARKERS", "os")
    study()
    assert not (here / "out/fronts.png").exists() and (here / "out/measures.png").exists()


def test_tables_are_made_again_of_points_alone(here):
    study()
    before = {name: (here / "out" / name).read_bytes() for name in ("table.md", "table.csv")}
    points = sorted(map(str, (here / "out/points").glob("*.json")))
    shutil.rmtree(here / "out/runs")
    run_command(["study", "study.py", "--workdir", "again", "--points", *points])
    assert before == {name: (here / "again" / name).read_bytes() for name in before}
    with pytest.raises(InputError, match="of the run 'better' of seed 0 are given twice"):
        run_command(["study", "study.py", "--workdir", "again", "--points", *points, points[0]])


def test_changed_options_run_again_and_parts_are_shared_out(here):
    study("--part", "2/2")
    assert begun(here) == ["better-0", "better-1"]
    (here / "study.py").write_text(STUDY.replace("'brief')", "'brief')\", \"lora.rank=2"))
    study("--part", "1/2")
    study()
    assert sorted(begun(here)) == ["better-0", "better-1", "plain-0", "plain-1"]


def test_points_of_other_options_are_in_no_table(here):
    """Of a run that was done, and fails since its options were changed."""
    study()
    (here / "study.py").write_text(STUDY.replace("'brief')", "'brief')\", \"lora.rank=2"))
    (here / "fails").write_text("better-0")
    with pytest.raises(InputError, match="1 runs failed"):
        study()
    rows = json.loads((here / "out/table.json").read_text())["all"]["rows"]
    assert rows["plain"]["seeds"] == [0, 1] and rows["better"]["seeds"] == [1]


def test_one_process_writes_the_tables(here, monkeypatch):
    """All who share a study have waited for its last run, and end together."""
    locks, lock = [], here / "out/locks/tables"
    monkeypatch.setattr(study_command, "tell", lambda *_: locks.append(running._try_lock(lock)))
    study()
    study()
    assert locks == [None, None]  # somebody has the lock

    @contextlib.contextmanager
    def after_another(path):
        (here / "out/locks/tables_of").write_text("plain-0\nbetter-0\nplain-1\nbetter-1")
        yield

    monkeypatch.setattr(study_command, "locked", after_another)
    study()
    assert len(locks) == 2


def test_the_runs_of_another_process_are_waited_for(here):
    """Such as of a study that was killed while its run lives on, with the lock."""
    planned = plan(load_study("study.py"), here / "out")
    lock = running._try_lock(running._lock_path(here / "out", planned[0]))
    sleep = "import time; time.sleep(1.5)"
    process = subprocess.Popen([sys.executable, "-c", sleep], pass_fds=(lock.fileno(),))
    lock.close()
    start = time.monotonic()
    assert running.run_all(planned, here / "out", 2) == {}
    assert time.monotonic() - start > 1.0 and process.wait() == 0
    assert sorted(begun(here)) == ["better-0", "better-1", "plain-0", "plain-1"]


def test_what_fails_at_one_process_is_not_tried_by_the_others(here, monkeypatch):
    planned = plan(load_study("study.py"), here / "out")
    failure, try_lock = here / "out/runs/better-0/failed.txt", running._try_lock

    def meanwhile(path):
        if path.name == "better-0":
            failure.parent.mkdir(parents=True, exist_ok=True)
            failure.write_text("status 1: elsewhere")
        return try_lock(path)

    monkeypatch.setattr(running, "_try_lock", meanwhile)
    assert running.run_all(planned, here / "out", 1) == {"better-0": "status 1: elsewhere"}
    assert begun(here) == ["plain-0", "plain-1", "better-1"]
    monkeypatch.setattr(running, "_try_lock", try_lock)
    assert running.run_all(planned, here / "out", 1) == {}
    assert begun(here) == ["better-0"] and not failure.exists()


def test_a_failed_preparation_ends_the_study(here, monkeypatch):
    monkeypatch.setattr(running, "PREPARE", "raise SystemExit(1)")
    with pytest.raises(InputError, match="preparing 'base' by here:write failed"):
        study()
    assert not (here / "begun").exists()


def test_what_another_function_has_prepared_is_not_taken(here):
    study()
    (here / "study.py").write_text(STUDY.replace("here:write", "here:write()"))
    with pytest.raises(InputError, match=r"was made by here:write; give what here:write\(\)"):
        study()


def test_preparing_leaves_whole_results_alone(here, monkeypatch):
    monkeypatch.setattr("here.write", lambda path: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        running.prepare("here:write", str(here / "base"))
    assert not (here / "base").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("get_study() must return a Study", "return None\n"),
        ("no such file", ""),
        ("2 runs are called 'plain'", '[of("plain"), of("plain")]'),
        ("row 'better': no runs 'better'", '[of("plain")]'),
        ("no row 'none' to be against", 'rows, "none")]'),
        ("runs 'plain': no seeds", "range(0)"),
        ("'plain': --config=nowhere: no config of this name", '"nowhere", (*overrides'),
        ("'plain': no such option or key: size", '"toy", ("select.size=3", *overrides'),
        ("cannot import nowhere", '"nowhere:write"'),
        ("runs 'plain': no runs 'none' before them", "range(int(seeds)), 'none')"),
        ("a name has letters", 'of("a/b"), of("plain"), of("better")'),
    ],
)
def test_mistakes_are_named(here, change, message):
    # The second names what is written in the study, the first what is said of it.
    words, written = change, message
    replaced = {
        "return None\n": ("return Study", "return None\n    return Study"),
        '[of("plain"), of("plain")]': ('[of("plain"), of("better")]', written),
        '[of("plain")]': ('[of("plain"), of("better")]', written),
        'rows, "none")]': ('rows, "plain")]', written),
        "range(int(seeds)), 'none')": ("range(int(seeds)))", written),
        "range(0)": ("range(int(seeds))", written),
        '"nowhere", (*overrides': ('"toy", (*overrides', written),
        '"toy", ("select.size=3", *overrides': ('"toy", (*overrides', written),
        '"nowhere:write"': ('"here:write"', written),
        'of("a/b"), of("plain"), of("better")': ('of("plain"), of("better")', written),
    }
    if written:
        (here / "study.py").write_text(STUDY.replace(*replaced[written]))
    else:
        (here / "study.py").unlink()
    with pytest.raises(InputError) as error:
        study()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_part_is_one_of_some():
    assert _part("2/3") == (2, 3)
    for text in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(Exception, match="is not i/n"):
            _part(text)


def test_runs_of_other_objectives_are_no_rows_of_one_table(tmp_path):
    models = ("rewards.models=('words','brief')", "rewards.models=('brief','words')")
    runs = [Runs(name, "toy", (model,)) for name, model in zip("ab", models, strict=True)]
    table = Table("t", [Row("a", "a"), Row("b", "b")])
    with pytest.raises(InputError, match="objectives of row 'b' are brief, words, those of 'a'"):
        plan(Study(runs, [table]), tmp_path)


@pytest.fixture
def stored(finished, tmp_path):
    config = {"evaluate": {}}
    points = points_of("plain", 0, config, finished / "plain/0")
    path = tmp_path / "plain-0.json"
    path.write_text(json.dumps(points))
    return path


def test_points_are_read_as_they_were(stored, finished):
    [run] = read_points(stored)
    assert list(run.families) == ["base", "stage1", "stage2"]
    answers = read_table(finished / "plain/0/evaluation/scores.parquet")
    helpful = answers["helpful"].to_numpy()[-10:]
    np.testing.assert_allclose(run.family("")[-1].answers.rewards[:, 0], helpful, rtol=1e-4)
    assert run.family("")[-1].answers.policy.preference == (1.0, 0.0)
    with pytest.raises(InputError, match="plain: has no family 'stage9'; use one of base, stage1"):
        run.family("stage9")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:100],
        lambda text: text.replace('"frame"', '"farme"'),
        lambda text: text.replace('"rewards": [[', '"rewards": [[NaN, 1], ['),
        lambda text: text.replace('"scale": [', '"scale": [0, '),
        lambda text: text.replace('"base": [', '"other": ['),
        lambda text: text.replace('"preference": [', '"preference": ["x", '),
        lambda text: text.replace('"seconds"', '"minutes"'),
        lambda text: text.replace('"evaluate"', '"measure"'),
        lambda text: text.replace('"constraints": null', NO_METRICS),
        lambda text: text.replace('"constraints": null', UNEVEN_METRICS),
        lambda text: "[1]",
        lambda text: "[]",
    ],
)
def test_damaged_points_are_named(stored, damage):
    stored.write_text(damage(stored.read_text()))
    with pytest.raises(InputError, match=r"plain-0.json: holds no points of a run \(.*\); remove"):
        read_points(stored)


def test_damage_of_packed_points_is_named(stored):
    packed = bytearray(gzip.compress(stored.read_bytes()))
    packed[len(packed) // 2] ^= 0xFF
    path = stored.with_suffix(".json.gz")
    path.write_bytes(packed)
    with pytest.raises(InputError, match=r"plain-0.json.gz: holds no points of a run \("):
        read_points(path)


def test_only_what_is_measured_alike_is_compared(stored, tmp_path):
    [run] = read_points(stored)
    table = Table("t", [Row("a", "plain")])
    moved = Frame.from_dict(run.frame.to_dict() | {"offset": [0.0, 5.0]})
    fewer = {name: family[:1] for name, family in run.families.items()}
    for what, value in (
        ("objectives", ["x", "brief"]), ("prompts", "other"), ("frame", moved),
        ("families", fewer), ("config", {"evaluate": {"truth": "a:b"}}),
    ):  # fmt: skip
        other = dataclasses.replace(run, seed=1, **{what: value})
        with pytest.raises(InputError, match="table 't': the .* in the run 'plain' of seed 1"):
            write_tables(Study([], [table]), [run, other], tmp_path)
    with pytest.raises(InputError, match="none of the study's runs"):
        write_tables(Study([], [Table("t", [Row("a", "other")])]), [run], tmp_path)


def test_the_first_study_is_valid_as_it_stands(tmp_path):
    whole = load_study("studies/controlled")
    planned = plan(whole, tmp_path)
    assert len({run.label for run in planned}) == len(planned) == 5 * (6 * 6 + 4 * 3 + 5 * 13)
    assert f"--config.model.source={tmp_path}/prepared/base_2" in planned[0].arguments
    assert planned[0].config["model"]["source"] == "{base_2}"
    kept = [run for path in RESULTS.glob("*.json.gz") for run in read_points(path)]
    assert len(kept) >= 6 * 6 * 3 and {run.name for run in kept} <= {run.name for run in planned}
    for argument, message in (
        ("x", "table 'x' is not one of bulging"),
        ("bulging,sedes=2", "'sedes=2': write seeds=NUMBER"),
        ("bulging,seeds=two", "'seeds=two': write"),
        ("bulging,seeds=0", "no seeds"),
        ("bulging,bulging", "2 tables are called 'bulging'"),
    ):
        with pytest.raises(InputError, match=message):
            load_study(f"studies/controlled:{argument}")


@pytest.mark.parametrize("name", ["sweep", "lagged"])
def test_the_points_that_are_kept_of_mopo_are_those_of_its_studies(tmp_path, name):
    planned = plan(load_study(f"studies/mopo_{name}"), tmp_path)
    kept = read_points(RESULTS / "mopo" / f"{name}.json.gz")
    assert {run.name for run in kept} == {run.name for run in planned}
    assert all(run.constraints is not None for run in kept)
    for argument, message in (
        ("step=20", "'step=20': write seeds=NUMBER or steps=NUMBER"),
        ("steps=few", "'steps=few': write"),
        ("hollow,flat", "'flat': write NAME=NUMBER"),
    ):
        with pytest.raises(InputError, match=message):
            plan(load_study(f"studies/mopo_{name}:{argument}"), tmp_path)
