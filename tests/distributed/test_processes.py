"""Real processes on simulated CPU devices: how they meet, decide, and end together."""

from __future__ import annotations

import os
import signal

import pytest
from jobs import run_together

TERMINATE_1 = "if me == 1: os.kill(os.getpid(), signal.SIGTERM)\n"


def test_process_0_decides_and_all_meet(tmp_path):
    ends = run_together(
        "value = distributed.on_main_process(lambda: os.getpid())\n"
        "come = pathlib.Path(sys.argv[-1])\n"
        "if me == 1:\n"
        "    time.sleep(0.5)\n"
        "    come.touch()\n"
        "distributed.barrier()\n"
        "assert come.exists()\n"
        "print(value, distributed.describe(), distributed.is_main_process())",
        flags=[str(tmp_path / "come")],
    )
    assert [end.status for end in ends] == [0, 0], ends
    lines = [end.out.splitlines()[-1].split(maxsplit=1) for end in ends]
    assert lines[0][0] == lines[1][0]
    assert lines[0][1] == "process 0 of 2 with 2 of 4 cpu devices True"
    assert lines[1][1] == "process 1 of 2 with 2 of 4 cpu devices False"


def test_a_process_that_never_joins_is_named():
    ends = run_together("", num_processes=4, absent=(1, 3), flags=["--join_timeout=3"])
    for end in ends:
        assert end.status == 75
        [line] = end.errors
        assert "2 of 4 processes did not join within 3 s: 1, 3;" in line


WAIT = "time.sleep(600)"


@pytest.mark.parametrize(
    ("code", "statuses", "errors"),
    [
        (f"if me == 1: raise InputError('bad row')\n{WAIT}", [2, 2], ["process 1: bad row"]),
        ("if me == 0: raise InputError('bad row')\ndistributed.barrier()", [2, 2], ["bad row"]),
        (
            "if me == 1: processes.SECONDS_TO_EXPLAIN = 30.0\nraise InputError('bad row')",
            [2, 2],
            ["bad row"],
        ),
        (
            f"if me == 1: os.kill(os.getpid(), 9)\n{WAIT}",
            [75, -9],
            ["process 1: has ended without a word; the same command resumes"],
        ),
        (
            "processes.SECONDS_TO_EXPLAIN = 60.0\n"
            "if me == 0: raise InputError('cannot be read')\n"
            "time.sleep(0.4)\nos.kill(os.getpid(), 9)",
            [75, -9],
            ["process 1: has ended without a word; the same command resumes"],
        ),
        (
            f"if me == 1: os.kill(os.getpid(), signal.SIGINT)\n{WAIT}",
            [130, 130],
            ["process 1: interrupted; the same command resumes"],
        ),
    ],
    ids=["mistake in 1", "mistake in 0", "mistake in both", "kill", "seen before", "interrupt"],
)
def test_what_ends_one_process_ends_all_with_one_line(code, statuses, errors):
    ends = run_together(code)
    assert [end.status for end in ends] == statuses, ends
    assert [line for end in ends for line in end.errors] == [f"error: {line}" for line in errors]


def test_the_first_process_killed_ends_the_other():
    ends = run_together(f"if me == 0: os.kill(os.getpid(), 9)\n{WAIT}")
    assert ends[0].status == -signal.SIGKILL
    assert ends[1].status in (75, -signal.SIGABRT)  # ours, or JAX's service was faster


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_killed_while_jax_waits_for_it_ends_the_other(killed):
    ends = run_together(
        WAIT,
        before="import jax\n"
        "def die(*_, **__): os.kill(os.getpid(), 9)\n"
        f"if '--process_id={killed}' in sys.argv: jax.distributed.initialize = die",
    )
    assert ends[killed].status == -signal.SIGKILL
    assert ends[1 - killed].status == 75
    assert ends[1 - killed].errors == [
        f"error: process {killed}: has ended without a word; the same command resumes"
    ]


def test_sigterm_to_one_stops_all_at_the_same_step():
    ends = run_together(
        "for step in range(1000):\n"
        "    if step == 20 and me == 1: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.03 + 0.01 * me)\n"
        "    if distributed.reached_preemption():\n"
        "        print('stopped at', step)\n"
        "        raise distributed.Preempted\n"
    )
    assert [end.status for end in ends] == [143, 143], ends
    lines = [end.out.splitlines()[-1] for end in ends]
    assert lines[0] == lines[1] and lines[0].startswith("stopped at ")


def test_sigterm_while_process_0_works_alone_stops_all():
    ends = run_together(
        "def work():\n"
        "    for step in range(1000):\n"
        "        time.sleep(0.03)\n"
        "        distributed.check_preemption()\n"
        "distributed.barrier()\n" + TERMINATE_1 + "distributed.on_main_process(work)\n"
    )
    assert [end.status for end in ends] == [143, 143], ends


def test_the_count_of_polls_is_that_of_process_0_after_it_worked_alone():
    ends = run_together(
        "poll = distributed.reached_preemption\n"
        "distributed.on_main_process(lambda: [poll() for _ in range(40)])\n"
        "distributed.barrier()\n" + TERMINATE_1 + "for step in range(1000):\n"
        "    time.sleep(0.03)\n"
        "    distributed.check_preemption()\n"
    )
    assert [end.status for end in ends] == [143, 143], ends


def test_a_run_directory_that_is_not_shared_is_named(tmp_path):
    ends = run_together(
        "from pathlib import Path\n"
        "from paretohqd_jax import pipeline\n"
        "pipeline.SECONDS_TO_APPEAR = 0.5\n"
        f"pipeline.Run(Path({str(tmp_path)!r}) / str(me), {{}})\n"
    )
    assert [end.status for end in ends] == [2, 2]
    [line] = [line for end in ends for line in end.errors]
    assert f"{tmp_path}/1 of process 1 is not the run directory of process 0" in line
    assert "storage that all hosts share" in line


CHECKPOINTS = """
import jax, numpy as np
from pathlib import Path
from paretohqd_jax.training import checkpoints, mesh

directory, meta = Path(sys.argv[-1]), {"rank": 2}
cut = jax.NamedSharding(mesh.make_mesh(), jax.P("data"))
values = np.arange(24.0, dtype=np.float32).reshape(4, 6)
adapters = jax.make_array_from_callback((4, 6), cut, values.__getitem__)

def restored(manager, shape, meta):
    like = {"adapters": jax.ShapeDtypeStruct(shape, np.float32, sharding=cut)}
    try:
        return checkpoints.restore_latest(manager, like, meta)["adapters"]
    except InputError as error:
        print(error)

with checkpoints.checkpoint_manager(directory, 1) as manager:
    checkpoints.save(manager, 1, {"adapters": adapters}, meta, force=True)
with checkpoints.checkpoint_manager(directory, 1) as manager:
    same = restored(manager, (4, 6), meta)
    assert all((part.data == values[part.index]).all() for part in same.addressable_shards)
    restored(manager, (4, 6), {"rank": 4})
    restored(manager, (8, 6), meta)
if me == 0:  # alone
    assert (checkpoints.load_adapters(directory, meta) == values).all()
distributed.barrier()
with checkpoints.checkpoint_manager(directory, 1) as manager:
    checkpoints.save(manager, 2, {"adapters": adapters}, meta, force=True)
if me == 0:
    (directory / "2" / "state" / "_METADATA").unlink()
distributed.barrier()
with checkpoints.checkpoint_manager(directory, 1) as manager:
    assert manager.latest_step() == 1
    assert restored(manager, (4, 6), meta) is not None
    checkpoints.save(manager, 2, {"adapters": adapters}, meta, force=True)
assert sorted(path.name for path in directory.iterdir()) == ["1", "2"]
"""


def test_checkpoints_of_two_processes_and_what_does_not_fit_them(tmp_path):
    ends = run_together(CHECKPOINTS, flags=[str(tmp_path / "stage1")])
    assert [end.status for end in ends] == [0, 0], ends
    for end in ends:
        meta, shape = (line for line in end.out.splitlines() if "delete this folder" in line)
        assert "stage1: the checkpoint was made with rank=2, this run has 4" in meta
        assert "stage1: checkpoint 1 cannot be read" in shape and "(8, 6)" in shape


def test_flags_of_a_job_that_do_not_fit_are_one_line():
    from paretohqd_jax import main
    from paretohqd_jax.errors import InputError

    for flags, message in (
        (["--coordinator=localhost:80"], "together, or none"),
        (["--coordinator=h:80", "--num_processes=2", "--process_id=2"], "count from 0"),
        (["--num_processes=two"], "two"),
        (["--num_processes=0", "--process_id=0", "--coordinator=h:80"], "use 1 or more"),
        (["--join_timeout=0"], "join_timeout"),
    ):
        with pytest.raises(InputError, match=message):
            main.join_job(["paretohqd", *flags])


def test_a_single_process_stays_without_a_service_and_hears_sigterm():
    from paretohqd_jax import distributed

    distributed.initialize(None, None, None, 1.0)
    try:
        distributed.barrier()
        assert distributed.on_main_process(lambda: 3) == 3 and distributed.is_main_process()
        distributed.check_preemption()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(distributed.Preempted):
            distributed.check_preemption()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one ends it at once
    finally:
        distributed.shutdown()
    distributed.check_preemption()
