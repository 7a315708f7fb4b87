"""What a study measures for one of its tables: every row, and the differences to one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.config.options import flat
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.bootstrap import interval, resample
from paretohqd_jax.evaluation.frames import Box
from paretohqd_jax.evaluation.summaries import model_summaries
from paretohqd_jax.evaluation.truth import Measured, describe_truth, find_truth
from paretohqd_jax.studies.plan import Table
from paretohqd_jax.studies.run_measures import RowRuns, measures_of, yardsticks_of
from paretohqd_jax.studies.stored import BASE_FAMILY, StoredRun

COSTS = ("optimizer_steps", "tokens_trained", "tokens_generated")


@dataclass(frozen=True)
class MeasuredTable:
    """What came out for one table.

    Attributes:
      name: of the table.
      objectives: `[num_objectives]` names.
      against: the row that differences are to.
      truth: of the task, described, or None.
      rows: by name, `num_runs`, `measures` and `differences` (each a value and its interval by
        name), `models` and `cost`.
      missing: rows that no run of is there.
    """

    name: str
    objectives: list[str]
    against: str
    truth: dict[str, Any] | None
    rows: dict[str, dict[str, Any]]
    missing: list[str]


def measure_table(table: Table, runs: Sequence[StoredRun]) -> MeasuredTable:
    """Measures the rows that there are runs of, among runs of the whole study.

    Raises:
      InputError: runs of the table do not compare.
    """
    names = {row.runs for row in table.rows}
    used = sorted((run for run in runs if run.name in names), key=lambda run: run.seed)
    against = table.against or table.rows[0].name
    if not used:
        return MeasuredTable(table.name, [], against, None, {}, [row.name for row in table.rows])
    _check_alike(table, used)
    rows = {}
    for row in table.rows:
        ours = [run for run in used if run.name == row.runs]
        if ours:
            rows[row.name] = RowRuns(
                {run.seed: run.family(row.family) for run in ours},
                {run.seed: run.family(BASE_FAMILY)[0] for run in ours},
            )
    known = used[0].config["evaluate"].get("truth")
    truth = find_truth(known, len(used[0].objectives)) if known else None
    yardsticks = yardsticks_of(used, list(rows.values()))

    def measures(name: str, seeds: Sequence[int]) -> dict[str, Measured]:
        return measures_of(rows[name], seeds, yardsticks, truth)

    told = {}
    cost = {row.name: _cost([run for run in used if run.name == row.runs]) for row in table.rows}
    for name, row in rows.items():
        seeds = list(row.families)
        found = measures(name, seeds)
        told[name] = {
            "num_runs": len(seeds),
            "seeds": seeds,
            "measures": {key: _summary(each) for key, each in found.items()},
            "differences": _differences(name, against, rows, measures, found),
            "models": _models(row, seeds, yardsticks.box),
            "cost": cost[name],
        }
    missing = [row.name for row in table.rows if row.name not in rows]
    described = truth and describe_truth(truth)
    return MeasuredTable(table.name, used[0].objectives, against, described, told, missing)


def _check_alike(table: Table, runs: Sequence[StoredRun]) -> None:
    """Raises InputError for runs that are measured otherwise than the first, or of other options.

    Options may differ from row to row, but for seeds not among the runs of one name.
    """
    first, namesakes = runs[0], {}
    for run in runs:
        namesake = namesakes.setdefault(run.name, run)
        for other, facts_of in ((first, _yardsticks), (namesake, _options)):
            facts = facts_of(run)
            for what, ours in facts_of(other).items():
                if what in facts and not _alike(ours, facts[what]):
                    raise InputError(
                        f"table {table.name!r}: {what} {facts[what]!s:.200} in the run "
                        f"{run.name!r} of seed {run.seed}, and {ours!s:.200} in {other.name!r} of "
                        f"seed {other.seed}; only what is measured alike goes into one table"
                    )


def _yardsticks(run: StoredRun) -> dict[str, Any]:
    return {
        "the objectives are": run.objectives,
        "the held-out prompts are": run.prompts,
        "the frame of training rows is": run.frame.to_dict(),
        "the box of training rows is": run.box.to_dict(),
        "the true front is": run.config["evaluate"].get("truth", ""),
    }


def _options(run: StoredRun) -> dict[str, Any]:
    options = {
        f"the option {name} is": value for name, value in flat(run.config).items() if name != "seed"
    }
    return options | {"the numbers of policies are": [*map(len, run.families.values())]}


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether these are equal, numbers but for rounding, wherever they are said to come from."""
    if isinstance(ours, dict):
        return all(_alike(ours[name], theirs[name]) for name in ours if name != "source")
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return bool(np.isclose(ours, theirs))
    return ours == theirs


def _differences(
    name: str,
    against: str,
    rows: Mapping[str, RowRuns],
    measures: Callable[..., dict[str, Measured]],
    found: dict[str, Measured],
) -> dict[str, Any]:
    """To another row, over the seeds that both have."""
    if name == against or against not in rows:
        return {}
    seeds = [seed for seed in rows[name].families if seed in rows[against].families]
    if not seeds:
        return {}
    ours = found if seeds == list(rows[name].families) else measures(name, seeds)
    theirs = measures(against, seeds)
    return {
        key: _summary(
            Measured(ours[key].value - theirs[key].value, ours[key].drawn - theirs[key].drawn)
        )
        for key in ours
        if key in theirs
    }


def _summary(measured: Measured) -> dict[str, Any]:
    return {"value": measured.value, "interval": interval(measured.drawn)}


def _models(row: RowRuns, seeds: Sequence[int], box: Box) -> list[dict[str, Any]]:
    """Mean rewards, achievement and win rates of each model, with intervals."""
    runs = [[model.answers for model in row.families[seed]] for seed in seeds]
    bases = [row.bases[seed].answers for seed in seeds]
    draws = resample(len(runs[0][0].rewards), len(runs))
    kept = ("label", "preference", "mean_rewards", "interval", "achievement",
            "achievement_interval", "win_rate", "win_rate_interval", "num_tokens", "truncated",
            "collapse")  # fmt: skip
    summaries = model_summaries(runs, bases, box, draws)
    return [{name: summary[name] for name in kept} for summary in summaries]


def _cost(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Of one run, the mean over seeds; seconds by step."""
    if not runs:
        return {}
    steps = [record for run in runs for record in run.cost.values()]
    counts = {
        count: sum(record["cost"].get(count, 0) for record in steps) / len(runs) for count in COSTS
    }
    seconds: dict[str, float] = {}
    for run in runs:
        for step, record in run.cost.items():
            seconds[step] = seconds.get(step, 0) + record["seconds"] / len(runs)
    devices = sorted({f"{record['num_devices']} × {record['device']}" for record in steps})
    return counts | {"seconds": seconds, "devices": devices}
