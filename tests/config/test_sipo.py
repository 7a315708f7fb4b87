"""The mixtures of SIPO as its options write them."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.config.sipo import mixture_weights, reviewer_weights


@pytest.mark.parametrize(
    ("num_objectives", "num_mixtures"), [(2, 4), (3, 6), (4, 4), (5, 1), (7, 1)]
)
def test_inner_mixtures_leave_no_objective_out(num_objectives, num_mixtures):
    weights = mixture_weights("inner", num_objectives)
    assert weights.shape == (num_mixtures, num_objectives)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_the_published_weights_come_first_and_others_are_free():
    np.testing.assert_allclose(mixture_weights("inner", 2)[:, 0], [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(mixture_weights("6", 2)[:, 0], np.linspace(0, 1, 6))
    assert mixture_weights("", 3).shape == (0, 3)
    np.testing.assert_allclose(reviewer_weights("", 2), [[0.5, 0.5]])
    np.testing.assert_allclose(reviewer_weights("1,0", 2), [[1, 0]])
