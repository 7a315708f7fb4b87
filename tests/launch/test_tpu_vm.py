"""The TPU VM scripts, against a stand-in for gcloud that keeps two hosts as two folders."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import AWKWARD, shell_words

TPU = {"NAME": "my-tpu", "PROJECT": "my-project", "ZONE": "us-east5-a"}
CREATE = {"ACCELERATOR_TYPE": "v5p-8", "RUNTIME_VERSION": "v2-alpha-tpuv5"}
ALL = TPU | CREATE | {"STORAGE": "10.0.0.2:/share"}

# The request is a file with its state; a host is a folder, its HOME. ssh runs the line given by
# --command with bash, as the hosts' login shell does. A preempted TPU leaves nothing behind.
GCLOUD = f"""#!{sys.executable}
import os, pathlib, shutil, subprocess, sys
cloud = pathlib.Path(os.environ["CLOUD"])
with open(cloud / "calls", "a") as file:
    file.write(" ".join(sys.argv[3:6]) + "\\n")
words = [word for word in sys.argv[1:] if not word.startswith("--")]
flags = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
request, hosts = cloud / "state", [cloud / "host0", cloud / "host1"]
action = words[2:4]
assert words[:2] == ["compute", "tpus"] and flags["project"] == "my-project", sys.argv
if action == ["queued-resources", "create"]:
    assert not request.exists() and flags["node-id"] == words[4] == "my-tpu"
    request.write_text("ACTIVE")
    for host in hosts:
        host.mkdir()
elif action == ["queued-resources", "describe"]:
    sys.exit("NOT_FOUND") if not request.exists() else print(request.read_text())
elif action == ["queued-resources", "delete"]:
    request.unlink()
    for host in hosts:  # out of reach, also of a shell there that is about to leave a status
        host.rename(cloud / f"gone{{os.getpid()}}-{{host.name}}")
elif action == ["tpu-vm", "scp"]:
    for host in hosts:
        shutil.copy(words[4], host / words[5].removeprefix("my-tpu:"))
else:
    assert action == ["tpu-vm", "ssh"] and words[4] == "my-tpu", sys.argv
    print("ssh: connecting")
    for number, host in enumerate(hosts):
        if flags["worker"] in ("all", str(number)):
            environment = os.environ | {{"HOME": str(host), "HOST": str(number)}}
            subprocess.run(["bash", "-c", flags["command"]], cwd=host, env=environment, check=True)
"""
# What setup calls on a host: the environment it makes holds the stand-in for the program.
UV = """if [ $1 = venv ]; then mkdir -p .venv/bin; cp "$CLOUD/program" .venv/bin/python; fi"""
PIP = """mkdir -p "$HOME/.local/bin"; cp "$CLOUD/uv" "$HOME/.local/bin/uv" """


@pytest.fixture
def cloud(tmp_path, programs):
    """The stand-in cloud; `program` is run in place of Python by every host."""
    directory = tmp_path / "cloud"
    directory.mkdir()
    programs("gcloud", GCLOUD)
    programs("sudo", 'echo "$@" >> "$CLOUD/sudo"')
    programs("mountpoint", "exit 1")
    programs("python3", PIP)
    (directory / "uv").write_text(f"#!/bin/bash\n{UV}\n")
    (directory / "uv").chmod(0o755)

    def program(code: str) -> Path:
        path = directory / "program"
        path.write_text(
            f"#!{sys.executable} -S\nimport json, os, pathlib, signal, sys, time\n"
            "host, cloud = os.environ['HOST'], pathlib.Path(os.environ['CLOUD'])\n" + code
        )
        path.chmod(0o755)
        return directory

    return program


def calls(cloud: Path) -> list[str]:
    return (cloud / "calls").read_text().splitlines()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_status(launch, given: dict[str, str], status: str) -> str:
    """Asks until both hosts say so; the last answer."""
    answers: list[str] = []

    def both() -> bool:
        answers.append(launch("tpu_vm.sh", "status", **given).stdout)
        return answers[-1].count(f"paretohqd: {status}\n") == 2

    wait_until(both)
    return answers[-1]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (["create"], "queued-resources create my-tpu --node-id=my-tpu --accelerator-type=v5p-8"),
        (["status"], "queued-resources describe my-tpu '--format=value(state.state)'"),
        (["setup"], "tpu-vm scp"),
        (["run", "--config=c.py"], "tpu_worker.sh start --config=c.py'"),
        (["logs"], "ssh my-tpu --worker=0 '--command=paretohqd_jax/launch/tpu_worker.sh logs'"),
        (["logs", "3"], "--worker=3"),
        (["stop"], "ssh my-tpu --worker=all '--command=paretohqd_jax/launch/tpu_worker.sh stop'"),
        (["delete"], "queued-resources delete my-tpu --force"),
        (["babysit", "--config=c.py"], "tpu_worker.sh start --config=c.py'"),
    ],
)  # fmt: skip
def test_dry_run_prints_the_commands(action, expected, launch):
    ran = launch("tpu_vm.sh", "--dry-run", *action, **ALL)
    assert ran.returncode == 0, ran.stderr
    assert expected in ran.stdout
    for line in ran.stdout.splitlines():
        if line.startswith("gcloud "):
            words = shell_words(line)
            assert {"--project=my-project", "--zone=us-east5-a"} <= {*words}
    assert ("--spot" in ran.stdout) is False


def test_a_spot_tpu_is_asked_for(launch):
    assert "--spot" in launch("tpu_vm.sh", "--dry-run", "create", **ALL, SPOT="true").stdout


@pytest.mark.parametrize(
    ("action", "missing"),
    [("status", name) for name in TPU]
    + [("create", name) for name in CREATE]
    + [("setup", "STORAGE"), ("babysit", "STORAGE"), ("babysit", "RUNTIME_VERSION")],
)
def test_missing_variables_are_named(action, missing, launch):
    given = {name: value for name, value in ALL.items() if name != missing}
    ran = launch("tpu_vm.sh", "--dry-run", action, "--config=c.py", **given)
    assert ran.returncode != 0 and ran.stdout == ""
    assert f"{missing}: is not set" in ran.stderr


@pytest.mark.parametrize("arguments", [[], ["run"], ["babysit"], ["destroy"]])
def test_wrong_actions_are_refused(arguments, launch):
    ran = launch("tpu_vm.sh", "--dry-run", *arguments, **ALL)
    assert ran.returncode != 0 and ran.stdout == ""
    assert "no arguments" in ran.stderr or "usage: " in ran.stderr


def test_values_are_words_in_the_dry_run(launch):
    awkward = dict.fromkeys(ALL, AWKWARD) | {"NAME": "my-tpu", "STORAGE": "nfs:/" + AWKWARD}
    ran = launch("tpu_vm.sh", "--dry-run", "babysit", "--workdir=" + AWKWARD, **awkward)
    assert ran.returncode == 0, ran.stderr
    lines = [shell_words(line) for line in ran.stdout.splitlines() if line.startswith("gcloud")]
    assert all("--project=" + AWKWARD in words for words in lines)
    start = next(word for word in lines[-1] if word.startswith("--command="))
    assert "tpu_worker.sh start" in start


def test_a_run_from_request_to_result(launch, cloud, tmp_path):
    directory = cloud(
        "print('hello from', host); (cloud / host).write_text(json.dumps(sys.argv[1:]))"
    )
    given = ALL | {"CLOUD": str(directory), "STORAGE": "10.0.0.2:/a share;$(touch owned)"}
    for action in (["create"], ["setup"], ["run", "--config=c.py", "--workdir=" + AWKWARD]):
        ran = launch("tpu_vm.sh", *action, **given)
        assert ran.returncode == 0, ran.stderr
    assert "ACTIVE" in wait_for_status(launch, given, "0")
    for host in "01":
        words = ["-m", "paretohqd_jax.main", "--config=c.py", "--workdir=" + AWKWARD]
        assert (directory / host).read_text() == json.dumps(words)
        log = directory / f"host{host}/paretohqd_jax/.run/log"
        assert log.read_text() == f"hello from {host}\n"
    assert (
        "mount -t nfs 10.0.0.2:/a share;$(touch owned) /mnt/shared"
        in (directory / "sudo").read_text()
    )
    assert launch("tpu_vm.sh", "delete", **given).returncode == 0


def test_stop_saves_and_a_second_run_must_wait(launch, cloud):
    directory = cloud(
        "def save(*_):\n    time.sleep(0.3); print('saved', flush=True); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "(cloud / f'ready{host}').touch(); time.sleep(500)"
    )
    given = ALL | {"CLOUD": str(directory)}
    for action in (["create"], ["setup"], ["run", "x"]):
        assert launch("tpu_vm.sh", *action, **given).returncode == 0
    wait_until(lambda: all((directory / f"ready{host}").exists() for host in "01"))
    assert launch("tpu_vm.sh", "status", **given).stdout.count("paretohqd: running\n") == 2
    again = launch("tpu_vm.sh", "run", "x", **given)
    assert again.returncode != 0 and "a run is going on" in again.stderr
    again = launch("tpu_vm.sh", "setup", **given)
    assert again.returncode != 0 and "a run is going on" in again.stderr
    assert launch("tpu_vm.sh", "stop", **given).returncode == 0
    wait_for_status(launch, given, "143")
    assert launch("tpu_vm.sh", "stop", **given).returncode == 0  # nothing left to stop


# The first attempt is preempted and saves, the second loses its TPU, the third loses a host's
# process, the fourth is done.
ATTEMPTS = """
attempt = cloud / f"attempts{host}"
number = len(attempt.read_text()) if attempt.exists() else 0
attempt.write_text("x" * (number + 1))
if number == 1 and host == "0":
    while (cloud / "attempts1").read_text() != "xx":
        time.sleep(0.01)
    (cloud / "state").write_text("SUSPENDED")
sys.exit([143, 143, 75, 0][number])
"""


def test_babysit_goes_on_until_the_run_is_done(launch, cloud):
    directory = cloud(ATTEMPTS)
    given = ALL | {"CLOUD": str(directory), "POLL_SECONDS": "0.4"}
    ran = launch("tpu_vm.sh", "babysit", "--config=c.py", **given)
    assert ran.returncode == 0, ran.stderr
    assert [(directory / f"attempts{host}").read_text() for host in "01"] == ["xxxx"] * 2
    requests = [call for call in calls(directory) if "create" in call or "delete" in call]
    create, delete = "queued-resources create my-tpu", "queued-resources delete my-tpu"
    assert requests == [create, delete, create]


def test_babysit_goes_on_after_a_host_was_restarted(launch, cloud):
    # Host 1 restarts without leaving a status; the others are ended by JAX's service.
    directory = cloud(
        "again = cloud / f'again{host}'\n"
        "if again.exists(): sys.exit(0)\n"
        "again.touch()\n"
        "if host == '1': os.kill(os.getppid(), signal.SIGKILL)\n"
        "sys.exit(134)"
    )
    given = ALL | {"CLOUD": str(directory), "POLL_SECONDS": "0.4"}
    ran = launch("tpu_vm.sh", "babysit", "--config=c.py", **given)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("num_kills", "status"), [(3, 0), (4, 137)])
def test_babysit_goes_on_three_times_after_a_process_was_killed(
    num_kills, status, launch, cloud
):  # fmt: skip
    directory = cloud(
        "attempt = cloud / f'attempts{host}'\n"
        "number = len(attempt.read_text()) if attempt.exists() else 0\n"
        "attempt.write_text('x' * (number + 1))\n"
        f"sys.exit(0 if number == {num_kills} else 137 if host == '1' else 75)"
    )
    given = ALL | {"CLOUD": str(directory), "POLL_SECONDS": "0.4"}
    ran = launch("tpu_vm.sh", "babysit", "--config=c.py", **given)
    assert ran.returncode == status, ran.stderr
    assert (directory / "attempts0").read_text() == "xxxx"


def test_babysit_stops_at_a_mistake(launch, cloud):
    directory = cloud("sys.exit(2)")
    given = ALL | {"CLOUD": str(directory), "POLL_SECONDS": "0.4"}
    ran = launch("tpu_vm.sh", "babysit", "--config=c.py", **given)
    assert ran.returncode == 2
    assert "the run ended with status 2" in ran.stderr


@pytest.mark.parametrize(
    "name, value",
    [("NAME", "--help"), ("NAME", AWKWARD), ("SPOT", "yes"), ("POLL_SECONDS", "a[$(touch owned)]")],
)
def test_variables_that_make_no_sense_are_refused(name, value, launch):
    ran = launch("tpu_vm.sh", "--dry-run", "create", **ALL | {name: value})
    assert ran.returncode == 2 and ran.stdout == ""
    assert f"error: {name}='{value}'" in ran.stderr


def test_storage_that_cannot_be_mounted_is_refused(launch):
    ran = launch("tpu_vm.sh", "--dry-run", "setup", **ALL | {"STORAGE": "10.0.0.2"})
    assert ran.returncode == 2 and "STORAGE='10.0.0.2' is not SERVER:/SHARE" in ran.stderr
