"""The points of a finished run in one small file: all that a study's tables are made of.

Rewards of single answers, not texts; five digits of each.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
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
from paretohqd_jax.manifest import LOGS
from paretohqd_jax.pipeline import read_manifest
from paretohqd_jax.policies import FILE, Policies, Policy, read_policies
from paretohqd_jax.steps.results import read_results
from paretohqd_jax.training.metrics import read_metrics, trajectories_of

BASE_FAMILY = "base"
DAMAGE = (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError,
          OverflowError)  # fmt: skip
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
        "constraints": _constraints(policies, workdir / LOGS),
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
    except DAMAGE as error:
        raise InputError(
            f"{path}: holds no points of a run ({type(error).__name__}: {error}); remove the file "
            "and run the study again"
        ) from error


def _run(points: dict[str, Any]) -> StoredRun:
    objectives = [str(name) for name in points["objectives"]]
    frame, box = Frame.from_dict(points["frame"]), Box.from_dict(points["box"])
    for name, values in {**vars(frame), **vars(box)}.items():
        if not isinstance(values, str):
            _numbers(values, name, len(objectives))
    if not ((frame.scale > 0).all() and (box.low < box.high).all()):
        raise ValueError("the frame or the box has no size")
    families = {
        name: [_model(values, len(objectives)) for values in family]
        for name, family in points["families"].items()
    }
    shapes = {model.answers.rewards.shape for family in families.values() for model in family}
    if len(families[BASE_FAMILY]) != 1 or not all(families.values()) or len(shapes) != 1:
        raise ValueError("not every family has models, of as many prompts, and one base model")
    config, costs = points["config"], points["cost"].items()
    return StoredRun(
        str(points["run"]), int(points["seed"]), config | {"evaluate": dict(config["evaluate"])},
        objectives, frame, box, points["prompts"], families,
        {
            step: {
                "cost": {count: float(number) for count, number in record["cost"].items()},
                "seconds": float(record["seconds"]), "num_devices": int(record["num_devices"]),
                "device": str(record["device"]),
            }
            for step, record in costs
        },
        _trajectories(points.get("constraints")),
    )  # fmt: skip


def _trajectories(told: dict[str, Any] | None) -> Trajectories | None:
    if told is None:
        return None
    adapters, steps = list(told["adapters"]), _numbers(told["steps"], "steps", len(told["steps"]))
    metrics = {name: np.array(values, np.float64) for name, values in told["metrics"].items()}
    if {values.shape for values in metrics.values()} != {(len(adapters), len(steps))}:
        raise ValueError("constraints: not a number for each adapter and step")
    return Trajectories(adapters, steps, metrics)


def _model(values: dict[str, Any], num_objectives: int) -> StoredModel:
    label = str(values["label"])
    num_prompts = len(values["num_tokens"])
    rewards = _numbers(values["rewards"], f"rewards of {label}", num_prompts, num_objectives)
    num_tokens, cut, causes = (
        _numbers(values[name], f"{name} of {label}", num_prompts).astype(int).tolist()
        for name in ("num_tokens", "truncated", "causes")
    )
    preference = values["preference"]
    if preference is not None:
        preference = tuple(_numbers(preference, f"preference of {label}", num_objectives).tolist())
    distinct = _numbers(values["distinct"], f"distinct of {label}", 2).tolist()
    texts = [("", *CAUSES)[cause] for cause in causes]
    policy = Policy(label, preference)
    answers = ModelResponses(policy, rewards, texts, [], num_tokens, [bool(flag) for flag in cut])
    return StoredModel(answers, distinct)


def _numbers(values: Any, name: str, *shape: int) -> np.ndarray:
    """float64 `shape`; raises ValueError for values of another one, or that are not finite."""
    numbers = np.array(values, np.float64)
    if numbers.shape != shape or not shape[0] or not np.isfinite(numbers).all():
        raise ValueError(f"{name}: not {' x '.join(map(str, shape))} finite numbers")
    return numbers
