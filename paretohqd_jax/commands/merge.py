"""The command `paretohqd merge`: the model of one preference as a checkpoint of its own."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from paretohqd_jax.commands.arguments import add_policy
from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the run's")
    parser.add_argument("--out", required=True, help="directory to write")


def run(options: argparse.Namespace) -> None:
    """Writes the model of one preference whole, as a checkpoint that transformers loads.

    Its chat template writes prompts as they were trained. Without --interpolate a preference that
    was not trained has the model of the nearest one, but of soups one of its own. A policy that
    mixes the logits of several adapters is no single model, and refused.
    """
    from paretohqd_jax.models.merging import export_merged
    from paretohqd_jax.policies import FILE, read_policies
    from paretohqd_jax.steps.cards import model_card
    from paretohqd_jax.steps.serving import served_adapter

    out = Path(options.out)
    if os.path.lexists(out):
        raise InputError(f"{out}: is there already; give the name of a new directory")
    check_writable(out / "config.json", (".json",))
    policy, base, adapter = served_adapter(
        Path(options.workdir), options.preference, options.policy, options.interpolate,
        options.model,
    )  # fmt: skip
    dtype = options.dtype or base.dtype
    own = base.prompt_format == "chat" and policy.prompt is None
    template = None if own else policy.chat_template(base.chat.template)
    export_merged(out, base.source, adapter, base.lora, dtype, chat_template=template)
    workdir = Path(options.workdir)
    card = model_card(workdir, read_policies(workdir / FILE), policy, "transformers")
    (out / "README.md").write_text(card, "utf-8")
    print(f"{out}: {base.source} with its adapter merged, in {dtype}")
