"""One toy run on one device and on eight: the same rows, the same responses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from test_whole_runs import metrics
from toy_runs import CONFIG, one_device

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console

SHORT = ("--config.train.stage1_steps=8", "--config.train.stage2_steps=4")
EIGHT = ("--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2")


def run_toy(workdir: Path, *options: str) -> None:
    console(["paretohqd", f"--config={CONFIG}", f"--workdir={workdir}", *options])


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    path = tmp_path_factory.mktemp("one")
    with one_device():
        run_toy(path, *SHORT)
    return path


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    path = tmp_path_factory.mktemp("eight")
    run_toy(path, *SHORT, *EIGHT)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("selection/stage1.parquet", ("preference_id", "row_id")),
        ("generated.parquet", ("prompt", "policy", "response")),
        ("selection/stage2.parquet", ("preference_id", "row_id")),
        ("evaluation/responses.parquet", ("prompt", "family", "policy", "response")),
    ],
)
def test_eight_devices_select_and_say_what_one_does(on_one_device, on_eight, file, columns):
    one, eight = (read_table(path / file) for path in (on_one_device, on_eight))
    for name in columns:
        assert eight[name].to_pylist() == one[name].to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "num_steps"), [("stage1", 8), ("stage2", 4)])
def test_losses_agree_between_the_meshes(on_one_device, on_eight, stage, num_steps):
    one, eight = (metrics(path, stage) for path in (on_one_device, on_eight))
    losses = sorted(key for key in one if key[0].startswith("loss/"))
    assert len(losses) == 4 * num_steps
    np.testing.assert_allclose(
        [eight[key] for key in losses], [one[key] for key in losses], rtol=0, atol=1e-5
    )


@pytest.mark.slow
def test_the_mesh_is_no_reason_to_run_a_step_again(on_eight, capsys):
    run_toy(on_eight, *SHORT, "--config.mesh.data=8")
    assert ": started" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--config.mesh.data=3",), r"number of devices, 8; use config.mesh.data=8"),
        (("--config.mesh.fsdp=16",), r"divides 8, such as 8"),
        (("--config.mesh.tensor=0",), r"config.mesh.tensor=0 is not valid"),
        (("--config.mesh.data=0",), r"config.mesh.data=0 is not valid; use -1"),
        (("--config.mesh.tensor=4",), r"key/value heads \(2\) .*=4 equal parts; .* to 1 or 2"),
        (("--config.mesh.tensor=8",), r"attention heads \(4\) .*=8 equal parts; .* to 1 or 2\n"),
        (("--config.mesh.fsdp=8",), r"batch_size over .*num_microbatches \(4\) .* to 1 or 2 or 4"),
    ],
)
def test_meshes_that_do_not_fit_are_refused_before_any_work(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_toy(tmp_path / "run", *options)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and re.search(message, error), error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_adapters_agree_between_the_meshes(on_one_device, on_eight):
    from safetensors.numpy import load_file

    for one in sorted((on_one_device / "adapters").rglob("*.safetensors")):
        eight = load_file(on_eight / one.relative_to(on_one_device))
        for name, tensor in load_file(one).items():
            np.testing.assert_allclose(eight[name], tensor, atol=1e-4)
