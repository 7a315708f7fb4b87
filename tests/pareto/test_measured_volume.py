from __future__ import annotations

import time

import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import hypervolume, measure_hypervolume, measured_volume


def sphere(num_points, num_objectives):
    """Points of which none dominates another."""
    points = np.abs(np.random.default_rng(0).normal(size=(num_points, num_objectives)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize(("num_points", "num_objectives"), [(9, 1), (99, 2), (200, 3), (60, 6)])
def test_what_is_quick_is_exact(num_points, num_objectives):
    points, reference = sphere(num_points, num_objectives), np.zeros(num_objectives)
    assert measure_hypervolume(points, reference) == (hypervolume(points, reference), 0)


def test_an_estimate_has_its_error_and_exact_is_on_request(monkeypatch):
    points, reference = sphere(60, 7), np.full(7, 0.01)
    exact = hypervolume(points, reference)
    monkeypatch.setattr(measured_volume, "QUICK", 1000)
    value, error = measure_hypervolume(points, reference)
    assert 0 < error < 0.005 * exact
    assert abs(value - exact) < 4 * error
    assert measure_hypervolume(points, reference) == (value, error), "of the same samples"
    assert measure_hypervolume(points, reference, exact=True) == (exact, 0)


def test_200_points_of_10_objectives_take_seconds():
    start = time.monotonic()
    value, error = measure_hypervolume(sphere(200, 10), np.zeros(10))
    assert 0 < error < 0.01 * value
    assert time.monotonic() - start < 20


def test_only_the_front_counts_for_the_size():
    points, reference = sphere(20, 10), np.zeros(10)
    many = np.concatenate([points, *(points * scale for scale in np.linspace(0.1, 0.9, 50))])
    expected = hypervolume(points, reference)
    assert measure_hypervolume(many, reference) == pytest.approx((expected, 0), rel=1e-12)
    assert measure_hypervolume(-many, reference) == (0, 0)


def test_bad_points_are_refused_at_any_size():
    points = sphere(300, 10)
    with pytest.raises(InputError, match=r"reference: shape \(9,\); give \[10\]"):
        measure_hypervolume(points, np.zeros(9))
    points[7, 3] = np.nan
    with pytest.raises(InputError, match="row 7"):
        measure_hypervolume(points, np.zeros(10))
