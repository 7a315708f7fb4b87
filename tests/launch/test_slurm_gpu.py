"""The Slurm script: what it asks for, what each task runs, and when it goes back to the queue."""

from __future__ import annotations

import pytest
from scripts import AWKWARD, shell_words

JOB = {"NODES": "2", "GPUS_PER_NODE": "4", "TIME": "04:00:00"}


def test_dry_run(launch):
    ran = launch("slurm_gpu.sh", "--dry-run", "--config=c.py", "--workdir=" + AWKWARD, **JOB)
    assert ran.returncode == 0, ran.stderr
    submission, _, task, _, requeue = ran.stdout.splitlines()
    words = shell_words(submission)
    assert words[0] == "sbatch"
    for option in (
        "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=8",
        "--time=04:00:00", "--requeue", "--open-mode=append", "--signal=TERM@120",
    ):  # fmt: skip
        assert option in words
    assert words[-3:] == ["--in-job", "--config=c.py", "--workdir=" + AWKWARD]
    words = shell_words(task)
    assert words[0] == "srun" and "--gpus-per-task" not in task
    program = [".venv/bin/python", "-m", "paretohqd_jax.main"]
    assert words[words.index("-m") - 1 :] == [*program, "--config=c.py", "--workdir=" + AWKWARD]
    assert requeue == 'scontrol requeue "$SLURM_JOB_ID"'


@pytest.mark.parametrize("missing", JOB)
def test_missing_variables_are_named(missing, launch):
    given = {name: value for name, value in JOB.items() if name != missing}
    ran = launch("slurm_gpu.sh", "--dry-run", "--config=c.py", **given)
    assert ran.returncode != 0 and ran.stdout == ""
    assert f"{missing}: is not set" in ran.stderr


def test_missing_arguments_are_named(launch):
    ran = launch("slurm_gpu.sh", "--dry-run", **JOB)
    assert ran.returncode != 0 and "no arguments" in ran.stderr


def test_values_reach_slurm_as_they_are(launch, recorder):
    calls = recorder("sbatch")
    ran = launch("slurm_gpu.sh", "--workdir=" + AWKWARD, **JOB | {"TIME": "1-12:30"})
    assert ran.returncode == 0, ran.stderr
    (words,) = calls()
    assert "--time=1-12:30" in words and words[-1] == "--workdir=" + AWKWARD


@pytest.mark.parametrize(
    ("name", "value"), [("NODES", "0"), ("TIME", "4 hours"), ("TIME", AWKWARD)]
)
def test_values_that_slurm_would_refuse(name, value, launch):
    ran = launch("slurm_gpu.sh", "--dry-run", "x", **JOB | {name: value})
    assert ran.returncode == 2 and f"{name}='{value}' is not a " in ran.stderr


def run_in_job(launch, recorder, status: int, **environment: str):
    calls = recorder("srun", f"sys.exit({status})"), recorder("scontrol")
    environment = JOB | {"SLURM_JOB_ID": "17", "PYTHON": "my python"} | environment
    ran = launch("slurm_gpu.sh", "--in-job", "--workdir=" + AWKWARD, **environment)
    assert ran.returncode == status
    srun, scontrol = (program() for program in calls)
    program = ["my python", "-m", "paretohqd_jax.main", "--workdir=" + AWKWARD]
    assert len(srun) == 1 and srun[0][-4:] == program
    return scontrol


@pytest.mark.parametrize("status", [75, 134, 137, 143])
def test_a_preempted_job_goes_back_to_the_queue(status, launch, recorder):
    assert run_in_job(launch, recorder, status) == [["requeue", "17"]]


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_a_job_that_is_done_or_failed_does_not(status, launch, recorder):
    assert run_in_job(launch, recorder, status) == []


def test_the_number_of_restarts_is_bounded(launch, recorder):
    restarts = {"MAX_RESTARTS": "3", "SLURM_RESTART_COUNT": "3"}
    assert run_in_job(launch, recorder, 143, **restarts) == []


@pytest.mark.parametrize(
    "name", ["NODES", "GPUS_PER_NODE", "CPUS_PER_GPU", "SAVE_SECONDS", "MAX_RESTARTS"]
)
def test_numbers_must_be_numbers(name, launch):
    ran = launch("slurm_gpu.sh", "--dry-run", "x", **JOB | {name: "a[$(touch owned)]"})
    assert ran.returncode == 2 and ran.stdout == ""
    assert f"{name}='a[$(touch owned)]' is not a number" in ran.stderr
