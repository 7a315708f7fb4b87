"""Made-up rewards for the studies: the shape of the front is known, and rows cost nothing.

Each function takes a numpy Generator and returns rewards `[num_rows, num_objectives]`; name one of
yours in `config.populations` as "package.module:function".
"""

from functools import partial

import numpy as np

NUM_GAUSSIANS = 291_397  # as many rows as the scored HH-RLHF of Rewards-in-Context
NUM_ROWS = 20_000  # about as many as a draw of the AlpacaEval data has


def independent(random):
    """Two objectives that have nothing to do with each other."""
    return _gaussians(random, 0.0)


def opposed(random):
    """Two objectives that pull apart: correlation -0.5."""
    return _gaussians(random, -0.5)


def bulging(random):
    """A front that bulges outwards, a quarter of a circle, and rows behind it."""
    return _arc(random) * _depth(random)


def hollow(random):
    """A front that is hollow: no row in the middle has a larger sum than the ends."""
    return (1 - _arc(random)) * _depth(random)


def three_scales(random):
    """Three objectives in units of their own, as reward models have them."""
    return random.normal(size=(NUM_ROWS, 3)) * (1, 2, 10)


def _bulging_sphere(random, num_objectives):
    """Rows on and behind the part of a sphere on which nothing is below 0."""
    return _directions(random, num_objectives) * _depth(random)


def _hollow_sphere(random, num_objectives):
    """The same sphere seen from the other side."""
    return (1 - _directions(random, num_objectives)) * _depth(random)


def _unrelated(random, num_objectives):
    """Independent Gaussians: no front by construction."""
    return random.normal(size=(NUM_ROWS, num_objectives))


bulging_3, bulging_5, bulging_8 = (partial(_bulging_sphere, num_objectives=m) for m in (3, 5, 8))
hollow_3, hollow_5, hollow_8 = (partial(_hollow_sphere, num_objectives=m) for m in (3, 5, 8))
unrelated_3, unrelated_5, unrelated_8 = (partial(_unrelated, num_objectives=m) for m in (3, 5, 8))


def _gaussians(random, correlation):
    first, second = random.normal(size=(NUM_GAUSSIANS, 2)).T
    return np.stack([first, correlation * first + np.sqrt(1 - correlation**2) * second], axis=1)


def _arc(random):
    angle = random.uniform(0, np.pi / 2, NUM_ROWS)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _directions(random, num_objectives):
    """Evenly spread over the sphere."""
    along = np.abs(random.normal(size=(NUM_ROWS, num_objectives)))
    return along / np.linalg.norm(along, axis=1, keepdims=True)


def _depth(random):
    """How much of the way from the worst corner to the front: 0.9 on average, at most 1."""
    return np.exp(-random.exponential(0.1, NUM_ROWS))[:, None]
