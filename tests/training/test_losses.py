from __future__ import annotations

import jax.numpy as jnp

from paretohqd_jax.training.losses import sft_loss


def test_the_loss_is_the_mean_over_response_tokens_alone():
    log_probs = jnp.array([[-1.0, -2.0, -3.0], [-4.0, -50.0, -60.0]])
    mask = jnp.array([[False, True, True], [True, False, False]])
    assert sft_loss(log_probs, mask) == 3.0
    assert sft_loss(log_probs, jnp.zeros_like(mask)) == 0.0
