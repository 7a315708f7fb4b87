"""The points of a finished run in one small file: all that a study's tables are made of.

Rewards of single answers, not texts; five digits of each.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
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
from paretohqd_jax.policies import FILE, Policies, Policy, read_policies
from paretohqd_jax.steps.results import read_results
from paretohqd_jax.training.metrics import read_metrics, trajectories_of

BASE_FAMILY = "base"
DIGITS = 5
MAX_TIMES = 100  # of a trajectory


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
class Trajectories:
    """How the constraints of a stack went, at steps that are spread evenly.

    Attributes:
      adapters: their names.
      steps: `[num_times]`, from 1.
      metrics: by name `[num_adapters, num_times]`, not a number where one does not apply.
    """

    adapters: Sequence[str]
    steps: np.ndarray
    metrics: Mapping[str, np.ndarray]


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
      constraints: of the stack that learnt under some, or None.
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
    constraints: Trajectories | None = None

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
    families, policies = {}, read_policies(workdir / FILE)
    for family in policies.families:
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
        "constraints": _constraints(policies, workdir / "logs"),
        "versions": results.effort["versions"],
    }


def _constraints(policies: Policies, log_directory: Path) -> dict[str, Any] | None:
    """The trajectories of the last stack that learnt under constraints, JSON-able."""
    for stack, adapters in reversed(policies.stacks.items()):
        if metrics := trajectories_of(read_metrics(log_directory / stack), adapters):
            num_steps = next(iter(metrics.values())).shape[1]
            times = np.linspace(0, num_steps - 1, min(num_steps, MAX_TIMES)).round().astype(int)
            return {
                "adapters": list(adapters),
                "steps": (times + 1).tolist(),
                "metrics": {
                    name: [[_digits(x) for x in row] for row in values[:, times].tolist()]
                    for name, values in metrics.items()
                },
            }
    return None


def _digits(value: float) -> float | None:
    """The value to some digits, or None for what is not a number."""
    return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")


def _stored(model: ModelResponses) -> dict[str, Any]:
    return {
        "label": model.policy.label,
        "preference": model.policy.preference and list(model.policy.preference),
        "rewards": [[_digits(r) for r in row] for row in model.rewards.tolist()],
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
        dict(points["cost"]), _trajectories(points.get("constraints")),
    )  # fmt: skip


def _trajectories(told: dict[str, Any] | None) -> Trajectories | None:
    if told is None:
        return None
    metrics = {name: np.array(values, np.float64) for name, values in told["metrics"].items()}
    return Trajectories(list(told["adapters"]), np.array(told["steps"]), metrics)


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
