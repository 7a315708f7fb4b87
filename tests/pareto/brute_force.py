"""Slow and obvious versions that the tests compare with."""

from __future__ import annotations

import itertools

import numpy as np


def ranks(rewards) -> np.ndarray:
    rewards = np.asarray(rewards)
    dominates = (rewards[:, None] >= rewards[None]).all(2) & (rewards[:, None] > rewards[None]).any(
        2
    )
    rank = np.full(len(rewards), -1, np.int32)
    layer, left = 0, np.ones(len(rewards), bool)
    while left.any():
        first = left & ~dominates[left].any(axis=0)
        rank[first], left, layer = layer, left & ~first, layer + 1
    return rank


def hypervolume(points, reference) -> float:
    """Inclusion and exclusion over all subsets; a dozen points at most."""
    points = np.unique(np.maximum(np.asarray(points, float), reference), axis=0) - reference
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            total += (-1) ** (size + 1) * np.prod(np.min(subset, axis=0))
    return total


def nearest(rewards, preferences, k, low, high):
    """Rows in the order of `nearest_to_ray`, one preference and one row at a time."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    scale = np.where(high > low, high - low, 1)
    chosen = []
    for preference in np.asarray(preferences, float):
        direction = -(1 - preference) * (high - low) / scale
        length = np.linalg.norm(direction)
        direction = direction / length if length > 0 else direction
        keys = []
        for row, reward in enumerate(np.asarray(rewards, float)):
            offset = (reward - high) / scale
            along = max(0.0, float(offset @ direction))
            keys.append((round(float(np.linalg.norm(offset - along * direction)), 9), row))
        chosen.append([row for _, row in sorted(keys)[:k]])
    return np.array(chosen)


def smallest_chebyshev(rewards, preferences, k, low, high, augmentation=0.01, min_gap=1e-3):
    """Rows in the order of `smallest_chebyshev_distance`, one preference and one row at a time."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    scale = np.where(high > low, high - low, 1)
    chosen = []
    for preference in np.asarray(preferences, float):
        keys = []
        for row, reward in enumerate(np.asarray(rewards, float)):
            lacks = (high - reward) / scale / np.maximum(1 - preference, min_gap)
            keys.append((round(float(max(lacks) + augmentation * sum(lacks)), 9), row))
        chosen.append([row for _, row in sorted(keys)[:k]])
    return np.array(chosen)
