from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import pytest

from paretohqd_jax import pipeline
from paretohqd_jax.errors import InputError
from paretohqd_jax.finished_steps import check_finished, copy_step
from paretohqd_jax.manifest import first_day, is_current, read_manifest
from paretohqd_jax.pipeline import Run, StageDone, source_digest


class Method:
    """Three steps, a -> b and c alone, that note when they run."""

    def __init__(self, workdir: Path, begin_with: Path | None = None) -> None:
        self.workdir = workdir
        self.begin_with = begin_with
        self.ran: list[str] = []
        self.fail_in = ""

    def __call__(self, a: int = 1, b: int = 1, c: int = 1, only_stage: str = "") -> None:
        run = Run(self.workdir, {"a": a, "b": b, "c": c}, only_stage, begin_with=self.begin_with)
        first = run.step("a", "a.txt", self._work, value=a)
        run.step("b", "b/out.txt", self._work, first, value={"deep": b})
        run.step("c", "c", self._fill_directory, value=c)

    def _work(self, path: Path, scratch: Path, *inputs, value) -> None:
        self.ran.append(path.name)
        (scratch / "shard").touch()
        if self.fail_in == path.name:
            raise RuntimeError("killed")
        path.write_text(f"{value} {[given.path.read_text() for given in inputs]}")

    def _fill_directory(self, path: Path, scratch: Path, value) -> dict[str, int]:
        self.ran.append("c")
        path.mkdir()
        (path / f"{value}").touch()
        return {"tokens_generated": 7}

    def again(self, **options) -> list[str]:
        self.ran = []
        self(**options)
        return self.ran


@pytest.fixture
def method(tmp_path):
    return Method(tmp_path / "run")


def test_finished_steps_are_skipped(method):
    assert method.again() == ["a.txt", "out.txt", "c"]
    assert method.again() == []
    assert not (method.workdir / "partial" / "a").exists()


def test_a_changed_option_reruns_exactly_what_depends_on_it(method):
    method()
    assert method.again(b=2) == ["out.txt"]
    assert method.again(b=2, a=2) == ["a.txt", "out.txt"]
    assert method.again(b=2, a=2, c=5) == ["c"]
    assert [entry.name for entry in (method.workdir / "c").iterdir()] == ["5"]


def test_a_lost_output_is_made_again(method):
    method()
    (method.workdir / "a.txt").unlink()
    assert method.again() == ["a.txt"]


def test_the_finished_steps_of_another_run_are_copied_where_they_are_the_same(method, caplog):
    method(b=2)
    (method.workdir / "logs/c").mkdir(parents=True)
    (method.workdir / "logs/c/events").write_text("losses")
    other = Method(method.workdir.parent / "other", method.workdir)
    with caplog.at_level("INFO", pipeline.__name__):
        assert other.again() == ["out.txt"]
    assert f"c: copied from {method.workdir}" in caplog.messages
    assert (other.workdir / "logs/c/events").read_text() == "losses"
    first, second = (read_manifest(path) for path in (method.workdir, other.workdir))
    assert first["a"] == second["a"] and first["b"] != second["b"]
    assert other.again() == [] and not [*(other.workdir / "partial").iterdir()]
    (method.workdir / "c/1").write_text("changed")  # the copy is a copy
    assert (other.workdir / "c/1").read_text() == ""
    assert other.again(c=2) == ["c"]


def test_a_run_to_begin_with_is_at_rest_and_there(method):
    held = Run(method.workdir, {})
    with pytest.raises(InputError, match="no run has finished a step there"):
        check_finished(method.workdir, method.workdir)
    other = Method(method.workdir.parent / "other", method.workdir)
    with pytest.raises(InputError, match="another process is running there; wait for it"):
        other()
    held.close()
    assert other.again() == ["a.txt", "out.txt", "c"]
    with pytest.raises(InputError, match="is the --workdir itself"):
        check_finished(other.workdir, other.workdir / ".." / other.workdir.name)


def test_a_run_to_begin_with_may_be_without_its_lock(method):
    method()
    (method.workdir / ".lock").unlink()
    assert Method(method.workdir.parent / "other", method.workdir).again() == []
    assert not (method.workdir / ".lock").exists()


def test_a_copy_cut_off_leaves_what_the_step_goes_on_from(method, monkeypatch):
    method()
    fingerprint = read_manifest(method.workdir)["c"]["fingerprint"]
    other = method.workdir.parent / "other"
    made = other / "partial/c/c"
    made.mkdir(parents=True)
    (made / "checkpoint").write_text("half way")

    def copy_in_part(source: Path, to: Path, *, dirs_exist_ok: bool) -> None:
        (to / "1").touch()
        raise OSError("disk full")

    def copy() -> list[str]:
        copy_step(method.workdir, other, "c", fingerprint, Path("c"), made)
        return [path.name for path in made.iterdir()]

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", copy_in_part)
        with pytest.raises(OSError, match="disk full"):
            copy()
    assert [path.name for path in made.iterdir()] == ["checkpoint"]
    assert copy() == ["1"]


def test_a_step_cut_off_keeps_its_shards_unless_its_options_changed(method):
    shard = method.workdir / "partial" / "b" / "scratch" / "shard"
    method.fail_in = "out.txt"
    with pytest.raises(RuntimeError):
        method()
    assert shard.exists()
    shard.write_text("kept")
    with pytest.raises(RuntimeError):
        method()
    assert shard.read_text() == "kept"
    with pytest.raises(RuntimeError):
        method(b=9)
    assert shard.read_text() == ""
    method.fail_in = ""
    assert method.again(b=9) == ["out.txt", "c"]


def test_a_step_that_fails_leaves_what_was_done_before(method):
    method()
    done = (method.workdir / "b" / "out.txt").read_bytes()
    method.fail_in = "out.txt"
    with pytest.raises(RuntimeError):
        method(b=7)
    assert (method.workdir / "b" / "out.txt").read_bytes() == done
    assert method.again() == []


def test_one_stage_runs_alone_and_needs_those_before_it(method):
    with pytest.raises(InputError, match="--stage=b needs step a, .*not done yet"):
        method(only_stage="b")
    with pytest.raises(StageDone):
        method(only_stage="a")
    with pytest.raises(StageDone):
        method.again(only_stage="b")
    assert method.ran == ["out.txt"]
    with pytest.raises(InputError, match="needs step a, .*value was 1, is 7"):
        method(a=7, only_stage="b")


def test_the_manifest_tells_what_was_done(method):
    method(b=3)
    manifest = json.loads((method.workdir / "manifest.json").read_text())
    assert manifest["steps"]["b"]["options"] == {"value": {"deep": 3}}
    assert manifest["steps"]["b"]["seconds"] >= 0
    assert [manifest["steps"][step]["cost"] for step in "bc"] == [{}, {"tokens_generated": 7}]
    assert "jax" in manifest["steps"]["b"]["versions"]
    assert json.loads((method.workdir / "config.json").read_text()) == {"a": 1, "b": 3, "c": 1}


def test_a_second_process_is_kept_out(method):
    held = Run(method.workdir, {})
    with pytest.raises(InputError, match="another process"):
        Run(method.workdir, {})
    del held


def test_a_run_that_is_closed_lets_others_in_whoever_keeps_it(method):
    kept = Run(method.workdir, {})
    kept.close()
    method()


def test_a_job_of_several_processes_waits_for_the_lock_of_a_lost_one(method, monkeypatch):
    held = Run(method.workdir, {})
    monkeypatch.setattr(pipeline, "is_alone", lambda: False)
    # What is called while it waits: so late, the file server lets go.
    monkeypatch.setattr(pipeline, "check_preemption", held._lock.close)
    Run(method.workdir, {})
    assert held._lock.closed


def test_a_damaged_manifest_is_named(method):
    method()
    record = '{"fingerprint": "x", "inputs": [], "seconds": 1.0, "cost": {}}'
    steps = f'{{"layout": 2, "steps": {{"a": {record}}}}}'
    for damaged in ("{", "[]", '{"layout": 2, "steps": {"a": 3}}', steps):
        (method.workdir / "manifest.json").write_text(damaged)
        with pytest.raises(InputError, match="manifest.json: damaged"):
            method()


def test_run_directories_of_another_layout_are_refused(method):
    method()
    (method.workdir / "manifest.json").write_text('{"score": {"fingerprint": "a"}}')
    with pytest.raises(InputError, match="run: is a run directory of layout 1, made by another"):
        method()


def test_what_a_step_left_is_current_while_all_before_it_is_what_it_was_made_from(method):
    def current():
        return is_current(method.workdir, read_manifest(method.workdir), "b")

    assert not current()
    method()
    assert current()
    manifest = json.loads((method.workdir / "manifest.json").read_text())
    manifest["steps"]["a"]["fingerprint"] = "made again"
    (method.workdir / "manifest.json").write_text(json.dumps(manifest))
    assert not current()


def test_a_file_is_known_by_its_bytes_and_a_directory_by_its_files(tmp_path):
    path = tmp_path / "dir" / "file"
    path.parent.mkdir()
    path.write_text("one")
    digests = [source_digest(str(path)), source_digest(str(path.parent))]
    path.write_text("three")
    assert source_digest(str(path)) != digests[0] and source_digest(str(path.parent)) != digests[1]
    assert source_digest("quickstart") == "quickstart" and source_digest("") == ""


def test_a_run_keeps_the_day_it_began(tmp_path):
    today = first_day(tmp_path)
    assert today == datetime.date.today().isoformat()
    for recorded in ("{", "[]", '{"data": {}}', '{"data": {"date": ""}}', '{"data": null}'):
        (tmp_path / "config.json").write_text(recorded)
        assert first_day(tmp_path) == today
    (tmp_path / "config.json").write_text('{"data": {"date": "2024-02-03"}}')
    assert first_day(tmp_path) == "2024-02-03"
