"""MOPO (Agnihotri et al., arXiv 2505.10892): one objective is maximised, the others are held.

A response of the data counts by how often each objective prefers it to others, times a multiplier
that rises where the objective is short of its threshold; the language model clones the data so
weighted. A front comes of sweeping the primary objective and the thresholds, all in one stack.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.config.mopo import trade_offs
from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import Policy
from paretohqd_jax.steps.cloning import clone
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.scoring import score_rows
from paretohqd_jax.steps.task import check_alignment, open_task
from paretohqd_jax.steps.win_rates import labelled_win_rates, win_rates

STEPS = ("score", "pairs", "win_rates", "mopo", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "MOPO (arXiv 2505.10892)")
    if config.pairs.labels == "data":
        rows, pairs = preference_data(task)
        wins = labelled_win_rates(task, pairs)
    else:
        rows, pairs = score_rows(task), None
        wins = win_rates(task, rows, config.mopo.temperature)
    wanted = trade_offs(config)
    trained = clone(task, "mopo", wanted, wins)
    family = [Policy(each.label, None, (f"mopo/{each.label}",), (1.0,)) for each in wanted]
    return leave(task, rows, {"mopo": family}, [trained], pairs=pairs)


check = check_alignment
