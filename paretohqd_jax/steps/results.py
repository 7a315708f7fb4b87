"""What finished runs left behind, read again to be compared."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.config.options import flat
from paretohqd_jax.data.rows import check_columns, read_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.frames import Box, Frame
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.manifest import Manifest, is_current, read_manifest, steps_behind
from paretohqd_jax.policies import FILE, Policy, read_policies
from paretohqd_jax.steps.evaluation import answers_of, fronts_of

# Options that differ between the runs of one method, or change no result.
NO_EFFECT = re.compile(
    r"seed|mesh\.\w+|model\.(remat|attention)|train\.(checkpoint_every|held_out_loss)|data\.date"
    r"|(generate|evaluate|rewards)\.batch_size|rewards\.cache|generate\.engine_command"
).fullmatch


@dataclasses.dataclass(frozen=True)
class Results:
    """The models of one family of a run, and the base model, on its held-out prompts."""

    workdir: Path
    models: list[str]  # config.rewards.models, what the objectives were scored with
    sampling: dict[str, float]  # config.evaluate
    objectives: list[str]
    base_model: str
    prompts: list[str]
    base: ModelResponses
    front: list[ModelResponses]
    frame: Frame  # of the scored training rows, z-score
    box: Box  # of the same rows
    effort: dict[str, Any]  # device hours, device, engine, versions
    options: dict[str, Any]  # that may change the result, by name

    @property
    def policies(self) -> list[Policy]:
        """Of the family."""
        return [model.policy for model in self.front]

    def on(self, prompts: Sequence[str]) -> Results:
        """These results on some of the prompts alone, in the given order."""
        number = {prompt: index for index, prompt in enumerate(self.prompts)}
        rows = np.array([number[prompt] for prompt in prompts])

        def some(model: ModelResponses) -> ModelResponses:
            texts = (model.causes, model.responses, model.num_tokens, model.truncated)
            columns = ([values[row] for row in rows] for values in texts)
            unrewarded = {name: values[rows] for name, values in model.unrewarded.items()}
            return ModelResponses(model.policy, model.rewards[rows], *columns, unrewarded)

        front = [some(model) for model in self.front]
        return dataclasses.replace(self, prompts=list(prompts), base=some(self.base), front=front)


def read_results(workdir: Path, family: str = "") -> Results:
    """Reads a run directory whose evaluation is done.

    Args:
      workdir: the run directory.
      family: of policies; "" takes the last one, and so do runs of one family.

    Raises:
      InputError: the directory holds no finished evaluation, or has no such family.
    """
    manifest = read_manifest(workdir)
    if manifest and not is_current(workdir, manifest, "evaluate"):
        raise InputError(
            f"{workdir}: a run has begun there again and is not finished, so its results may be "
            "of other models than its options say; finish it first"
        )
    policies = read_policies(workdir / FILE)
    points = _read_json(
        workdir / "evaluation" / "points.json", ("objectives", "frames", "box", "run")
    )
    config = _read_json(workdir / "config.json", ("rewards", "evaluate"))
    objectives, families = points["objectives"], list(policies.families)
    if not family or len(families) == 1:
        family = families[-1]
    if family not in families:
        raise InputError(f"{workdir}: has no {family!r}; use one of {', '.join(families)}")
    path = workdir / "evaluation" / "scores.parquet"
    answers = read_table(path)
    columns = (
        "family", "policy", "prompt", "response", "num_tokens", "truncated", "collapsed"
    )  # fmt: skip
    check_columns(answers, (*columns, *objectives), path)
    asked = [answers_of(answers, *each)["prompt"].to_pylist() for each in policies.every()]
    prompts = asked[0]
    if not prompts or any(each != prompts for each in asked):
        raise InputError(
            f"{path}: holds no answer of each of {len(asked)} models to the same prompts; "
            "remove the file and run again"
        )
    unrewarded = points["run"].get("unrewarded", {})
    base, fronts = fronts_of(policies, answers, objectives, path, unrewarded)
    return Results(
        workdir=workdir,
        models=list(config["rewards"]["models"]),
        sampling={name: config["evaluate"][name] for name in sorted(config["evaluate"])
                  if name not in ("batch_size", "truth")},
        objectives=objectives,
        base_model=policies.base["source"],
        prompts=prompts,
        base=base,
        front=fronts[family],
        frame=Frame.from_dict(points["frames"][0]),
        box=Box.from_dict(points["box"]),
        effort=points["run"] | effort_of(manifest),
        options={name: value for name, value in flat(config).items() if not NO_EFFECT(name)},
    )  # fmt: skip


def effort_of(manifest: Manifest) -> dict[str, Any]:
    """The device hours and the devices of the steps that led to the evaluation.

    There may be others, that another method left in the directory.
    """
    steps = steps_behind(manifest, "evaluate").values()
    seconds = sum(step["seconds"] * step["num_devices"] for step in steps)
    devices = sorted({step["device"] for step in steps})
    return {"device_hours": seconds / 3600, "device": ", ".join(devices)}


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
