"""RiC, Rewards-in-Context (Yang et al., arXiv 2402.10207): one model, asked for scores by prompt.

Every response is learnt after its own scores, written into the prompt; so the model can be asked
for others. Online, it answers at scores near the front, and learns from what came out well. A
preference is mapped to scores to ask for: any is served by the same weights.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.config.ric import MAX_ITERATIONS
from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import asked_for_scores
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.rewards_in_context import (
    ADAPTER,
    answer_targets,
    mix,
    scores_in_prompts,
    targets_of,
)
from paretohqd_jax.steps.scoring import reference_rows, score_responses, score_rows
from paretohqd_jax.steps.selection import draw_rows
from paretohqd_jax.steps.task import check_alignment, open_task
from paretohqd_jax.steps.training import fine_tune

ONLINE = [
    f"{step}{number}"
    for number in range(1, MAX_ITERATIONS + 1)
    for step in ("generate", "rescore", "mix", "online")
]
STEPS = ("score", "scores_in_prompts", "draw", "offline", *ONLINE, *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "rewards in context (arXiv 2402.10207)")
    scored = score_rows(task)

    # Offline: every response after its own scores.
    rows = scores_in_prompts(task, "scores_in_prompts", scored, reference_rows(task, scored))
    drawn = draw_rows(task, "draw", "offline", rows)
    model = fine_tune(task, "offline", [ADAPTER], rows, drawn, config.train.offline_steps)
    targets = targets_of(task, rows)
    models, answers = [model], []

    # Online: answers at scores near the front, the good ones beside good rows of the data.
    for number in range(1, config.ric.iterations + 1):
        generated = answer_targets(
            task, f"generate{number}", f"ric/responses{number}.parquet", rows, targets, model
        )
        answers.append(
            score_responses(task, f"rescore{number}", f"ric/answers{number}.parquet", generated)
        )
        mixed = mix(task, f"mix{number}", f"ric/mixture{number}.parquet", rows, drawn, answers)
        model = fine_tune(
            task, f"online{number}", [ADAPTER], mixed, mixed, config.train.online_steps, model,
            learning_rate=config.train.online_learning_rate, schedule="constant",
        )  # fmt: skip
        models.append(model)

    families = {
        each.path.name: asked_for_scores(f"{each.path.name}/{ADAPTER}", task.preferences, targets)
        for each in models
    }
    return leave(task, scored, families, models, selections=[drawn], targets=targets)


check = check_alignment
