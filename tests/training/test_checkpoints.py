from __future__ import annotations

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.training import checkpoints

META = {"rank": 2}


def state(step):
    values = jax.random.normal(jax.random.key(step), (2, 40, 40))
    return {"adapters": {"layers": {"a": values, "b": values + 1}}, "step": jnp.int32(step)}


LIKE = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(0))


def save(directory, *steps):
    with checkpoints.checkpoint_manager(directory, 1) as manager:
        for step in steps:
            checkpoints.save(manager, step, state(step), META, force=True)


def restored_step(directory):
    with checkpoints.checkpoint_manager(directory, 1) as manager:
        saved = checkpoints.restore_latest(manager, LIKE, META)
    return None if saved is None else int(saved["step"])


def files(path, pattern="*"):
    found = [file for file in path.rglob(pattern) if file.is_file()]
    assert found
    return found


def messages(caplog):
    return [line.getMessage() for line in caplog.records if line.name == checkpoints.__name__]


def truncate(*files):
    for file in files:
        file.write_bytes(file.read_bytes()[:10])


def emptied(path):
    shutil.rmtree(path)
    path.mkdir()


def a_file(path):
    shutil.rmtree(path)
    path.write_text("")


DAMAGES = {
    "every file truncated": lambda path: truncate(*files(path)),
    "data truncated": lambda path: truncate(*files(path / "state" / "ocdbt.process_0" / "d")),
    "data gone": lambda path: shutil.rmtree(path / "state" / "ocdbt.process_0"),
    "_METADATA truncated": lambda path: truncate(path / "state" / "_METADATA"),
    "_METADATA gone": lambda path: (path / "state" / "_METADATA").unlink(),
    "shapes truncated": lambda path: truncate(*files(path / "state" / "array_metadatas")),
    "manifest truncated": lambda path: truncate(path / "state" / "manifest.ocdbt"),
    "manifest gone": lambda path: (path / "state" / "manifest.ocdbt").unlink(),
    "facts truncated": lambda path: truncate(path / "meta" / "metadata"),
    "facts gone": lambda path: shutil.rmtree(path / "meta"),
    "empty": emptied,
    "a file": a_file,
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    save(directory, 4, 6)
    return directory


@pytest.fixture
def directory(two, tmp_path):
    return shutil.copytree(two, tmp_path / "stage1")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_for_the_last_whole_one(directory, damage, caplog, capfd):
    damage(directory / "6")
    assert restored_step(directory) == 4
    assert messages(caplog) == [
        f"{directory}: damaged checkpoints (6) are set aside; training goes on from checkpoint 4"
    ]
    assert "Traceback" not in capfd.readouterr().err
    assert (directory / "6.damaged").exists(), "nothing newer is saved"


def test_the_step_of_a_damaged_checkpoint_is_saved_again(directory):
    truncate(*files(directory / "6"))
    assert restored_step(directory) == 4
    save(directory, 6)
    assert restored_step(directory) == 6
    assert sorted(os.listdir(directory)) == ["4", "6"]


def test_a_checkpoint_that_is_damaged_twice(directory):
    for _ in range(2):
        truncate(*files(directory / "6"))
        with (
            pytest.raises(KeyboardInterrupt),
            checkpoints.checkpoint_manager(directory, 1) as manager,
        ):
            checkpoints.save(manager, 6, state(6), META, force=True)
            raise KeyboardInterrupt
        assert (directory / "6.damaged").exists()
    assert restored_step(directory) == 6


def test_a_stage_without_a_whole_checkpoint_says_that_it_starts_again(directory, caplog):
    emptied(directory / "4")
    truncate(*files(directory / "6"))
    assert restored_step(directory) is None
    assert "damaged checkpoints (6, 4) are set aside; none is whole, so this stage" in caplog.text
    save(directory, 4)
    assert sorted(os.listdir(directory)) == ["4", "6.damaged"]
    save(directory, 5, 6)
    assert sorted(os.listdir(directory)) == ["5", "6"]


def test_what_a_killed_save_left_is_no_checkpoint(directory, caplog):
    (directory / "6").rename(directory / "6.orbax-checkpoint-tmp-1")
    assert restored_step(directory) == 4
    assert not messages(caplog)


def test_no_permission_is_no_damage(directory, monkeypatch):
    locked = directory / "6" / "state" / "_METADATA"
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked)
    with pytest.raises(InputError, match=r"6/state/_METADATA: permission denied; make it readable"):
        restored_step(directory)
    assert sorted(os.listdir(directory)) == ["4", "6"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_adapters_of_a_finished_stage_are_one_line(two, tmp_path, damage, capfd):
    directory = shutil.copytree(two, tmp_path / "stage1", ignore=shutil.ignore_patterns("4"))
    damage(directory / "6")
    with pytest.raises(InputError) as raised:
        checkpoints.load_adapters(directory, META)
    assert str(raised.value) in {
        f"{directory}: {what}; delete this folder and run again to train anew"
        for what in ("checkpoint 6 is damaged", "holds no checkpoint")
    }
    assert "Traceback" not in capfd.readouterr().err


def test_whole_adapters_are_read(directory):
    adapters = checkpoints.load_adapters(directory, META)
    np.testing.assert_array_equal(adapters["layers"]["b"], state(6)["adapters"]["layers"]["b"])


def test_other_shapes_are_named(directory):
    like = LIKE | {"adapters": {"layers": {"a": jax.ShapeDtypeStruct((3, 40, 40), np.float32)}}}
    with checkpoints.checkpoint_manager(directory, 1) as manager:
        with pytest.raises(
            InputError, match=r"adapters.layers.a is \(2, 40, 40\), .* \(3, 40, 40\)"
        ):
            checkpoints.restore_latest(manager, like, META)
