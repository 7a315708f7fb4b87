from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.models.llama import compute_logits
from paretohqd_jax.models.log_probs import token_log_probs


@pytest.mark.parametrize(
    "chunk_size, soft_cap", [(1, None), (5, None), (12, None), (100, None), (5, 2.0)]
)
def test_chunks_change_neither_values_nor_gradients(chunk_size, soft_cap):
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (3, 12, 8))
    embedding = jax.random.normal(keys[1], (17, 8))
    targets = jax.random.randint(keys[2], (3, 12), 0, 17)

    def whole(hidden):
        log_probs = jax.nn.log_softmax(compute_logits(hidden, embedding, soft_cap))
        return jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]

    def chunked(hidden):
        return token_log_probs(hidden, embedding, targets, chunk_size, soft_cap)

    np.testing.assert_allclose(chunked(hidden), whole(hidden), atol=1e-5)
    weights = jnp.arange(36.0).reshape(3, 12)
    gradients = [jax.grad(lambda h, f=f: jnp.sum(f(h) * weights))(hidden) for f in (chunked, whole)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_bfloat16_states_give_float32_log_probs():
    hidden = jnp.ones((1, 3, 4), jnp.bfloat16)
    log_probs = token_log_probs(hidden, jnp.ones((5, 4), jnp.bfloat16), jnp.zeros((1, 3), int))
    assert log_probs.dtype == jnp.float32
    np.testing.assert_allclose(log_probs, -np.log(5.0), rtol=1e-6)
