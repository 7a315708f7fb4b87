"""Learning which response belongs to which prompt (see `models.match`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from paretohqd_jax.models.match import PROMPT, RESPONSE, init_match, similarity, words_of
from paretohqd_jax.progress import progress_bar

PyTree = Any
BATCHES = 20  # that mean and deviation are taken from


class Texts(NamedTuple):
    """N texts, tokens int32 [N, T] with a mask bool [N, T]."""

    tokens: jax.Array
    mask: jax.Array


def all_similarities(
    match: PyTree, embedding: jax.Array, prompts: Texts, responses: Texts
) -> jax.Array:
    """Of N prompts and M responses, float32 [N, M]."""
    prompt = words_of(match, embedding, *prompts, PROMPT)
    response = words_of(match, embedding, *responses, RESPONSE)
    return similarity(
        jax.tree.map(lambda leaf: leaf[:, None], prompt),
        jax.tree.map(lambda leaf: leaf[None], response),
    )


def matching_loss(similarities: jax.Array, log_scale: jax.Array, threshold: jax.Array) -> jax.Array:
    """Mean over N prompts of the loss over N responses [N, N], those on the diagonal their own.

    The sigmoid loss of Zhai et al. (arXiv 2303.15343, algorithm 1), with learned scale and
    threshold: each pair is told by itself, so that similarities of different prompts compare.
    """
    signs = 2 * jnp.eye(len(similarities)) - 1
    logits = jnp.exp(log_scale) * (similarities - threshold)
    return -jnp.sum(jax.nn.log_sigmoid(signs * logits)) / len(similarities)


def learn_match(
    embedding: jax.Array,
    prompts: Texts,
    responses: Texts,
    rows: Sequence[Sequence[int]],
    *,
    rank: int,
    penalty: float,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Parameters of `models.match`, by Adam with a cosine decay.

    Args:
      embedding: float32 [V, D], of the base model.
      prompts, responses: a text each in every row.
      rows: of each different prompt its rows; a step takes one of each of `batch_size` prompts.
      rank, penalty, num_steps, batch_size, learning_rate: see `config.match`.
      seed: of the start and of the order.
    """
    random = np.random.default_rng(seed)

    def draw() -> list[Texts]:
        drawn = random.choice(len(rows), batch_size, replace=False)
        chosen = np.array([random.choice(rows[number]) for number in drawn])
        return [Texts(*(array[chosen] for array in texts)) for texts in (prompts, responses)]

    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, num_steps // 10, num_steps)
    optimizer = optax.adam(schedule)
    start = init_match(jax.random.key(seed), embedding.shape[1], rank)
    params = (start, jnp.log(10.0), jnp.asarray(1.2))
    state = optimizer.init(params)

    def loss_of(params: PyTree, *batch: Any) -> jax.Array:
        match, log_scale, threshold = params
        return matching_loss(all_similarities(match, *batch), log_scale, threshold)

    @jax.jit
    def step(params: PyTree, state: PyTree, *batch: Any) -> tuple[PyTree, PyTree, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_of)(params, *batch)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, loss

    with progress_bar(num_steps, "match", "step") as bar:
        for _ in range(num_steps):
            params, state, loss = step(params, state, embedding, *draw())
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
    match = params[0]
    measure = jax.jit(all_similarities)
    others = ~np.eye(batch_size, dtype=bool)
    found = [np.asarray(measure(match, embedding, *draw()))[others] for _ in range(BATCHES)]
    numbers = {"mean": np.mean(found), "deviation": np.std(found), "penalty": penalty}
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), match | numbers)
