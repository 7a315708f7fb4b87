"""What finished runs left behind, read again to be compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paretohqd_jax.data.rows import check_columns, read_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.evaluation.front import ModelResponses
from paretohqd_jax.methods.evaluation import model_responses, rows_by_model


@dataclasses.dataclass(frozen=True)
class Results:
    """The models of one stage of a run, and the base model, on its held-out prompts."""

    workdir: Path
    models: list[str]  # config.rewards.models, what the objectives were scored with
    sampling: dict[str, float]  # config.evaluate
    objectives: list[str]
    preferences: list[list[float]]
    prompts: list[str]
    base: ModelResponses
    front: list[ModelResponses]
    frame: Frame  # of the scored training rows, z-score

    def on(self, prompts: Sequence[str]) -> Results:
        """These results on some of the prompts alone, in the given order."""
        number = {prompt: index for index, prompt in enumerate(self.prompts)}
        rows = np.array([number[prompt] for prompt in prompts])

        def some(model: ModelResponses) -> ModelResponses:
            texts = (model.causes, model.responses, model.num_tokens)
            return ModelResponses(
                model.rewards[rows], *([values[row] for row in rows] for values in texts)
            )

        front = [some(model) for model in self.front]
        return dataclasses.replace(self, prompts=list(prompts), base=some(self.base), front=front)


def read_results(workdir: Path, stage: str = "") -> Results:
    """Reads a run directory whose evaluation is done.

    Args:
      workdir: the run directory.
      stage: "stage1" or "stage2"; "" takes the last one, and so do runs of one stage.

    Raises:
      InputError: the directory holds no finished evaluation, or has no such stage.
    """
    names = ("objectives", "preferences", "fronts", "frames")
    points = _read_json(workdir / "evaluation" / "points.json", names)
    config = _read_json(workdir / "config.json", ("rewards", "evaluate"))
    objectives, fronts = points["objectives"], points["fronts"]
    if not stage or len(fronts) == 1:
        stage = list(fronts)[-1]
    if stage not in fronts:
        raise InputError(f"{workdir}: has no {stage!r}; use one of {', '.join(fronts)}")
    path = workdir / "evaluation" / "scores.parquet"
    answers = read_table(path)
    columns = ("adapter", "prompt", "response", "num_tokens", "collapsed")
    check_columns(answers, (*columns, *objectives), path)
    sizes = [len(front["models"]) for front in fronts.values()]
    tables = rows_by_model(answers, 1 + sum(sizes))
    prompts = tables[0]["prompt"].to_pylist()
    if not prompts or any(rows["prompt"].to_pylist() != prompts for rows in tables):
        raise InputError(
            f"{path}: holds no answer of each of {len(tables)} models to the same prompts; "
            "remove the file and run again"
        )
    base, *models = [model_responses(rows, objectives, path) for rows in tables]
    first = sum(sizes[: list(fronts).index(stage)])
    return Results(
        workdir=workdir,
        models=list(config["rewards"]["models"]),
        sampling={name: config["evaluate"][name] for name in sorted(config["evaluate"])
                  if name != "batch_size"},
        objectives=objectives,
        preferences=points["preferences"],
        prompts=prompts,
        base=base,
        front=models[first : first + len(fronts[stage]["models"])],
        frame=Frame.from_dict(points["frames"][0]),
    )  # fmt: skip


def _read_json(path: Path, names: Sequence[str]) -> dict:
    """The object in a file, which must have all of `names`."""
    try:
        values = dict(json.loads(path.read_text()))
        missing = [name for name in names if name not in values]
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is that a finished run?") from error
    if missing:
        raise InputError(f"{path}: has no {', '.join(missing)}; is that a finished run?")
    return values
