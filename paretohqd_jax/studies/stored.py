"""The points of a finished run in one small file: all that a study's tables are made of.

Rewards of single answers, not texts; five digits of each.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.collapse import CAUSES
from paretohqd_jax.evaluation.diversity import distinct_share
from paretohqd_jax.evaluation.frames import Box, Frame
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.pipeline import read_manifest
from paretohqd_jax.policies import FILE, Policy, read_policies
from paretohqd_jax.steps.results import read_results

BASE_FAMILY = "base"
DIGITS = 5


@dataclass(frozen=True)
class StoredModel:
    """A policy's answers, of which the texts are not kept.

    Attributes:
      answers: to the held-out prompts; `responses` are empty.
      distinct: `[2]`, the shares distinct-1 and distinct-2 of the texts.
    """

    answers: ModelResponses
    distinct: Sequence[float]


@dataclass(frozen=True)
class StoredRun:
    """What a run left, read from its file.

    Attributes:
      name: of its runs in the study.
      seed: of it.
      config: its options.
      objectives: `[num_objectives]` names.
      frame: of the scored training rows, z-score.
      box: of the same rows.
      prompts: a digest of the held-out prompts.
      families: by name; BASE_FAMILY is the base model alone.
      cost: by step, what it cost in counts, seconds, and devices.
    """

    name: str
    seed: int
    config: dict[str, Any]
    objectives: list[str]
    frame: Frame
    box: Box
    prompts: str
    families: dict[str, list[StoredModel]]
    cost: dict[str, dict[str, Any]]

    def family(self, name: str) -> list[StoredModel]:
        """The policies of a family, "" being the last; raises InputError if there is none."""
        name = name or list(self.families)[-1]
        if name not in self.families:
            raise InputError(
                f"{self.name}: has no family {name!r}; use one of {', '.join(self.families)}"
            )
        return self.families[name]


def points_of(name: str, seed: int, config: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """The points of the finished run in `workdir`, JSON-able, as `read_points` reads them."""
    families = {}
    for family in read_policies(workdir / FILE).families:
        results = read_results(workdir, family)
        families |= {BASE_FAMILY: [_stored(results.base)]}
        families[family] = [_stored(model) for model in results.front]
    steps = read_manifest(workdir)
    kept = ("seconds", "num_devices", "device")
    return {
        "run": name,
        "seed": seed,
        "config": config,
        "objectives": results.objectives,
        "frame": results.frame.to_dict(),
        "box": results.box.to_dict(),
        "prompts": hashlib.sha256(json.dumps(results.prompts).encode()).hexdigest()[:16],
        "families": families,
        "cost": {
            step: {"cost": record.get("cost", {})} | {fact: record[fact] for fact in kept}
            for step, record in steps.items()
        },
        "versions": results.effort["versions"],
    }


def _stored(model: ModelResponses) -> dict[str, Any]:
    return {
        "label": model.policy.label,
        "preference": model.policy.preference and list(model.policy.preference),
        "rewards": [[float(f"{r:.{DIGITS}g}") for r in row] for row in model.rewards.tolist()],
        "num_tokens": list(model.num_tokens),
        "truncated": [int(cut) for cut in model.truncated],
        "causes": [("", *CAUSES).index(cause) for cause in model.causes],
        "distinct": [round(distinct_share(model.responses, n), DIGITS) for n in (1, 2)],
    }


def read_points(path: Path) -> list[StoredRun]:
    """The run in a file, .json or .json.gz, or the runs of a list of such points.

    Raises:
      InputError: the file cannot be read, or is not what `points_of` returned.
    """
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt") as file:
            points = json.load(file)
        if points == []:
            raise ValueError("an empty list")
        return [_run(each) for each in (points if isinstance(points, list) else [points])]
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: holds no points of a run ({type(error).__name__}: {error}); remove the file "
            "and run the study again"
        ) from error


def _run(points: dict[str, Any]) -> StoredRun:
    return StoredRun(
        points["run"], int(points["seed"]), dict(points["config"]), list(points["objectives"]),
        Frame.from_dict(points["frame"]), Box.from_dict(points["box"]), points["prompts"],
        {
            name: [_model(values, len(points["objectives"])) for values in family]
            for name, family in points["families"].items()
        },
        dict(points["cost"]),
    )  # fmt: skip


def _model(values: dict[str, Any], num_objectives: int) -> StoredModel:
    rewards = np.array(values["rewards"], np.float64)
    num_prompts = len(values["num_tokens"])
    if rewards.shape != (num_prompts, num_objectives) or not np.isfinite(rewards).all():
        raise ValueError(f"rewards of {values['label']!r} are not [{num_prompts}, objectives]")
    preference = values["preference"]
    policy = Policy(values["label"], preference and tuple(preference))
    causes = [("", *CAUSES)[cause] for cause in values["causes"]]
    cut = [bool(flag) for flag in values["truncated"]]
    answers = ModelResponses(policy, rewards, causes, [], values["num_tokens"], cut)
    return StoredModel(answers, values["distinct"])
