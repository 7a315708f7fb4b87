"""What is known to go wrong before a model is trained under constraints."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from paretohqd_jax.constraints.duals import Duals
from paretohqd_jax.errors import InputError
from paretohqd_jax.steps.cloning import _check_constraint, check_duals, first_duals, rules_of

KIND = np.linspace(0, 1, 41, dtype=np.float32)
OBJECTIVES = ["kind", "brief"]
MOPO = {
    "tau": 0.1, "epsilon": 0.001, "max_multiplier": 10.0, "multiplier_rate": 2.0, "chi_rate": 0.5,
    "refresh_every": 1000, "thresholds": "reference", "sharpness": 0.0,
}  # fmt: skip


def rehearse(level, brief=1 - KIND, least_rows=5.0, **changes):
    rules = rules_of(MOPO | changes)
    wins = np.stack([KIND, brief], axis=1)
    thresholds = (MOPO | changes)["thresholds"]
    duals = first_duals(wins, OBJECTIVES, ["kind"], [[1.0, level]], thresholds, rules)
    check_duals(duals, wins, ["kind,b"], OBJECTIVES, rules, 100, 20.0, least_rows)


def test_a_run_that_can_be_done_tells_where_its_duals_end(caplog):
    caplog.set_level(logging.INFO)
    rehearse(1.0)
    assert "rehearsed 100 steps: multipliers end at" in caplog.text
    assert "never bind" not in caplog.text


@pytest.mark.parametrize(
    ("level", "changes", "message"),
    [
        (1.9, {"multiplier_rate": 9.0}, r"'brief' is infeasible: lambda has been at .*_multip.*=10 "
         r"for 20 steps at step \d+, with a bound of 0\.\d+ below the threshold 0\.9500; lower"),
        (1.5, {"multiplier_rate": 0.01}, r"'brief' is not met: its bound is .*, with lambda \d.* "
         "below the threshold 0.7500; .* or a larger config.mopo.multiplier_rate"),
        (1.0, {"epsilon": 0.15}, "'brief' is infeasible"),  # the paper's default
        (0.5, {"tau": 0.01}, r"weights of 41 rows are worth \d.\d of them, fewer than .*=5; raise "
         "config.mopo.tau=0.01 or config.mopo.refresh_every=1000"),
        (1.0, {"chi_rate": 1e3}, r"'brief' has lambda .* and log chi .* at step \d+; lower config"),
        (0.5, {"refresh_every": 5, "thresholds": "adaptive"}, r"at step \d+ the weights of 41"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_with_its_numbers(level, changes, message):
    with pytest.raises(InputError, match=f"adapter kind,b: .*{message}"):
        rehearse(level, **changes)


@pytest.mark.parametrize("sharpness", [0.0, 100.0])
def test_objectives_that_agree_leave_no_constraint_to_bind(caplog, sharpness):
    rehearse(1.0, brief=KIND**2, sharpness=sharpness)
    assert "the constraints on brief never bind" in caplog.text
    assert "correlate 0.97 with kind" in caplog.text


def test_a_barrier_at_the_largest_multiplier_may_hold_what_it_should():
    rehearse(0.15, thresholds="given", sharpness=50.0, max_multiplier=0.5)


def test_a_constraint_that_was_met_and_is_lost_again_is_told():
    """As one may be that another constraint outbids."""
    steps = np.ones(100, np.float32)
    bounds = np.where(np.arange(100) < 70, 0.5, 0.3)
    path = Duals(*[steps] * 9)._replace(bounds=bounds, thresholds=0.45 * steps)
    with pytest.raises(InputError, match="'brief' is not met: its bound is 0.3000 at best"):
        _check_constraint("the constraint on 'brief'", path, rules_of(MOPO))
