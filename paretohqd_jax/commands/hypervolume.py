"""The command `paretohqd hypervolume`: the volume that scored rows dominate."""

from __future__ import annotations

import argparse

import numpy as np

from paretohqd_jax.commands.arguments import add_exact
from paretohqd_jax.commands.rewards_file import add_rewards, read_rewards
from paretohqd_jax.data.reward_columns import check_magnitudes
from paretohqd_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rewards(parser)
    parser.add_argument("--reference", required=True, help="the reference point: 0,0,...")
    add_exact(parser)


def run(options: argparse.Namespace) -> None:
    """Prints the volume between the reference point and the rows that are above it."""
    from paretohqd_jax.pareto import measure_hypervolume

    _, rewards, objectives = read_rewards(options)
    try:
        reference = np.array([float(value) for value in options.reference.split(",")])
    except ValueError as error:
        raise InputError(f"--reference {options.reference}: {error}; write it like 0,0") from error
    if len(reference) != len(objectives):
        raise InputError(
            f"--reference has {len(reference)} values for {len(objectives)} objectives"
        )
    check_magnitudes(np.vstack([rewards, reference]), objectives, options.file)
    value, error = measure_hypervolume(rewards, reference, options.exact)
    if not np.isfinite(value):
        raise InputError(f"{options.file}: the volume is beyond float64; divide the objectives")
    if error:
        print(f"{value:.6g}, standard error {error:.2g} (a Monte-Carlo estimate; or give --exact)")
    else:
        print(f"{value:.10g}")
