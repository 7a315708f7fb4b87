"""How the next token is drawn: temperature, top-k and top-p, with a key per row."""

from __future__ import annotations

import dataclasses
import numbers

import jax
import jax.numpy as jnp

from paretohqd_jax.errors import InputError

BLOCK = 256  # tokens per block of the two-level inverse of the distribution function


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn: temperature 0 is greedy; top_k 0 and top_p 1 keep every token.

    As elsewhere the filters apply in the order temperature, top-k, top-p. With temperature 0 there
    may be several beams, and the best response of a beam search is taken.

    Raises InputError for a value that is no number or out of its range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            whole = name in ("max_new_tokens", "top_k", "num_beams")
            kind = numbers.Integral if whole else numbers.Real
            if isinstance(value, bool) or not isinstance(value, kind):
                raise InputError(f"{name} is {value!r}: it must be a {'whole ' * whole}number")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}: it must be at least 1")
        if not 0.0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if not 1e-6 <= self.top_p <= 1.0:  # far below, it would be 0 in float32 and keep no token
            raise InputError(f"top_p is {self.top_p}: it must be in [1e-6, 1]; 1 keeps all tokens")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}: it must be 0 (keep every token) or more")
        if self.num_beams < 1 or (self.num_beams > 1 and self.temperature > 0):
            raise InputError(
                f"num_beams is {self.num_beams}: it must be 1, or more with temperature 0 (which "
                f"is {self.temperature})"
            )


def sample(
    logits: jax.Array, keys: jax.Array, temperature: jax.Array, top_p: jax.Array, top_k: int = 0
) -> jax.Array:
    """One token per row: logits float32 [R, V], keys [R] -> int32 [R].

    Temperature 0 takes the likeliest token, the first of equals.
    """

    def greedy(_: None) -> jax.Array:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def random(_: None) -> jax.Array:
        if not 0 < top_k < logits.shape[1]:
            return _draw(jax.nn.softmax(logits / temperature), keys, top_p)
        likeliest, ids = jax.lax.top_k(logits, top_k)
        drawn = _draw(jax.nn.softmax(likeliest / temperature), keys, top_p)
        return jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0]

    return jax.lax.cond(temperature > 0, random, greedy, None)


def _draw(probabilities: jax.Array, keys: jax.Array, top_p: jax.Array) -> jax.Array:
    """An index per row from the nucleus of probabilities [R, V]; int32 [R].

    The nucleus (Holtzman et al., arXiv 1904.09751) holds the likeliest entries that reach `top_p`
    together: those with less than `top_p` strictly above them. Entries are drawn from the whole
    distribution until one falls into it, which takes 1 / top_p rounds at most on average and
    replaces the sort of the vocabulary, the dearest part of a decoding step, by a few sums.
    """
    num_rows, size = probabilities.shape
    padding = -size % BLOCK
    blocks = jnp.pad(probabilities, ((0, 0), (0, padding))).reshape(num_rows, -1, BLOCK)
    block_sums = jnp.cumsum(jnp.sum(blocks, axis=2), axis=1)

    def attempt(carry: tuple[jax.Array, jax.Array, jax.Array]):
        number, chosen, accepted = carry
        uniforms = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number), (2,)))(
            keys
        )
        block = _first_above(block_sums, uniforms[:, 0])
        inside = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=1)
        index = block * BLOCK + _first_above(inside, uniforms[:, 1])
        own = jnp.take_along_axis(probabilities, index[:, None], axis=1)
        above = jnp.sum(jnp.where(probabilities > own, probabilities, 0.0), axis=1)
        # Rounding in the running sums may point at an entry without probability: never take it.
        in_nucleus = (above < top_p) & (own[:, 0] > 0)
        return number + 1, jnp.where(accepted, chosen, index), accepted | in_nucleus

    # A row of NaN, from a model that overflows, would be drawn from for ever: it gets token 0.
    hopeless = jnp.isnan(block_sums[:, -1])
    start = (jnp.int32(0), jnp.zeros(num_rows, jnp.int32), hopeless)
    return jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), attempt, start)[1]


def _first_above(running_sums: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Per row the first index whose running sum exceeds that share of the total; int32 [R]."""
    targets = uniforms * running_sums[:, -1]
    return jnp.argmax(running_sums > targets[:, None], axis=1).astype(jnp.int32)
