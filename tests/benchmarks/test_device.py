"""The programme for an accelerator: what is left to do, failures, and the tables made of lines."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial

import device
import kernels
import programme
import pytest
import sizes
from device_report import report

TOY = ["--shape=toy"]


def timed(part, job, seconds=2.0, work=((6e12, 0.0),), **more):
    return {
        "shape": "toy", "part": part, "job": job, "device": "TPU v9", "where": "", "first": 9.0,
        "date": "2026-11-28T12:00:00", "seconds": [seconds], "memory": 8e9, "amount": 100,
        "work": [*map(list, work)], **more,
    }  # fmt: skip


PEAKS = {"flops": 6e12, "bandwidth": 1e12, "product_flops": 5e12, "copy_bandwidth": 9e11}


def lines():
    peaks = timed("peaks", "peaks") | PEAKS
    train = {"loss": 1.0, "estimate": 16e9}
    answers = {"answers": [[1, 2], [3, 4]]}
    return [
        peaks,
        timed("b", "2 adapters, full", **train),
        timed("b", "one adapter, full", seconds=4.0, **train),
        timed("c", "3 x 2 rows", work=[(3e12, 0.0), (0.0, 5e11)], **answers),
        {"shape": "toy", "part": "c", "job": "transformers, 6 rows", "date": "2026-11-28T12:00:00",
         "where": "", "missing": "torch is not installed"},
        timed("f", "forward pass, ours"),
        timed("f", "selection", work=[]),
    ]  # fmt: skip


def test_answers_are_compared_that_both_have():
    theirs = timed("c", "transformers, 6 rows", answers=[[1, 2], [3, 5], [6, 7]])
    assert cells(report([*lines()[:4], theirs]), "3 x 2 rows")[-1] == "75%"


def cells(text, job):
    line = next(line for line in text.splitlines() if line.startswith(f"| {job} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_lines_become_tables():
    text = report(lines())
    tokens, rate, _, of_one, of_peft, utilisation, memory, of_estimate, *_ = cells(
        text, "2 adapters, full"
    )
    assert (tokens, rate, of_one, of_peft) == ("100", "50", "2.00", "–")
    assert (utilisation, memory, of_estimate) == ("50.0%", "8.00", "0.50")
    assert cells(text, "3 x 2 rows")[3] == "50.0%"  # 0.5 + 0.5 of 2 s
    assert "transformers, 6 rows: missing: torch is not installed" in text
    assert float(cells(text, "**whole task**")[-1].strip("*")) > 0  # projected


def test_no_projection_without_its_stages():
    told = [line for line in lines() if line["job"] != "selection"]
    assert "No projection yet: selection not measured." in report(told)


def test_a_second_call_goes_on_and_what_there_is_no_time_for_is_told(tmp_path, capsys):
    for line in lines():
        device.write_line(tmp_path, line)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"shape": "toy", "par')  # killed as it wrote
    options = device.parse([*TOY, f"--out={tmp_path}", "--parts=c,f"])
    assert [job.name for job in device.left_to_do(options)] == ["transformers, 6 rows"]

    assert device.main([*TOY, f"--out={tmp_path}", "--parts=c,f", "--seconds=6"]) == 1
    assert "c transformers, 6 rows: 0 s: there were 1 s left" in capsys.readouterr().out
    assert "transformers, 6 rows: skipped: there" in (tmp_path / "report.md").read_text()


def test_what_failed_is_tried_again_after_all_else(tmp_path):
    first, *others = programme.jobs("toy")
    line = {"shape": "toy", "part": first.part, "job": first.name, "failed": "status 1"}
    device.write_line(tmp_path, line)
    left = device.left_to_do(device.parse([*TOY, f"--out={tmp_path}"]))
    assert [job.name for job in left] == [*(job.name for job in others), first.name]


def test_a_job_leaves_figures_or_its_last_words(tmp_path):
    options = device.parse([*TOY, f"--out={tmp_path}"])
    selection = next(job for job in programme.jobs("toy") if job.name == "selection")
    assert device.run(selection, options, 100) == ""
    [line] = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert line["seconds"][0] > 0 and line["device"]
    assert "killed after 0 s" in device.run(selection, options, 0.1)
    unknown = selection._replace(name="no such job")
    assert "status 1: " in (said := device.run(unknown, options, 100))
    assert "not enough values to unpack" in said


def test_a_missing_peer_is_told_and_any_other_missing_package_is_a_failure(tmp_path, monkeypatch):
    def lack(name):
        yield importlib.import_module(name)

    jobs = [programme.Job("d", name, partial(lack, name), 5) for name in ("peft", "no_package")]
    monkeypatch.setattr(programme, "jobs", lambda shape: jobs)
    monkeypatch.setitem(sys.modules, "peft", None)
    device.run_job(device.parse([*TOY, f"--out={tmp_path}", "--job=peft"]))
    assert device.read_lines(tmp_path)[0]["missing"] == "peft is not installed"
    with pytest.raises(ModuleNotFoundError):
        device.run_job(device.parse([*TOY, f"--out={tmp_path}", "--job=no_package"]))


def test_every_part_has_jobs_at_every_size():
    for shape in sizes.SIZES:
        names = [job.name for job in programme.jobs(shape)]
        assert len(set(names)) == len(names)
        parts = {job.part for job in programme.jobs(shape)}
        assert parts == set(programme.PARTS) - {"g"}
        assert any(job.profiled for job in programme.jobs(shape))


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        device.parse(["--parts=b,h"])
    assert "'h' is none of" in capsys.readouterr().err


def test_kernels_are_summed_by_name():
    import jax
    import jax.numpy as jnp

    double = jax.jit(lambda x: jnp.sin(x @ x))
    matrix = jnp.ones((64, 64))
    double(matrix)
    found = kernels.longest_kernels(lambda: double(matrix).block_until_ready(), count=1)
    [[name, seconds, calls]] = found["longest"]
    assert name and calls >= 1 and 0 < seconds <= found["all"]
