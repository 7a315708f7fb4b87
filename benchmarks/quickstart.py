"""What the quickstart has to show, checked on finished runs of several seeds.

    python benchmarks/quickstart.py runs/quickstart
    python benchmarks/quickstart.py runs/seed0 runs/seed1 runs/seed2 --judge runs/judge/reward_model

Prints the models of the last stage (means over prompts and seeds), whether each expectation holds,
and the answers of the first run to some held-out prompts, as Markdown. The status is 1 if one
does not hold. Of the objectives `helpful` and `brief` the first has to be a reward model's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paretohqd_jax.data.words import split_words
from paretohqd_jax.evaluation.comparison import Contender, compare_fronts
from paretohqd_jax.evaluation.comparison_tables import markdown_table
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.evaluation.steering import steerability
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.steps.results import Results, read_results

SHARE_OF_RELEVANCE = 0.95
ORDER = 0.9  # Spearman's correlation of weight and mean reward
MORE_COLLAPSED = 0.02


class Check(NamedTuple):
    """Whether what is expected holds; None where it was not measured."""

    expected: str
    found: str
    holds: bool | None


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="finished run directories, one per seed")
    parser.add_argument("--judge", default="", help="a second helpful model, scores the answers")
    parser.add_argument("--answers", type=int, default=10, help="held-out prompts to print")
    return parser.parse_args(words)


def cut_like(text: str, other: str) -> str:
    """The first words of `text`, as many as `other` has."""
    words, count = split_words(text), len(split_words(other))
    end = 0
    for word in words[:count]:
        end = text.index(word, end) + len(word)
    return text[:end]


def scores_of(results: Results, models: Sequence[ModelResponses], scorer: str) -> np.ndarray:
    """The mean score of each model's answers, `[num_models]`."""
    prompts = results.prompts * len(models)
    responses = [response for model in models for response in model.responses]
    return score(prompts, responses, [scorer]).reshape(len(models), -1).mean(axis=1)


def mean_of(models: Sequence[ModelResponses], name: str) -> float:
    """Of a score beside the rewards, over runs and prompts."""
    return float(np.mean([model.unrewarded[name] for model in models]))


def points_of(runs: Sequence[Results]) -> np.ndarray:
    """Mean rewards `[1 + num_models, num_objectives]`, the base model's first."""
    rewards = [[model.rewards for model in (run.base, *run.front)] for run in runs]
    return np.mean(rewards, axis=(0, 2))


def check_order(runs: Sequence[Results]) -> Check:
    preferences = np.array([policy.preference for policy in runs[0].policies])
    found = steerability(preferences, points_of(runs)[1:])
    named = zip(runs[0].objectives, found, strict=True)
    return Check(
        f"more weight on an objective brings more of it (Spearman, at least {ORDER})",
        ", ".join(f"{name} {value:.2f}" for name, value in named), bool(found.min() >= ORDER),
    )  # fmt: skip


def check_relevance(runs: Sequence[Results]) -> Check:
    expected = f"each model's relevance is at least {SHARE_OF_RELEVANCE} of the base model's"
    if "relevance" not in runs[0].base.unrewarded:
        return Check(expected, "not measured", None)
    base = mean_of([run.base for run in runs], "relevance")
    models = zip(*(run.front for run in runs), strict=True)
    least = min(mean_of(model, "relevance") for model in models) / base
    return Check(expected, f"{least:.2f} at the least", least >= SHARE_OF_RELEVANCE)


def check_interior(runs: Sequence[Results]) -> list[Check]:
    """Of the models between the ends: briefer, and more helpful than the base model cut short."""
    brief, points = runs[0].objectives.index("brief"), points_of(runs)
    interior = range(1, len(runs[0].front) - 1)
    briefer = [points[1 + number, brief] - points[0, brief] for number in interior]
    margins = []
    for number in interior:
        prompts, cut, rewards = [], [], []
        for run in runs:
            model = run.front[number]
            pairs = zip(run.base.responses, model.responses, strict=True)
            cut += [cut_like(base, answer) for base, answer in pairs]
            prompts += run.prompts
            rewards += model.rewards[:, 0].tolist()
        said = [row for row, text in enumerate(cut) if text]  # nothing scores an empty answer
        theirs = score([prompts[r] for r in said], [cut[r] for r in said], [runs[0].models[0]])
        margins.append(float(np.mean([rewards[r] for r in said]) - theirs.mean()))
    return [
        Check(
            "interior models are briefer than the base model",
            ", ".join(f"{value:+.2f}" for value in briefer), min(briefer) > 0,
        ),
        Check(
            "and not less helpful than its answers cut to the same number of words",
            ", ".join(f"{value:+.2f}" for value in margins), min(margins) >= 0,
        ),
    ]  # fmt: skip


def check_hypervolume(runs: Sequence[Results]) -> Check:
    bases = [run.base for run in runs]
    contenders = {
        "base": Contender([[base] for base in bases], bases),
        "runs": Contender([run.front for run in runs], bases),
    }
    first = runs[0]
    compared = compare_fronts(
        first.objectives, contenders, {"base": bases}, first.frame, first.box
    )["fronts"]["runs"]  # fmt: skip
    gain, (low, high) = (compared[what]["z-score"] for what in ("gain", "gain_interval"))
    found = f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]"
    return Check("hypervolume above the base model's, 95 % interval", found, low > 0)


def check_collapse(runs: Sequence[Results]) -> Check:
    """Of all models of the last stage together."""

    def share(models: Sequence[ModelResponses]) -> float:
        return float(np.mean([bool(cause) for model in models for cause in model.causes]))

    base, ours = share([run.base for run in runs]), share([m for run in runs for m in run.front])
    return Check(
        f"collapsed answers, at most {100 * MORE_COLLAPSED:.0f} points more than the base model's",
        f"{ours:.1%}, base model {base:.1%}", ours <= base + MORE_COLLAPSED,
    )  # fmt: skip


def check_judge(runs: Sequence[Results], judge: str) -> Check:
    expected = f"a second helpful model agrees on the order (Spearman, at least {ORDER})"
    if not judge:
        return Check(expected, "not measured", None)
    means = np.mean([scores_of(run, run.front, judge) for run in runs], axis=0)
    weights = np.array([[policy.preference[0]] for policy in runs[0].policies])
    [found] = steerability(weights, means[:, None])
    return Check(expected, f"{found:.2f}", bool(found >= ORDER))


def models_table(runs: Sequence[Results]) -> list[str]:
    """Means over prompts and runs."""
    beside = list(runs[0].base.unrewarded)
    rows = {}
    for number, models in enumerate(zip(*((run.base, *run.front) for run in runs), strict=True)):
        preference = models[0].policy.preference
        name = "ω = (" + ", ".join(f"{w:g}" for w in preference) + ")" if number else "base model"
        words = [len(split_words(text)) for model in models for text in model.responses]
        causes = [bool(cause) for model in models for cause in model.causes]
        rows[name] = [
            *(f"{value:.2f}" for value in points_of(runs)[number]),
            *(f"{mean_of(models, score):.2f}" for score in beside),
            f"{np.mean(words):.0f}",
            f"{np.mean(causes):.0%}",
        ]
    num_prompts = len(runs[0].prompts)
    head = [f"{num_prompts} held-out prompts", *runs[0].objectives, *beside, "words", "collapsed"]
    return markdown_table(head, rows)


def answers_text(run: Results, count: int) -> list[str]:
    """Every model's answers to the first prompts, one list a prompt."""
    lines = []
    for number, prompt in enumerate(run.prompts[:count]):
        lines += [f"**{prompt}**", ""]
        for model in (run.base, *run.front):
            preference = model.policy.preference
            name = " / ".join(f"{w:g}" for w in preference) if preference else "base model"
            lines.append(f"* {name}: {' '.join(model.responses[number].split())}")
        lines.append("")
    return lines


def main(words: Sequence[str] | None = None) -> int:
    options = parse(words)
    runs = [read_results(Path(run)) for run in options.runs]
    checks = [
        check_relevance(runs), check_order(runs), *check_interior(runs), check_hypervolume(runs),
        check_collapse(runs), check_judge(runs, options.judge),
    ]  # fmt: skip
    verdict = {True: "yes", False: "**no**", None: "–"}
    found = {check.expected: [check.found, verdict[check.holds]] for check in checks}
    for lines in (
        models_table(runs),
        markdown_table(["expected", "found", "holds"], found),
        answers_text(runs[0], options.answers),
    ):
        print("\n".join([*lines, ""]))
    return int(any(check.holds is False for check in checks))


if __name__ == "__main__":
    sys.exit(main())
