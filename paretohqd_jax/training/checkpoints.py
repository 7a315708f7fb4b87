"""Orbax checkpoints of a training run; the only module that knows Orbax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from paretohqd_jax.errors import InputError

PyTree = Any


@contextmanager
def checkpoint_manager(directory: Path, save_every: int) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints of `directory`, saved every `save_every` steps, the last two kept.

    Saving is asynchronous and atomic: a killed process leaves the previous checkpoint. Leaving
    the block waits for pending saves.
    """
    policies = ocp.checkpoint_managers
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=policies.FixedIntervalPolicy(save_every),
        preservation_policy=policies.LatestN(2),
        cleanup_tmp_directories=True,
    )
    with ocp.CheckpointManager(directory.absolute(), options=options) as manager:
        yield manager


def save(
    manager: ocp.CheckpointManager, step: int, state: PyTree, meta: dict[str, Any], force: bool
) -> None:
    """Saves `state` (arrays) and `meta` (JSON) if `step` is due or `force` is set."""
    if manager.latest_step() == step:
        return
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    manager.save(step, args=arguments, force=force)


def restore_latest(
    manager: ocp.CheckpointManager, like: PyTree, meta: dict[str, Any]
) -> PyTree | None:
    """The newest saved state, shaped and placed like `like`, or None if nothing was saved.

    Raises:
      InputError: the checkpoint's `meta` or shapes are not those of this run.
    """
    step = manager.latest_step()
    if step is None:
        return None
    saved = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    for name in sorted(meta.keys() | saved.keys()):
        if saved.get(name) != meta.get(name):
            raise InputError(
                f"{manager.directory}: the checkpoint was made with {name}={saved.get(name)!r}, "
                f"this run has {meta.get(name)!r}; restore the option or use another workdir"
            )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    try:
        return manager.restore(step, args=arguments).state
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{manager.directory}: checkpoint {step} cannot be read ({reason}); "
            "delete this folder to start the step again"
        ) from error


def load_adapters(directory: Path) -> PyTree:
    """The adapter stack of the newest checkpoint of a finished stage, as numpy arrays.

    Raises:
      InputError: the directory holds no checkpoint.
    """
    with ocp.CheckpointManager(directory.absolute()) as manager:
        step = manager.latest_step()
        if step is None:
            raise InputError(f"{directory}: holds no checkpoint; run this stage first")
        path = directory.absolute() / str(step) / "state"
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
        return checkpointer.restore(path, as_numpy)["adapters"]
