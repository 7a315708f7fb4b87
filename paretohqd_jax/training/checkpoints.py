"""Orbax checkpoints of a training run; the only module that knows Orbax."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from paretohqd_jax.distributed import on_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import remove

PyTree = Any
REMEDY = "delete this folder and run again to train anew"
SET_ASIDE = ".damaged"  # ends the name of a checkpoint that cannot be read

logger = logging.getLogger(__name__)


class _Manager(ocp.CheckpointManager):
    """Leaves preemption to the training loop.

    Orbax asks JAX about it with numbers of its own, the steps it saves, from a thread as well. That
    spoils the count of `distributed.reached_preemption`, and SIGTERM is never noticed.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


@contextmanager
def checkpoint_manager(directory: Path, save_every: int) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints of `directory`, saved every `save_every` steps, the last two kept.

    Saving is asynchronous and atomic: a killed process leaves the previous checkpoint. Leaving
    the block waits for pending saves.

    Damaged checkpoints that are newer than the last whole one are set aside, with a warning, and
    deleted when the block ends in good order with a checkpoint as new as they are.

    Raises:
      InputError: a file of a checkpoint may not be read.
    """
    on_main_process(lambda: _set_damaged_aside(directory))
    policies = ocp.checkpoint_managers
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=policies.FixedIntervalPolicy(save_every),
        preservation_policy=policies.LatestN(2),
        cleanup_tmp_directories=True,
        single_host_load_and_broadcast=True,  # all processes see what process 0 has left
    )
    with _Manager(directory.absolute(), options=options) as manager:
        yield manager
    newest = manager.latest_step()
    on_main_process(lambda: _delete_set_aside(directory, newest))


def _set_damaged_aside(directory: Path) -> None:
    """Renames the damaged checkpoints that are newer than the last whole one."""
    damaged, whole = [], None
    for step in sorted(_steps(directory), reverse=True):
        if _is_whole(directory / str(step)):
            whole = step
            break
        damaged.append(step)
    for step in damaged:
        aside = directory / f"{step}{SET_ASIDE}"
        remove(aside)  # of an earlier attempt at this step
        (directory / str(step)).rename(aside)
    if damaged:
        logger.warning(
            "%s: damaged checkpoints (%s) are set aside; %s",
            directory, ", ".join(map(str, damaged)),
            "none is whole, so this stage is trained anew from its first step" if whole is None
            else f"training goes on from checkpoint {whole}",
        )  # fmt: skip


def _delete_set_aside(directory: Path, newest: int | None) -> None:
    for step in _steps(directory, SET_ASIDE):
        if newest is not None and step <= newest:
            remove(directory / f"{step}{SET_ASIDE}")


def _steps(directory: Path, suffix: str = "") -> list[int]:
    """The steps of the entries of `directory` that are named as one, followed by `suffix`."""
    names = (path.name.removesuffix(suffix) for path in directory.glob(f"*{suffix}"))
    return [int(name) for name in names if name.isdecimal()]


def _is_whole(checkpoint: Path, arrays: str = "") -> bool:
    """Whether a checkpoint can be read: its facts, and its arrays whose names begin with `arrays`.

    Raises:
      InputError: a file may not be read, which is no damage.
    """
    for file in (checkpoint, *checkpoint.rglob("*")):
        if not os.access(file, os.R_OK):
            raise InputError(f"{file}: permission denied; make it readable and run again")
    step = int(checkpoint.name)
    try:
        read = _read_arrays(checkpoint / "state", arrays)
        with _reader(checkpoint.parent) as manager:
            manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
            names = _shapes(manager, step).keys()
        described = _described_arrays(checkpoint / "state")
        return described <= names and read == {name for name in names if name.startswith(arrays)}
    except MemoryError:
        raise
    except Exception:  # what a damaged file raises depends on where it is damaged
        return False


def _read_arrays(state: Path, prefix: str) -> set[str]:
    """Reads the arrays whose names begin with `prefix`, and returns the names.

    One after another, by the library below Orbax: where one of many cannot be read, Orbax leaves
    the others to threads that print tracebacks.
    """
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state.absolute()}/"}}
    names = set()
    for key in tensorstore.KvStore.open(store).result().list().result():
        name, _, file = key.decode().rpartition("/")
        if file == ".zarray" and name.startswith(prefix):
            array = {"driver": "zarr", "kvstore": store | {"path": f"{name}/"}}
            tensorstore.open(array, open=True, read=True).result().read().result()
            names.add(name)
    if not names:
        raise FileNotFoundError(state)  # Orbax would print tracebacks
    return names


def _described_arrays(state: Path) -> set[str]:
    """The names in the files on arrays' shapes that Orbax reads beside _METADATA, if there."""
    return {
        entry["array_metadata"]["param_name"]
        for file in (state / "array_metadatas").glob("*")
        for entry in json.loads(file.read_text())["array_metadatas"]
    }


@contextmanager
def _reader(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints of `directory` in this process alone, whatever the others do."""
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"{process}"
    )
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, multiprocessing_options=alone
    )
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    }
    with _Manager(directory.absolute(), options=options, item_handlers=handlers) as manager:
        yield manager


def save(
    manager: ocp.CheckpointManager, step: int, state: PyTree, meta: dict[str, Any], force: bool
) -> None:
    """Saves `state` (arrays) and `meta` (JSON) if `step` is due or `force` is set.

    Raises whatever went wrong while an earlier checkpoint was being saved.
    """
    manager.check_for_errors()
    if manager.latest_step() == step:
        return
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    manager.save(step, args=arguments, force=force)


def restore_latest(
    manager: ocp.CheckpointManager, like: PyTree, meta: dict[str, Any]
) -> PyTree | None:
    """The newest saved state, or None if nothing was saved.

    `like` holds jax.ShapeDtypeStruct with shardings; those of the run that saved do not matter.

    Raises:
      InputError: the checkpoint's `meta` or shapes are not those of this run.
    """
    step = manager.latest_step()
    if step is None:
        return None
    with _reader(manager.directory) as reader:
        _check_meta(reader, step, meta)
        _check_shapes(reader, step, like)
    return _restore(manager, step, state=ocp.args.StandardRestore(like)).state


def save_adapters(directory: Path, adapters: PyTree, meta: dict[str, Any]) -> None:
    """Leaves a stack that was not trained but made, for `load_adapters`."""
    with checkpoint_manager(directory, 1) as manager:
        save(manager, 0, {"adapters": adapters}, meta, force=True)


def load_adapters(directory: Path, meta: dict[str, Any]) -> PyTree:
    """The adapter stack of the newest checkpoint of a finished stage, as numpy arrays.

    Raises:
      InputError: there is no checkpoint, it is damaged, or its `meta` is not that of this run.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: holds no checkpoint; {REMEDY}")
    with _reader(directory) as manager:
        step = manager.latest_step()
        if step is None:
            raise InputError(f"{directory}: holds no checkpoint; {REMEDY}")
        if not _is_whole(directory / str(step), "adapters"):
            raise InputError(f"{directory}: checkpoint {step} is damaged; {REMEDY}")
        _check_meta(manager, step, meta)
        wanted = {"adapters": manager.item_metadata(step)["state"]["adapters"]}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        arguments = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
        return _restore(manager, step, state=arguments).state["adapters"]


def _check_meta(manager: ocp.CheckpointManager, step: int, meta: dict[str, Any]) -> None:
    saved = _restore(manager, step, meta=ocp.args.JsonRestore()).meta
    for name in sorted(meta.keys() | saved.keys()):
        if saved.get(name) != meta.get(name):
            raise InputError(
                f"{manager.directory}: the checkpoint was made with {name}={saved.get(name)!r}, "
                f"this run has {meta.get(name)!r}; restore the option, or {REMEDY}"
            )


def _check_shapes(manager: ocp.CheckpointManager, step: int, like: PyTree) -> None:
    saved = _shapes(manager, step)
    wanted = {name: leaf.shape for name, leaf in _flat(like).items()}
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise InputError(
                f"{manager.directory}: checkpoint {step} cannot be read (the shape of {name} is "
                f"{saved.get(name)}, that of this run {wanted.get(name)}); {REMEDY}"
            )


def _shapes(manager: ocp.CheckpointManager, step: int) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in _flat(manager.item_metadata(step)["state"]).items()}


def _flat(state: PyTree) -> dict[str, Any]:
    """The arrays of a state, or what describes them, by the names that they have on disk."""
    return ocp.tree.to_flat_dict(state, sep=".")


def _restore(manager: ocp.CheckpointManager, step: int, **items: Any) -> Any:
    try:
        return manager.restore(step, args=ocp.args.Composite(**items))
    except jax.errors.JaxRuntimeError:  # of the devices, such as a process that is lost
        raise
    except Exception as error:  # Orbax has many
        raise InputError(
            f"{manager.directory}: checkpoint {step} cannot be read; {REMEDY}"
        ) from error
