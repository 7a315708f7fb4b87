"""The steps of Rewards-in-Context: scores in prompts, answers to scores asked for, mixtures."""

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
import pyarrow.parquet as pq

from paretohqd_jax.config.ric import parse_range
from paretohqd_jax.data.conversations import in_words, transcript
from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import drop_duplicates, read_table, write_table
from paretohqd_jax.data.scores_in_prompt import DECIMALS, TAG, scores_in, words_with
from paretohqd_jax.data.scores_in_rows import (
    standardised,
    statistics_of,
    with_scores_in_prompts,
)
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.targets import Targets, good_on_some
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policy
from paretohqd_jax.sampling.generation import encode_prompts
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.candidates import candidates_of, gates_of, is_candidate
from paretohqd_jax.steps.generation import answers_of
from paretohqd_jax.steps.task import Task, longest_response, prompt_options, sampling_options

ADAPTER = "ric"  # the one of each stack

logger = logging.getLogger(__name__)


def scores_in_prompts(task: Task, name: str, scored: Output, reference: Output) -> Output:
    """The scored rows with their standardised rewards in their prompts.

    `reference` holds training rows whose rewards are in the units of those of generated responses.
    """
    ric = task.config.ric
    work = partial(
        write_scores_in_prompts, base=task.base, max_new_tokens=longest_response(task.config)
    )
    return task.run.step(
        name, "ric/data.parquet", work, scored, reference,
        objectives=task.objectives, asked_range=ric.range, rounded=ric.legacy_round,
        without_end=ric.legacy_no_eos, also=prompt_options(task.base),
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
        gates=gates_of(task), without_end=ric.legacy_no_eos, clean=ric.legacy_clean,
        seed=task.config.seed,
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
    asked_range: str,
    rounded: bool,
    without_end: bool,
) -> None:
    """Leaves all rows, held-out ones too; the metadata are what `_facts` reads.

    Raises:
      InputError: an objective is the same in all training rows, scores to ask for lie outside
        theirs, or a prompt has scores already or is too long with them.
    """
    table, source = read_table(scored.path), scored.path
    _check_without_scores(table, source)
    train = table.filter(pa.array(is_candidate(table)))
    check_ranges(rewards_matrix(train, objectives, source), objectives, source)
    statistics = statistics_of(table, objectives, source)
    scores = standardised(table, objectives, source, statistics, rounded)
    low, high = _range(asked_range, scores[is_candidate(table)], objectives, source)
    of_answers = statistics_of(read_table(reference.path), objectives, reference.path)
    facts = {"low": low.tolist(), "high": high.tolist(), "statistics": of_answers.tolist()}
    table = with_scores_in_prompts(table, scores, objectives, without_end)
    texts = base.format(pc.unique(table["prompt"]).to_pylist())
    context = base.config.max_position_embeddings
    encode_prompts(base.tokenizer, texts, context, SamplingConfig(max_new_tokens))
    for name, *ends in zip(objectives, low, high, strict=True):
        logger.info("%s: scores from %.1f to %.1f are asked for", name, *ends)
    write_table(path, table.replace_schema_metadata({"ric": json.dumps(facts)}))


def _check_without_scores(table: pa.Table, source: Path) -> None:
    for row, prompt in enumerate(table["prompt"].to_pylist()):
        if TAG in prompt:
            raise InputError(
                f"{source}: row {row}: the prompt has {TAG} in it already, where the response's "
                "scores are to stand; give prompts without scores"
            )


def _range(
    asked: str, scores: np.ndarray, objectives: Sequence[str], source: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest scores to ask for, `[num_objectives]`, by `config.ric.range`.

    Raises InputError for scores beyond those of the data, `[num_rows, num_objectives]`; of the
    range "normal", which is wider than most data, it but warns.
    """
    scores = np.round(scores, DECIMALS) + 0.0
    low, high = scores.min(axis=0), scores.max(axis=0)
    wanted = parse_range(asked)
    if wanted is None:
        return low, high
    for name, lowest, highest in zip(objectives, low, high, strict=True):
        if lowest <= wanted[0] < wanted[1] <= highest:
            continue
        beyond = (
            f"config.ric.range={asked!r}: the standardised rewards of {name!r} in {source} go from "
            f"{lowest:.1f} to {highest:.1f}, and nothing is learnt of scores beyond; use "
        )
        if asked != "normal":
            raise InputError(f"{beyond}a range within, 'data', or 'normal' as RiC's code")
        logger.warning("%sone within or 'data', unless it is to be as in RiC's code", beyond)
    return tuple(np.full(len(objectives), end) for end in wanted)


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
    """Leaves the answers to prompts without scores; `asked` is the prompt with them.

    Prompts are drawn with replacement, as often as rows have them. Returns the cost, in tokens.
    """
    table = read_table(rows.path)
    questions = table["question"].take(np.flatnonzero(is_candidate(table)))
    random = np.random.default_rng(step_seed(seed, name))
    drawn = questions.take(random.integers(len(questions), size=num_prompts)).to_pylist()
    scores = Targets(**targets).near_front(random, num_prompts)
    asked = [in_words(words_with(own), each) for own, each in zip(scores, drawn, strict=True)]
    answers = answers_of(
        [Policy(**values) for values in policies], stacks, workdir, base, asked, engine, sampling,
        batch_size, scratch, seed, name, "generate", engine_command,
    ).rename_columns({"prompt": "asked"})  # fmt: skip
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
    without_end: bool,
    clean: bool,
    seed: int,
) -> None:
    """Leaves rows that are all trained on: `row_id` counts them.

    Of `num_original` random rows of those `drawn` from the data, and of all answers.
    """
    table = read_table(rows.path).take(read_table(drawn.path)["row_id"])
    good = np.flatnonzero(good_on_some(rewards_matrix(table, objectives, rows.path), quantile))
    order = np.random.default_rng(step_seed(seed, name)).permutation(good)
    columns = ["prompt", "response", "truncated", *objectives]
    kept = [table.take(np.sort(order[:num_original])).select(columns)]
    statistics = np.array(_facts(rows)["statistics"])
    for each in answers:
        table = read_table(each.path)
        table = table.take(candidates_of(table, each.path, gates).row_ids)
        if clean:
            texts = zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True)
            table = table.filter(pa.array((_is_clean(*text) for text in texts), pa.bool_()))
        if table.num_rows == 0:
            raise InputError(
                f"{each.path}: no answer is left to train on, all have collapsed or fail the "
                "gates; raise config.train.offline_steps, or lower config.generate.temperature"
            )
        scores = standardised(table, objectives, each.path, statistics)
        _tell(each.path.stem, objectives, table, scores)
        table = with_scores_in_prompts(table, scores, objectives, without_end).select(columns)
        kept.append(table.filter(pa.array(good_on_some(scores, quantile))))
    sizes = [part.num_rows for part in kept]
    logger.info("%s: %d rows of the data, and of the answers %s", name, sizes[0], sizes[1:])
    mixture = pa.concat_tables(kept).append_column("row_id", pa.array(np.arange(sum(sizes))))
    write_table(path, mixture.replace_schema_metadata(None))


def _facts(rows: Output) -> dict[str, Any]:
    """What `scores_in_prompts` has found.

    `low` and `high` of the scores to ask for, and `statistics` in the units of answers' rewards, as
    of `statistics_of`.
    """
    return json.loads(pq.read_schema(rows.path).metadata[b"ric"])


def _is_clean(prompt: str, response: str) -> bool:
    """Whether RiC's code keeps an answer, which it looks at together with the prompt."""
    text = f"{transcript(prompt)} {response}"
    return "....." not in text and text.count(":)") < 3


def _tell(name: str, objectives: Sequence[str], table: pa.Table, scores: np.ndarray) -> None:
    """Logs how the scores of answers follow those that were asked for."""
    wanted = np.array([scores_in(asked) for asked in table["asked"].to_pylist()])
    for objective, asked, given in zip(objectives, wanted.T, scores.T, strict=True):
        follows = np.corrcoef(asked, given)[0, 1] if np.ptp(asked) * np.ptp(given) else 0.0
        logger.info(
            "%s: %s was asked for at %.2f and came out at %.2f on average, correlation %.2f",
            name, objective, asked.mean(), given.mean(), follows,
        )  # fmt: skip
