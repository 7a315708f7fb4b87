"""The command `paretohqd measure`: a reward model against its card, and against corrupted text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.commands.arguments import positive_integer
from paretohqd_jax.config import split_model
from paretohqd_jax.data.corruptions import CORRUPTIONS
from paretohqd_jax.data.groups import TEST, VALIDATION, Split, group_responses
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.rows import check_columns, check_writable, read_table
from paretohqd_jax.data.sources import read_source
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.robustness import NUM_PROMPTS
from paretohqd_jax.files import write_json

READING = ("format", "columns", "split", "revision")
GROUPING = ("score", "log_odds", "group_size", "groups_per_prompt", "test_share", "test_size")
SPLIT = {"validation_share": 0.0, "test_share": 0.0, "train_part": (0.0, 1.0)}  # where not said
UNSAID = SPLIT | {"drop_shared": False}  # likewise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name or folder of a reward model trained here")
    parser.add_argument("data", help="as config.data.source: what it was trained on, or new data")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--all", action="store_true", help="all prompts, not the test part alone")
    prompts.add_argument(
        "--validation", action="store_true",
        help="prompts held out for choosing options, instead of the test part",
    )  # fmt: skip
    parser.add_argument("--json", help="json to write")
    robust = parser.add_argument_group(
        "corrupted answers", "of any reward model, an entry of config.rewards.models"
    )
    robust.add_argument(
        "--robustness", action="store_true",
        help="measure how often it prefers an answer to corrupted copies of it",
    )  # fmt: skip
    robust.add_argument(
        "--num-prompts", type=positive_integer, default=NUM_PROMPTS, help="at most so many"
    )
    robust.add_argument(
        "--temperature-2", metavar="FILE", default="",
        help="rows with a language model's responses to the same prompts at temperature 2",
    )  # fmt: skip
    robust.add_argument(
        "--format", choices=("plain", *PUBLIC_FORMATS), help="as config.data.format (its card's)"
    )
    robust.add_argument("--columns", help="as config.data.columns (its card's)")
    robust.add_argument("--backend", choices=("jax", "torch"), default="jax")


def run(options: argparse.Namespace) -> None:
    """Measures a reward model trained here on preference data, beside the figures of its card.

    The data are read, grouped and split as the card says; the test part is measured, or that for
    choosing, or everything, for data that it has never seen. With --robustness any reward model is
    measured on corrupted copies of answers instead.
    """
    if options.json:
        check_writable(options.json, (".json",))
    card = _read_card(options.model)
    if options.robustness:
        _measure_robustness(options, card or {})
    elif card is None:
        raise InputError(f"{options.model}: no reward model that was trained here; give its folder")
    else:
        _measure_agreement(options, card)


def _read_card(model: str) -> dict[str, Any] | None:
    """The card of a reward model that was trained here."""
    from paretohqd_jax.rewards.registry import CARD, find_entry

    entry = find_entry(split_model(model)[1])
    if entry is None or not entry.adapter:
        return None
    return json.loads((Path(entry.adapter).parent / CARD).read_text())


def _measure_agreement(options: argparse.Namespace, card: dict[str, Any]) -> None:
    from paretohqd_jax.steps.measuring import measure_groups
    from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

    try:
        reading = [card["data"][name] for name in READING]
        grouping = UNSAID | {name: card["data"][name] for name in GROUPING}
        grouping |= {name: card["data"][name] for name in UNSAID if name in card["data"]}
        grouping["seed"], margin = card["training"]["seed"], float(card["data"]["margin"])
        noted = {} if options.all else dict(card["validation" if options.validation else "metrics"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{options.model}: its card does not say what it was trained on ({error})"
        ) from error
    if options.all:
        grouping |= {"validation_share": 0.0, "test_share": 1.0}
    table = read_source(options.data, *reading)
    groups = group_responses(table, **grouping, source=options.data)
    groups = groups.filter(pc.equal(groups["split"], _part(options)))
    if groups.num_rows == 0:
        raise InputError(f"{options.data}: no prompt of it was held out; use --all")
    if not any(max(scores) - min(scores) >= margin for scores in groups["scores"].to_pylist()):
        raise InputError(
            f"{options.data}: no two responses to a prompt differ by the card's margin of {margin}"
        )
    with sharded(make_mesh(), DECODING_RULES):
        measured = measure_groups(split_model(options.model)[1], groups, margin)
    if options.json:
        write_json(options.json, measured)
    print(f"{'':28}{'measured':>12}{'' if options.all else 'card':>12}")
    for name, value in measured.items():
        print(f"{name:28}{_figure(value):>12}{'' if options.all else _figure(noted.get(name)):>12}")


def _part(options: argparse.Namespace) -> str:
    return VALIDATION if options.validation else TEST


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else f"{value}"


def _measure_robustness(options: argparse.Namespace, card: dict[str, Any]) -> None:
    from paretohqd_jax.rewards.scoring import check_scorer
    from paretohqd_jax.steps.robustness import answers_for_copies, measure_robustness
    from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

    check_scorer(split_model(options.model)[1], options.backend)
    noise = _noise(options.temperature_2) if options.temperature_2 else {}
    table = _read_answers(options, card)
    answers = answers_for_copies(table, options.num_prompts)
    answers = [answer._replace(noise=noise.get(answer.prompt, "")) for answer in answers]
    with sharded(make_mesh(), DECODING_RULES):
        measured, _ = measure_robustness(options.model, answers, backend=options.backend)
    if options.json:
        write_json(options.json, {"num_prompts": len(answers), "robustness": measured})
    print(f"{len(answers)} prompts, an answer each; the answer is preferred to")
    print(f"{'':34}{'share':>7}  {'95 % interval':16}{'pairs':>6}{'skipped':>9}{'due':>7}  verdict")
    for kind, figures in measured.items():
        print(_robustness_line(kind, figures))


def _read_answers(options: argparse.Namespace, card: dict[str, Any]) -> pa.Table:
    """Rows or pairs of the data; of those that a card splits what was held out, unless --all."""
    data = card.get("data")
    data = data if isinstance(data, dict) else {}  # of a card that another has written
    reading = {"format": "plain", "columns": "", "split": "train", "revision": ""}
    reading |= {name: data[name] for name in READING if name in data}
    given = {name: getattr(options, name) for name in ("format", "columns")}
    reading |= {name: value for name, value in given.items() if value is not None}
    table = read_source(options.data, **reading)
    if not options.all and "test_share" in data:
        split = Split(**{name: data.get(name, missing) for name, missing in SPLIT.items()})
        parts = [split.part(prompt) for prompt in table["prompt"].to_pylist()]
        table = table.filter(pc.equal(pa.array(parts, pa.string()), _part(options)))
        if table.num_rows == 0:
            raise InputError(f"{options.data}: no prompt of it was held out; use --all")
    return table


def _noise(path: str) -> dict[str, str]:
    """By prompt what a language model wrote at temperature 2."""
    table = read_table(path)
    check_columns(table, ["prompt", "response"], path)
    return dict(zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True))


def _robustness_line(kind: str, figures: dict[str, Any]) -> str:
    share, within = "-", ""
    if figures["preferred"] is not None:
        low, high = figures["interval"]
        share, within = f"{figures['preferred']:.3f}", f"[{low:.3f}, {high:.3f}]"
    return (
        f"{CORRUPTIONS[kind].words:34}{share:>7}  {within:16}{figures['num_pairs']:6}"
        f"{figures['num_skipped']:9}{figures['least']:7.2f}  {figures['verdict']}"
    )
