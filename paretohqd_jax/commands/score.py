"""The command `paretohqd score`: rewards for a file of prompts and responses."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from paretohqd_jax.commands.arguments import positive_integer
from paretohqd_jax.config import names_in, objective_names
from paretohqd_jax.data.messages import read_conversations, with_messages
from paretohqd_jax.data.rows import (
    check_holds,
    check_texts,
    check_writable,
    read_table,
    write_table,
)
from paretohqd_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="rows with prompt and response: parquet, jsonl or csv")
    parser.add_argument("--models", required=True, help="as config.rewards.models: a,COLUMN=b,...")
    parser.add_argument("--backend", choices=("jax", "torch"), default="jax")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=positive_integer, default=64, help="rows at a time")
    parser.add_argument(
        "--cache", help="as config.rewards.cache: a folder to keep scores in and to take them from"
    )
    parser.add_argument("--out", required=True, help="parquet, jsonl or csv to write")


def run(options: argparse.Namespace) -> None:
    """Adds one column of rewards per model to a file of prompts and responses.

    All devices of this machine take part. A killed command goes on where it was: until the output
    is there, scores are kept beside it in OUT.partial, or for good in --cache.
    """
    from paretohqd_jax.rewards.store import check_store
    from paretohqd_jax.steps.scoring import rewards_of, with_rewards, with_statistics
    from paretohqd_jax.training.mesh import make_mesh

    check_writable(options.out)
    models = names_in(options.models)
    names = objective_names(models)
    if not names:
        raise InputError("--models names no reward model; give one or more, as a,COLUMN=b")
    if len(set(names)) < len(names):
        raise InputError(f"--models {options.models}: name each column once, as COLUMN=NAME")
    table = read_conversations(read_table(options.file), options.file)
    check_texts(table, options.file)
    check_holds(options.out, with_messages(table))
    partial = Path(f"{options.out}.partial")
    store = Path(os.path.expanduser(options.cache)) if options.cache else partial
    check_store(store)
    rewards = rewards_of(
        table, models, make_mesh(), store, "scoring",
        backend=options.backend, dtype=options.dtype, batch_size=options.batch_size,
        source=options.file,
    )  # fmt: skip
    scored = with_statistics(with_rewards(table, rewards, names), names)
    write_table(options.out, with_messages(scored))
    shutil.rmtree(partial, ignore_errors=True)
    statistics = json.loads(scored.schema.metadata[b"rewards"])
    for name in names:
        mean, std = statistics[name]["mean"], statistics[name]["std"]
        print(f"{name}: mean {mean:.4g}, standard deviation {std:.4g}")
