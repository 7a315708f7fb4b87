"""The options of a study of preference structures under MOPO, which needs no data and no model."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config.options import ABOVE_ZERO, OURS, Option, Valid, at_least

STRUCTURES = ("total_order", "partial_order", "antichain", "incomparable", "cyclic")


def _some_of(values: tuple, allowed: tuple) -> bool:
    return len(set(values)) == len(values) > 0 and set(values) <= set(allowed)


OPTIONS = {
    "structures": Option(
        STRUCTURES,
        Valid(f"some of {', '.join(STRUCTURES)}", lambda values: _some_of(values, STRUCTURES)),
        OURS,
        "How the objectives prefer the responses.",
    ),
    "num_objectives": Option(
        (2, 3), Valid("2, 3 or both", lambda values: _some_of(values, (2, 3))), OURS, "K."
    ),
    "num_responses": Option(6, at_least(3), OURS, "Of the table."),
    "num_thresholds": Option(8, at_least(2), OURS, "Points of each front."),
    "mopo": {
        "tau": Option(
            0.3, ABOVE_ZERO, OURS, "Weight of the divergence from the reference (paper: 0.08)."
        ),
        "epsilon": Option(
            0.001,
            ABOVE_ZERO,
            OURS,
            "Radius of the ball of the constraints' worst case, in nats. The paper's 0.15 lowers "
            "the bounds by more than its thresholds leave.",
        ),
        "max_multiplier": Option(
            10.0, ABOVE_ZERO, OURS, "The largest; a threshold that needs more is out of reach."
        ),
        "num_steps": Option(4000, at_least(1), OURS, "Of policy, multipliers and chi."),
        "learning_rate": Option(1.0, ABOVE_ZERO, OURS, "Of the policy's logits."),
        "multiplier_rate": Option(2.0, ABOVE_ZERO, OURS, "Of lambda."),
        "chi_rate": Option(0.5, ABOVE_ZERO, OURS, "Of log chi."),
    },
}


def check(config: ConfigDict) -> None:
    """All options stand alone."""
