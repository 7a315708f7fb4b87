"""A study of selections: what different ways to select from the same rows give. Trains nothing.

Each draw takes rows from each population, of the data a random half of the prompts, and selects
from them in every setting. Settings are compared on equal rows, and how much a figure changes from
draw to draw says how far to trust it: halves drawn without replacement spread about as much as
whole sets of new prompts would, and unlike the bootstrap's draws hold no row twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict

from paretohqd_jax.config import check_config, objective_names, parse_preferences, split_model
from paretohqd_jax.config.selection_study import DATA, settings_of
from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.sources import check_source, load_rows
from paretohqd_jax.distributed import check_preemption, is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.frames import z_score_frame
from paretohqd_jax.files import write_json
from paretohqd_jax.pareto import Selection, largest_weighted_sum, reward_range, select
from paretohqd_jax.pareto.chebyshev import AUGMENTATION, MIN_GAP
from paretohqd_jax.pareto.selection import default_pool_size, rule_of
from paretohqd_jax.pipeline import Output, Run, source_digest
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.rewards.functions import word_count
from paretohqd_jax.rewards.scoring import check_scorer
from paretohqd_jax.steps.scoring import models_without_scores, rewards_of, with_rewards
from paretohqd_jax.steps.task import check_cache, checkpoints, score_store
from paretohqd_jax.studies.measures import measure_selection, summarise_draws
from paretohqd_jax.studies.tables import Study, csv_table, markdown, plot_study
from paretohqd_jax.training.mesh import make_mesh
from paretohqd_jax.user_functions import call, find_function

STEPS = ("score", "measure", "report")
TABLE = "table.md"


class Rows(NamedTuple):
    """What is selected from: rewards `[num_rows, num_objectives]`, int prompt ids `[num_rows]`."""

    rewards: np.ndarray
    prompt_ids: np.ndarray


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the study and returns its table, which other tables and a plot lie beside."""
    objectives = objective_names(config.rewards.models)
    preferences = parse_preferences(config.preferences, len(objectives)).tolist()
    populations, settings = list(config.populations), settings_of(config)
    data = config.data.to_dict()
    share = data.pop("share")
    scored = []
    if DATA in populations:
        wanted = models_without_scores(config.rewards.models, config.data.scores)
        digests = {"data_digest": source_digest(config.data.source)} | checkpoints(wanted)
        rewards = config.rewards.to_dict()
        del rewards["cache"]  # wherever they are kept
        work = partial(score_rows, store=score_store(config, run))
        scored = [
            run.step(
                "score", "rewards.parquet", work, data=data, **rewards, also=digests,
                all_processes=True,
            )
        ]  # fmt: skip
    measured = run.step(
        "measure", "measures.json", measure, *scored, objectives=objectives,
        preferences=preferences, populations=populations, settings=settings, share=share,
        num_draws=config.num_draws, seed=config.seed,
    )  # fmt: skip
    reported = run.step(
        "report", "study", report, measured, objectives=objectives, preferences=preferences,
        populations=populations, settings=list(settings),
    )  # fmt: skip
    return reported.path / TABLE


def check(config: ConfigDict) -> None:
    """Raises InputError for what can be known to be wrong before a run directory is touched."""
    check_config(config)
    if DATA in config.populations:
        check_source(config.data.source)
        check_cache(config)
        for model in models_without_scores(config.rewards.models, config.data.scores):
            check_scorer(split_model(model)[1], config.rewards.backend)


def score_rows(
    path: Path,
    scratch: Path,
    *,
    data: dict[str, Any],
    models: Sequence[str],
    backend: str,
    dtype: str,
    batch_size: int,
    store: Path,
) -> None:
    """Reads the rows and scores what they bring no scores for.

    Leaves `prompt_id`, which counts the different prompts, and one column per objective.
    """
    source = data["source"]
    table = load_rows(**{name: value for name, value in data.items() if name != "min_words"})
    texts = (table["prompt"].to_pylist(), table["response"].to_pylist())
    long_enough = word_count(*texts) >= data["min_words"]
    if not long_enough.any():
        raise InputError(
            f"{source}: no response has {data['min_words']} words; lower config.data.min_words"
        )
    table = table.filter(pa.array(long_enough))
    wanted = models_without_scores(models, data["scores"])
    rewards = rewards_of(
        table, wanted, make_mesh(), store, "scoring the data", backend=backend, dtype=dtype,
        batch_size=batch_size, source=source, row_ids=table["source_row"].to_pylist(),
    )  # fmt: skip
    table = with_rewards(table, rewards, objective_names(wanted))
    names = objective_names(models)
    check_ranges(rewards_matrix(table, names, source), names, source)
    prompt_ids = table["prompt"].combine_chunks().dictionary_encode().indices
    if is_main_process():
        write_table(path, table.select(names).append_column("prompt_id", prompt_ids))


def measure(
    path: Path,
    scratch: Path,
    *scored: Output,
    objectives: Sequence[str],
    preferences: list[list[float]],
    populations: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    share: float,
    num_draws: int,
    seed: int,
) -> None:
    """Selects in every setting from every draw of every population, and measures what it gets.

    Leaves for each population a list of draws: `num_rows`, and for each of the `settings` what
    `measure_selection` returns.
    """
    tables = [read_table(output.path) for output in scored]
    measures: dict[str, list] = {population: [] for population in populations}
    with progress_bar(len(populations) * num_draws, "selecting", "draw") as bar:
        for number, population in enumerate(populations):
            for draw in range(num_draws):
                check_preemption()
                shard = scratch / f"{number}-{draw}.json"
                if not shard.exists():
                    random = np.random.default_rng((seed, draw))
                    if population == DATA:
                        rows = some_prompts(random, tables[0], objectives, share)
                    else:
                        rows = made_up_rows(random, population, len(objectives))
                    name = f"config.populations {population!r}"
                    write_json(shard, measure_draw(rows, np.array(preferences), settings, name))
                measures[population].append(json.loads(shard.read_text()))
                bar.update()
    write_json(path, measures)


def some_prompts(
    random: np.random.Generator, table: pa.Table, objectives: Sequence[str], share: float
) -> Rows:
    """All rows of a random share of the prompts."""
    prompt_ids = table["prompt_id"].to_numpy()
    num_prompts = prompt_ids.max() + 1
    drawn = np.zeros(num_prompts, bool)
    drawn[random.permutation(num_prompts)[: max(1, round(share * num_prompts))]] = True
    rewards = np.stack([table[name].to_numpy() for name in objectives], axis=1)
    return Rows(rewards[drawn[prompt_ids]], prompt_ids[drawn[prompt_ids]])


def made_up_rows(random: np.random.Generator, function: str, num_objectives: int) -> Rows:
    """What a user's function returns, each row under a prompt of its own."""
    option = f"config.populations {function!r}"
    rewards = np.asarray(call(find_function(function, option), option, random))
    if rewards.dtype.kind != "f" or rewards.ndim != 2 or rewards.shape[1] != num_objectives:
        raise InputError(
            f"{option}: returned {rewards.dtype} of shape {rewards.shape}; it must return floats "
            f"[num_rows, {num_objectives}], one column per entry of config.rewards.models"
        )
    return Rows(rewards, np.arange(len(rewards)))


def measure_draw(
    rows: Rows,
    preferences: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    source: str,
) -> dict[str, Any]:
    """Selects from the same rows in every setting, for `preferences [num_preferences, M]`.

    `source` begins the message of a mistake.
    """
    frame = z_score_frame(rows.rewards, "the rows of the draw")
    measured = {}
    for name, setting in settings.items():
        options = dict(setting)
        widened = with_outlier(rows, options.pop("outlier"))
        try:
            selection = select_with(widened.rewards, preferences, **options)
        except InputError as error:
            raise InputError(f"{source}, setting {name!r}: {error}") from error
        measured[name] = measure_selection(*widened, preferences, selection, frame)
    return {"num_rows": len(rows.rewards), "settings": measured}


def with_outlier(rows: Rows, num_ranges: float) -> Rows:
    """One more row, `num_ranges` ranges below all others in the first objective; none for 0."""
    if num_ranges == 0:
        return rows
    row = np.median(rows.rewards, axis=0)
    first = rows.rewards[:, 0]
    row[0] = first.min() - num_ranges * np.ptp(first)
    return Rows(np.vstack([rows.rewards, row]), np.append(rows.prompt_ids, -1))


def select_with(
    rewards: np.ndarray,
    preferences: np.ndarray,
    *,
    rule: str,
    pool: str,
    k: int,
    min_pool_size: int,
    range_scope: str,
    normalize: bool,
    decimals: int,
    augmentation: float = AUGMENTATION,
    min_gap: float = MIN_GAP,
) -> Selection:
    """The selection of one setting; options as in `config.select` of a study.

    `rewards` are `[num_rows, num_objectives]`, `preferences` `[num_preferences, num_objectives]`.
    """
    if decimals >= 0:
        rewards = np.round(rewards, decimals)
    num_rows = len(rewards)
    default = default_pool_size(rule, k, len(preferences), num_rows)
    size = num_rows if pool == "all" else min(min_pool_size or default, num_rows)
    if pool in ("layers", "all"):
        return select(
            rewards, preferences, k, size, range_scope=range_scope, normalize=normalize,
            rule=rule, augmentation=augmentation, min_gap=min_gap,
        )  # fmt: skip
    equal = np.full((1, rewards.shape[1]), 1 / rewards.shape[1])
    pooled, _ = largest_weighted_sum(rewards, equal, size, *reward_range(rewards))
    ranks = np.full(num_rows, -1, np.int32)
    ranks[pooled] = 0
    low, high = reward_range(rewards, range_scope, ranks=ranks)
    row_ids, distances = rule_of(rule, augmentation, min_gap)(
        rewards, preferences, k, low, high, normalize=normalize, candidates=ranks >= 0
    )
    return Selection(row_ids, distances, ranks, low, high)


def report(
    path: Path,
    scratch: Path,
    measured: Output,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    populations: Sequence[str],
    settings: Sequence[str],
) -> None:
    """Writes the tables, for people and for programs, and the plot."""
    measures = json.loads(measured.path.read_text())
    studies = []
    for population in populations:
        names = list(objectives)
        if population != DATA:
            names = [f"objective {number}" for number in range(1, len(names) + 1)]
        draws = [
            {name: draw["settings"][name] for name in settings} for draw in measures[population]
        ]
        num_rows = [draw["num_rows"] for draw in measures[population]]
        name = population.rpartition(":")[2]
        studies.append(Study(name, names, np.array(preferences), num_rows, summarise_draws(draws)))
    write_table(path / "table.csv", csv_table(studies))
    (path / TABLE).write_text(markdown(studies))
    plot_study(path / "front.png", studies)
