"""The JobSet: its manifest, what may restart, and values as they were given."""

from __future__ import annotations

import re

import pytest
import yaml
from scripts import AWKWARD

JOB = {
    "NAME": "llama2",
    "IMAGE": "gcr.io/p/i:1",
    "ACCELERATOR": "tpu-v4-podslice",
    "TOPOLOGY": "2x2x4",
    "HOSTS": "4",
    "CHIPS_PER_HOST": "4",
    "CLAIM": "shared",
}


def kubernetes_reads(argument: str) -> str:
    """Two dollars as one, as Kubernetes does before it looks for $(NAME)."""
    assert "$(" not in argument.replace("$$", "")
    return argument.replace("$$", "$")


def manifest(launch, *arguments: str, **environment: str):
    ran = launch("gke/submit.sh", "--dry-run", *arguments, **environment)
    assert ran.returncode == 0, ran.stderr
    assert "kubectl apply" in ran.stdout.splitlines()[0]
    return yaml.safe_load(ran.stdout)


def test_manifest(launch):
    arguments = ["--config=c.py", "--workdir=/mnt/shared/x"]
    job_set = manifest(launch, *arguments, **JOB)
    assert job_set["kind"] == "JobSet" and job_set["metadata"]["name"] == "llama2"
    (job,) = job_set["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 4
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # or podFailurePolicy is not allowed
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v4-podslice",
        "cloud.google.com/gke-tpu-topology": "2x2x4",
    }
    (container,) = pod["containers"]
    assert container["image"] == "gcr.io/p/i:1"
    assert container["command"] + container["args"] == [
        "python", "-m", "paretohqd_jax.main", *arguments,
    ]  # fmt: skip
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]


def test_which_failures_start_again(launch):
    spec = manifest(launch, "x", **JOB, MAX_RESTARTS="5")["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 5
    mistake, preempted = spec["failurePolicy"]["rules"]  # the first that matches counts
    assert mistake["action"] == "FailJobSet"
    assert preempted["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert mistake["onJobFailureReasons"] == preempted["onJobFailureReasons"]
    assert preempted["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0
    rules = job["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    *exits, disruption = [rule.get("onExitCodes") for rule in rules]
    assert [codes["values"] for codes in exits] == [[2, 3], [75, 134, 143]]
    assert {codes["containerName"] for codes in exits} == {"paretohqd"} and disruption is None
    assert rules[2]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # As Kubernetes words a Job's failure.
    message = "Container paretohqd for pod default/hh-slice-0-0-x failed with exit code {} "
    message += "matching FailJob rule at index {}"
    (pattern,) = mistake["onJobFailureMessagePatterns"]
    assert re.search(pattern, message.format(2, 0))
    assert not re.search(pattern, message.format(143, 1))


def test_values_stay_as_they_are(launch):
    names = ("IMAGE", "ACCELERATOR", "TOPOLOGY", "CLAIM")
    job_set = manifest(
        launch, AWKWARD, "$(NAME) $$(NAME)", "line\nline: [", **JOB | dict.fromkeys(names, AWKWARD)
    )
    pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    read = [kubernetes_reads(argument) for argument in container["args"]]
    assert read == [AWKWARD, "$(NAME) $$(NAME)", "line\nline: ["]
    values = [container["image"], *pod["nodeSelector"].values()]
    values.append(pod["volumes"][0]["persistentVolumeClaim"]["claimName"])
    assert values == [AWKWARD] * 4


def test_the_manifest_is_applied(launch, recorder, tmp_path):
    applied = tmp_path / "applied.yaml"
    calls = recorder("kubectl", f"open({str(applied)!r}, 'w').write(sys.stdin.read())")
    ran = launch("gke/submit.sh", "--config=c.py", **JOB)
    assert ran.returncode == 0, ran.stderr
    assert calls() == [["apply", "-f", "-"]]
    assert yaml.safe_load(applied.read_text()) == manifest(launch, "--config=c.py", **JOB)


@pytest.mark.parametrize("missing", JOB)
def test_missing_variables_are_named(missing, launch):
    given = {name: value for name, value in JOB.items() if name != missing}
    ran = launch("gke/submit.sh", "x", **given)
    assert ran.returncode != 0 and ran.stdout == ""
    assert f"{missing}: is not set" in ran.stderr


@pytest.mark.parametrize("name", ["HOSTS", "CHIPS_PER_HOST", "MAX_RESTARTS"])
def test_numbers_must_be_numbers(name, launch):
    ran = launch("gke/submit.sh", "x", **JOB | {name: "4\nevil: true"})
    assert ran.returncode == 2 and "is not a number" in ran.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("HOSTS", "0", "a number above 0"), ("NAME", "Llama_2", "lower-case letters")],
)
def test_values_that_kubernetes_would_refuse(name, value, message, launch):
    ran = launch("gke/submit.sh", "--dry-run", "x", **JOB | {name: value})
    assert ran.returncode == 2 and f"{name}='{value}' is not {message}" in ran.stderr


def test_missing_arguments_are_named(launch):
    ran = launch("gke/submit.sh", **JOB)
    assert ran.returncode != 0 and "no arguments" in ran.stderr
