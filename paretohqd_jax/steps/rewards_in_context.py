"""The steps of Rewards-in-Context: scores in prompts, answers to scores asked for, both together.

Rows of these steps have their standardised rewards as `rewards_matrix` reads them and in their
prompts, as text; `question` is the prompt without.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.config.ric import parse_range
from paretohqd_jax.data.conversations import in_words
from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import drop_duplicates, read_table, write_table
from paretohqd_jax.data.scores_in_prompt import TAG, scores_in, words_with
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.targets import DECIMALS, Targets, good_on_some
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policy
from paretohqd_jax.sampling.generation import encode_prompts
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.candidates import candidates_of, gates_of, is_candidate
from paretohqd_jax.steps.generation import answers_of
from paretohqd_jax.steps.scoring import with_statistics
from paretohqd_jax.steps.task import Task, longest_response, prompt_options, sampling_options

ADAPTER = "ric"  # the one of each stack

logger = logging.getLogger(__name__)


def scores_in_prompts(task: Task, name: str, scored: Output, reference: Output) -> Output:
    """The scored rows with their standardised rewards in their prompts.

    `reference` holds training rows whose rewards are in the units of those of generated responses.
    """
    ric = task.config.ric
    return task.run.step(
        name, "ric/data.parquet",
        partial(
            write_scores_in_prompts, base=task.base, max_new_tokens=longest_response(task.config)
        ),
        scored, reference, objectives=task.objectives, range=ric.range, rounded=ric.legacy_round,
        without_eos=ric.legacy_no_eos, also=prompt_options(task.base),
    )  # fmt: skip


def targets_of(task: Task, rows: Output) -> Targets:
    """How preferences become scores to ask for, in the range that `scores_in_prompts` has found.

    Before that is done, when a run is but planned, any range does.
    """
    low, high = [-1.0] * len(task.objectives), [1.0] * len(task.objectives)
    if rows.path.exists():
        low, high = (_facts(rows)[end] for end in ("low", "high"))
    return Targets(task.config.ric.mapping, tuple(low), tuple(high))


def answer_targets(
    task: Task, name: str, path: str, rows: Output, targets: Targets, model: Output
) -> Output:
    """The model answers prompts of random training rows, each at random scores near the front."""
    config = task.config
    policy = Policy(ADAPTER, None, (f"{model.path.name}/{ADAPTER}",), (1.0,))
    return task.run.step(
        name, path,
        partial(
            write_answers, base=task.base, workdir=task.run.workdir, name=name,
            batch_size=config.generate.batch_size, engine_command=config.generate.engine_command,
        ),
        rows, model, policies=[dataclasses.asdict(policy)],
        stacks={model.path.name: [ADAPTER]}, targets=dataclasses.asdict(targets),
        num_prompts=config.generate.num_prompts, sampling=sampling_options(config.generate),
        engine=config.generate.engine, seed=config.seed, also=task.network, all_processes=True,
    )  # fmt: skip


def mix(
    task: Task, name: str, path: str, rows: Output, drawn: Output, answers: Sequence[Output]
) -> Output:
    """The rows of online training: those good on some objective, of all answers and of the data."""
    ric = task.config.ric
    return task.run.step(
        name, path, partial(write_mixture, name=name), rows, drawn, *answers,
        objectives=task.objectives, quantile=ric.quantile, num_original=ric.num_original,
        gates=gates_of(task), rounded=ric.legacy_round, without_eos=ric.legacy_no_eos,
        clean=ric.legacy_clean, seed=task.config.seed,
    )  # fmt: skip


def write_scores_in_prompts(
    path: Path,
    scratch: Path,
    scored: Output,
    reference: Output,
    *,
    base: BaseModel,
    max_new_tokens: int,
    objectives: Sequence[str],
    range: str,
    rounded: bool,
    without_eos: bool,
) -> None:
    """Leaves all rows; the metadata have the facts of `_facts`.

    Raises:
      InputError: an objective is the same in all training rows, scores to ask for lie outside
        theirs, or a prompt has scores already or is too long with them.
    """
    table, known = read_table(scored.path), read_table(reference.path)
    source = scored.path
    for row, prompt in enumerate(table["prompt"].to_pylist()):
        if TAG in prompt:
            raise InputError(
                f"{source}: row {row}: the prompt has {TAG} in it already, which is for scores of "
                "the response; give prompts without"
            )
    rewards = _rewards(table, objectives, source, rounded)
    check_ranges(rewards[is_candidate(table)], objectives, source)
    scores = _standardised(rewards, _statistics(table, objectives))
    own = np.round(scores[is_candidate(table)], DECIMALS)
    wanted = parse_range(range)
    low, high = own.min(axis=0), own.max(axis=0)
    if wanted is not None and range != "normal":
        for name, *ends in zip(objectives, low, high, strict=True):
            if wanted[0] < ends[0] or wanted[1] > ends[1]:
                raise InputError(
                    f"config.ric.range={range!r}: the standardised scores of {name!r} go from "
                    f"{ends[0]} to {ends[1]} in {source}, and what lies beyond is not learnt; use "
                    "a range within, 'data', or 'normal' as the code of RiC"
                )
    if wanted is not None:
        low, high = (np.full(len(objectives), end) for end in wanted)
    facts = {
        "low": low.tolist(), "high": high.tolist(),
        "statistics": _statistics(known, objectives).tolist(),
    }  # fmt: skip
    table = _in_prompts(table, scores, objectives, without_eos)
    how = SamplingConfig(max_new_tokens)
    texts = base.format(pc.unique(table["prompt"]).to_pylist())
    encode_prompts(base.tokenizer, texts, base.config.max_position_embeddings, how)
    for name, *ends in zip(objectives, low, high, strict=True):
        logger.info("%s: scores from %s to %s are asked for", name, *ends)
    write_table(path, table.replace_schema_metadata({"ric": json.dumps(facts)}))


def write_answers(
    path: Path,
    scratch: Path,
    rows: Output,
    model: Output,
    *,
    base: BaseModel,
    workdir: Path,
    name: str,
    policies: Sequence[Mapping[str, Any]],
    stacks: dict[str, list[str]],
    targets: Mapping[str, Any],
    num_prompts: int,
    batch_size: int,
    engine: str,
    engine_command: str,
    sampling: Mapping[str, Any],
    seed: int,
) -> dict[str, int]:
    """Leaves the answers to prompts without scores; `asked` has the prompt with them.

    Prompts are drawn with replacement, as often as rows have them. Returns the cost, in tokens.
    """
    table = read_table(rows.path)
    questions = table["question"].take(np.flatnonzero(is_candidate(table)))
    random = np.random.default_rng(step_seed(seed, name))
    drawn = questions.take(random.integers(len(questions), size=num_prompts)).to_pylist()
    scores = Targets(**targets).near_front(random, num_prompts)
    asked = [in_words(words_with(own), each) for own, each in zip(scores, drawn, strict=True)]
    answers = answers_of(
        [Policy(**policies[0])], stacks, workdir, base, asked, engine, sampling, batch_size,
        scratch, seed, name, "generate", engine_command,
    )  # fmt: skip
    answers = answers.rename_columns({"prompt": "asked"})
    prompts = pa.array(drawn).take(answers["prompt_id"].combine_chunks())
    answers = answers.append_column("prompt", prompts).drop_columns(["answerer", "prompt_id"])
    if is_main_process():
        write_table(path, drop_duplicates(answers))
    return {"tokens_generated": pc.sum(answers["num_tokens"]).as_py()}


def write_mixture(
    path: Path,
    scratch: Path,
    rows: Output,
    drawn: Output,
    *answers: Output,
    name: str,
    objectives: Sequence[str],
    quantile: float,
    num_original: int,
    gates: Sequence[str],
    rounded: bool,
    without_eos: bool,
    clean: bool,
    seed: int,
) -> None:
    """Leaves rows that are all trained on: `row_id` counts them.

    Of `num_original` random rows that were `drawn` from the data, and all answers.
    """
    table = read_table(rows.path)
    table = table.take(read_table(drawn.path)["row_id"])
    good = np.flatnonzero(good_on_some(rewards_matrix(table, objectives, rows.path), quantile))
    random = np.random.default_rng(step_seed(seed, name))
    columns = ["prompt", "response", "truncated", *objectives]
    kept = [table.take(np.sort(random.permutation(good)[:num_original])).select(columns)]
    statistics = np.array(_facts(rows)["statistics"])
    for each in answers:
        table = read_table(each.path)
        table = table.take(candidates_of(table, each.path, gates).row_ids)
        if clean:
            table = table.filter(pa.array(map(_is_clean, table["response"].to_pylist())))
        if table.num_rows == 0:
            raise InputError(
                f"{each.path}: no answer is left to train on, all have collapsed or fail the "
                "gates; raise config.train.offline_steps, or lower config.generate.temperature"
            )
        rewards = _rewards(table, objectives, each.path, rounded)
        scores = _standardised(rewards, statistics)
        _tell(each.path.stem, objectives, table, scores)
        table = _in_prompts(table, scores, objectives, without_eos).select(columns)
        kept.append(table.filter(pa.array(good_on_some(scores, quantile))))
    logger.info(
        "%s: %d rows of the data, and %s answers", name, len(kept[0]), [*map(len, kept[1:])]
    )
    mixture = pa.concat_tables(kept)
    write_table(path, mixture.append_column("row_id", pa.array(np.arange(len(mixture)))))


def _facts(rows: Output) -> dict[str, Any]:
    """What `scores_in_prompts` has found.

    `low` and `high` of the scores to ask for, and `statistics`, mean and standard deviation of each
    objective in the units of generated responses, `[num_objectives, 2]`.
    """
    return json.loads(read_table(rows.path).schema.metadata[b"ric"])


def _statistics(table: pa.Table, objectives: Sequence[str]) -> np.ndarray:
    """Mean and standard deviation of the training rows' rewards, `[num_objectives, 2]`.

    Those that are stored with scored data, or of the rows.
    """
    if b"rewards" not in (table.schema.metadata or {}):
        table = with_statistics(table, objectives)
    stored = json.loads(table.schema.metadata[b"rewards"])
    return np.array([[stored[name]["mean"], stored[name]["std"]] for name in objectives])


def _rewards(table: pa.Table, objectives: Sequence[str], source: Path, rounded: bool) -> np.ndarray:
    """`[num_rows, num_objectives]`, as RiC's code has them if `rounded`."""
    rewards = rewards_matrix(table, objectives, source)
    return np.round(rewards, DECIMALS) if rounded else rewards


def _standardised(rewards: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    return (rewards - statistics[:, 0]) / statistics[:, 1]


def _in_prompts(
    table: pa.Table, scores: np.ndarray, objectives: Sequence[str], without_eos: bool
) -> pa.Table:
    """The table with scores `[num_rows, num_objectives]` in its prompts and for its rewards."""
    questions = table["prompt"]
    prompts = [
        in_words(words_with(own), question)
        for own, question in zip(scores, questions.to_pylist(), strict=True)
    ]
    truncated = pa.array(np.full(table.num_rows, without_eos))
    if "truncated" in table.column_names:
        truncated = pc.or_(table["truncated"], truncated)
    replaced = {"prompt": pa.array(prompts), "question": questions, "truncated": truncated}
    replaced |= {name: pa.array(scores[:, column]) for column, name in enumerate(objectives)}
    table = table.drop_columns([name for name in replaced if name in table.column_names])
    for name, values in replaced.items():
        table = table.append_column(name, values)
    return table


def _is_clean(response: str) -> bool:
    """Whether RiC's code keeps a response."""
    return "....." not in response and response.count(":)") < 3


def _tell(name: str, objectives: Sequence[str], table: pa.Table, scores: np.ndarray) -> None:
    """Logs how the scores of answers follow those that were asked for."""
    wanted = np.array([scores_in(asked) for asked in table["asked"].to_pylist()])
    for objective, asked, given in zip(objectives, wanted.T, scores.T, strict=True):
        follows = np.corrcoef(asked, given)[0, 1] if np.ptp(asked) * np.ptp(given) else 0.0
        logger.info(
            "%s: %s was asked for at %.2f and came out at %.2f on average, correlation %.2f",
            name, objective, asked.mean(), given.mean(), follows,
        )  # fmt: skip
