"""The answers a reader of the report can look through with a slider over the policies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.plots import short_name, title


@dataclass(frozen=True)
class Answer:
    """One response of a model, its rewards `[num_objectives]`, and why it collapsed, or ""."""

    response: str
    rewards: Sequence[float]
    cause: str = ""


@dataclass(frozen=True)
class Sample:
    """A prompt with the answer of the base model and, for each family, one per policy."""

    prompt: str
    base: Answer
    fronts: Mapping[str, Sequence[Answer]]


def slider(evaluation: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """What the page needs to show any model's answers.

    The slider runs from the least to the greatest weight of the first objective; models of more
    than two objectives, or without preferences, lie on no line and come in the order of the tables.

    Args:
      evaluation: what `evaluate_fronts` returned.
      samples: of its families.

    Returns:
      `families`, each with `name`, `title` and `positions`, the texts that stand for its models;
      `start`, the family, position and model shown first; `json`, for each family its positions and
      the answers by position and prompt as [response, rewards, cause], safe inside a script.
    """
    objectives = evaluation["objectives"]
    families, data = [], {}
    for name, front in evaluation["fronts"].items():
        models = front["models"]
        order = _order([model["preference"] for model in models])
        positions = [_text(objectives, models[model]) for model in order]
        answers = [[_brief(sample.fronts[name][model]) for sample in samples] for model in order]
        families.append({"name": name, "title": title(name), "positions": positions})
        data[name] = {"positions": positions, "answers": answers}
    middle = len(order) // 2
    return {
        "families": families,
        "start": {"family": name, "position": middle, "model": int(order[middle])},
        # A text with </script> in it must not end the script.
        "json": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }


def _order(preferences: Sequence[Sequence[float] | None]) -> np.ndarray:
    """The models from one end of the slider to the other."""
    if None in preferences or len(preferences[0]) > 2:
        return np.arange(len(preferences))
    return np.argsort(np.array(preferences)[:, 0], kind="stable")


def _text(objectives: Sequence[str], model: Mapping[str, Any]) -> str:
    """Its weights, or without a preference its label."""
    if model["preference"] is None:
        return model["label"]
    pairs = zip(map(short_name, objectives), model["preference"], strict=True)
    return ", ".join(f"{name} {weight:.2f}" for name, weight in pairs)


def _brief(answer: Answer) -> list[Any]:
    return [answer.response, [round(float(reward), 4) for reward in answer.rewards], answer.cause]
