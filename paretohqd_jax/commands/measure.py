"""The command `paretohqd measure`: a trained reward model against the figures of its card."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow.compute as pc

from paretohqd_jax.data.groups import group_responses
from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.data.sources import read_source
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json

READING = ("format", "columns", "split", "revision")
GROUPING = ("score", "log_odds", "group_size", "groups_per_prompt", "test_share", "test_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name or folder of a reward model trained here")
    parser.add_argument("data", help="as config.data.source: what it was trained on, or new data")
    parser.add_argument("--all", action="store_true", help="all prompts, not those held out alone")
    parser.add_argument("--json", help="json to write")


def run(options: argparse.Namespace) -> None:
    """Measures a reward model trained here on preference data, beside the figures of its card.

    The data are read, grouped and split as the card says; what it held out is measured, or
    everything, for data that it has never seen.
    """
    from paretohqd_jax.rewards.registry import CARD, find_entry
    from paretohqd_jax.steps.measuring import measure_groups
    from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

    if options.json:
        check_writable(options.json, (".json",))
    entry = find_entry(options.model)
    if entry is None or not entry.adapter:
        raise InputError(f"{options.model}: no reward model that was trained here; give its folder")
    card = json.loads((Path(entry.adapter).parent / CARD).read_text())
    try:
        reading = [card["data"][name] for name in READING]
        grouping = {name: card["data"][name] for name in GROUPING}
        grouping["seed"], margin = card["training"]["seed"], float(card["data"]["margin"])
        noted = {} if options.all else dict(card["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{options.model}: its card does not say what it was trained on ({error})"
        ) from error
    if options.all:
        grouping["test_share"] = 1.0
    table = read_source(options.data, *reading)
    groups = group_responses(table, **grouping, source=options.data)
    groups = groups.filter(pc.equal(groups["split"], "test"))
    if groups.num_rows == 0:
        raise InputError(f"{options.data}: no prompt of it was held out; use --all")
    if not any(max(scores) - min(scores) >= margin for scores in groups["scores"].to_pylist()):
        raise InputError(
            f"{options.data}: no two responses to a prompt differ by the card's margin of {margin}"
        )
    with sharded(make_mesh(), DECODING_RULES):
        measured = measure_groups(options.model, groups, margin)
    if options.json:
        write_json(options.json, measured)
    print(f"{'':28}{'measured':>12}{'' if options.all else 'card':>12}")
    for name, value in measured.items():
        print(f"{name:28}{_figure(value):>12}{'' if options.all else _figure(noted.get(name)):>12}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else f"{value}"
