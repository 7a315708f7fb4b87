"""From the last hidden states to the next token of each row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax.linen import with_logical_constraint as constrain

from paretohqd_jax.models.llama import compute_logits
from paretohqd_jax.sampling.logit_mixtures import Mixing, mix
from paretohqd_jax.sampling.sampler import sample


def draw_tokens(
    hidden: jax.Array,
    embedding: jax.Array,
    weights: jax.Array,
    past: jax.Array,
    keys: jax.Array,
    numbers: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    top_k: int,
    mixing: Mixing,
    soft_cap: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws a token for each of R rows, of the mixture of its M members' distributions.

    Every device draws the tokens of its own rows from whole logits; all learn of all tokens.

    Args:
      hidden: [R M, D], after the final norm; the members of a row lie beside each other.
      embedding: [V, D], of the output.
      weights: float32 [R, M].
      past: float32 [R, M], what each member gives the response so far.
      keys: uint32 [R, 2], key data.
      numbers: int32 [R], which token of its response it is.
      temperature, top_p, top_k: as of `SamplingConfig`.
      mixing: how; of a single member nothing is mixed.
      soft_cap: of the logits.

    Returns:
      int32 [R], and `past` with the token; as it was unless `mixing` reads it.
    """
    logits = constrain(compute_logits(hidden, embedding, soft_cap), ("batch", "vocab"))
    logits = constrain(logits, ("batch", None))  # the logits are gathered, not the embedding
    if weights.shape[1] > 1:
        members = member_log_probs(logits, weights)
        logits = constrain(mix_members(members, weights, past, mixing), ("batch", None))
    step_keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(keys), numbers)
    drawn = constrain(sample(logits, step_keys, temperature, top_p, top_k), (None,))
    if mixing.reads_past:
        past = past + jnp.take_along_axis(members, drawn[:, None, None], axis=2)[..., 0]
    return drawn, past


def member_log_probs(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """Normalised log-probabilities [R, M, V] of logits [R M, V]; `weights` is [R, M]."""
    return jax.nn.log_softmax(logits).reshape(*weights.shape, -1)


def mix_members(
    log_probs: jax.Array, weights: jax.Array, past: jax.Array, mixing: Mixing
) -> jax.Array:
    """`mix` of [R, M, V], of which the last member is the reference if `mixing` reads it."""
    if not mixing.reads_reference:
        return mix(log_probs, weights, mixing, past=past)
    return mix(log_probs[:, :-1], weights[:, :-1], mixing, reference=log_probs[:, -1])
