"""The command `paretohqd merge`: the model of one preference as a checkpoint of its own."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.errors import InputError


def merge_command(options: argparse.Namespace) -> None:
    """Writes the model of one preference whole, as a checkpoint that transformers loads.

    Without --interpolate a preference that was not trained has the model of the nearest one.
    """
    from paretohqd_jax.methods.serving import model_for, read_run_config
    from paretohqd_jax.models.merging import export_merged

    out = Path(options.out)
    if os.path.lexists(out):
        raise InputError(f"{out}: is there already; give the name of a new directory")
    check_writable(out / "config.json", (".json",))
    workdir = Path(options.workdir)
    config = read_run_config(workdir)
    base, adapter = model_for(
        workdir, config, options.preference, options.interpolate, options.model
    )
    dtype = options.dtype or base.dtype
    export_merged(out, base.source, adapter, base.lora, dtype)
    print(f"{out}: {base.source} with its adapter merged, in {dtype}")
