"""One next-token distribution out of several models': multi-objective decoding.

MOD (Shi et al., arXiv 2406.18853). Where each model is the optimum of its reward under a penalty
I_f(policy | reference), the optimum of the weighted sum of the rewards has

    f'(policy / reference) = sum_i w_i f'(policy_i / reference) - c

with one number c per distribution that makes it sum to 1. By divergence:

    reverse_kl   policy = prod_i policy_i^w_i, normalised; the reference drops out
    alpha=A      policy^-A = sum_i w_i policy_i^-A - c reference^-A, for 0 < A < 1
    forward_kl   the same with A = 1 (and with A -> 0 it is reverse_kl)
    jsd          policy / (policy + reference) = e^c prod_i (policy_i / (policy_i + reference))^w_i

Shapes: M members, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, log_softmax, logsumexp, softplus

MAX_STEPS = 40  # enough to halve any interval to float32's rounding
TOLERANCE = 1e-4  # of Newton's last step; its square is what is left to go


class Mixing(NamedTuple):
    """How distributions are mixed.

    Attributes:
      divergence: "reverse_kl", "forward_kl", "jsd" or "alpha=0.5" and the like.
      legacy_score: the score that MOD's authors' code gives a token, normalised: without c and the
        reference, from the log-probabilities of the whole response with that token; for "jsd" that
        of "reverse_kl".
    """

    divergence: str = "reverse_kl"
    legacy_score: bool = False

    @property
    def reads_reference(self) -> bool:
        """Whether the reference takes part."""
        return self.divergence != "reverse_kl" and not self.legacy_score

    @property
    def reads_past(self) -> bool:
        """Whether it matters how likely the members find the response so far."""
        return self.legacy_score and self.alpha > 0

    @property
    def alpha(self) -> float:
        """The exponent; 0 for products."""
        if self.divergence == "forward_kl":
            return 1.0
        return float(self.divergence.removeprefix("alpha=")) if "=" in self.divergence else 0.0


PRODUCT = Mixing()


def mix(
    log_probs: jax.Array,
    weights: jax.Array,
    mixing: Mixing,
    reference: jax.Array | None = None,
    past: jax.Array | float = 0.0,
) -> jax.Array:
    """The mixture of next-token distributions, as normalised log-probabilities [..., V] in float32.

    Args:
      log_probs: float32 [..., M, V], normalised (of logits by `log_softmax`, or they would count
        for more or less according to their offset).
      weights: float32 [..., M], on the simplex.
      mixing: how.
      reference: float32 [..., V], the normalised log-probabilities of the model that the members
        were trained from; needed where `mixing.reads_reference`. With "reverse_kl" it has what
        weights that sum to less or more than 1 leave over.
      past: float32 [..., M], what each member gives the response so far; only read where
        `mixing.reads_past`.
    """
    if mixing.reads_reference:
        mixed = _exact_jsd if mixing.divergence == "jsd" else _exact_power
        return mixed(log_probs, weights, reference, mixing.alpha)
    if mixing.reads_past:
        log_probs = log_probs + jnp.expand_dims(past, -1)
    scores = score(log_probs, weights, mixing)
    if reference is not None:
        scores = scores + (1 - jnp.sum(weights, axis=-1, keepdims=True)) * reference
    return log_softmax(scores)


def score(log_probs: jax.Array, weights: jax.Array, mixing: Mixing) -> jax.Array:
    """What MOD searches by, [..., V]: the score of tokens or of whole responses.

    The authors' code leaves out the factor 1 / alpha, which changes no order.

    Args:
      log_probs: float32 [..., M, V], of tokens or of responses up to and including them.
      weights: float32 [..., M].
      mixing: how; legacy scores and "reverse_kl", for which c changes no order.
    """
    weights, alpha = weights[..., None], mixing.alpha
    if not alpha:
        return jnp.sum(weights * log_probs, axis=-2)
    return -logsumexp(jnp.log(weights) - alpha * log_probs, axis=-2) / alpha


def _exact_power(
    log_probs: jax.Array, weights: jax.Array, reference: jax.Array, alpha: float
) -> jax.Array:
    """policy^-alpha = sum_i w_i policy_i^-alpha - c reference^-alpha.

    At the least over the tokens of the ratio of the two terms c has its bound, for there the
    probability of that token is infinite. The root may come closer to it than float32 tells apart,
    so c is written as (1 - e^-depth) of the bound.
    """
    mean = score(log_probs, weights, Mixing(f"alpha={alpha}"))  # where c = 0
    ratio = alpha * (mean - reference)
    bound = jnp.max(ratio, axis=-1, keepdims=True)
    remainder = _remainder(ratio - bound)

    def at(depth: jax.Array) -> jax.Array:
        return mean - jnp.log(remainder(depth)) / alpha

    token = jnp.argmax(ratio, axis=-1, keepdims=True)
    deepest = -alpha * jnp.take_along_axis(mean, token, axis=-1)  # that token has probability 1
    return _normalised(at, jnp.zeros_like(deepest), deepest)


def _exact_jsd(
    log_probs: jax.Array, weights: jax.Array, reference: jax.Array, _: float
) -> jax.Array:
    """policy / (policy + reference) = e^c prod_i (policy_i / (policy_i + reference))^w_i.

    The right side is below 1, which bounds e^c; the root is found as in `_exact_power`.
    """
    shares = log_sigmoid(log_probs - reference[..., None, :])
    product = jnp.sum(weights[..., None] * shares, axis=-2)
    bound = jnp.max(product, axis=-1, keepdims=True)
    remainder = _remainder(product - bound)

    def at(depth: jax.Array) -> jax.Array:
        right_side = product - bound + jnp.log(-jnp.expm1(-depth))
        return reference + right_side - jnp.log(remainder(depth))

    token = jnp.argmax(product, axis=-1, keepdims=True)
    deepest = softplus(-jnp.take_along_axis(reference, token, axis=-1))  # it has probability 1
    start = jnp.minimum(-jnp.log(-jnp.expm1(bound)), deepest)  # where c = 0
    return _normalised(at, start, deepest)


def _remainder(log_ratios: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """1 - (1 - e^-depth) ratio as a function of the depth, for ratios of at most 1."""
    ratios, distances = jnp.exp(log_ratios), -jnp.expm1(log_ratios)
    return lambda depth: distances + ratios * jnp.exp(-depth)


def _normalised(at: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """at(depth) [..., V] for the depth [..., 1] at which its exponentials sum to 1.

    The sum grows with the depth, is at most 1 at `low` and at least 1 at `high`. Newton's method on
    its logarithm; a step that leads out of the interval left is replaced by halving it.
    """

    def log_sum(depth: jax.Array) -> jax.Array:
        return logsumexp(at(depth), axis=-1, keepdims=True)

    def goes_on(state: tuple[jax.Array, ...]) -> jax.Array:
        number, *_, step = state
        return (number < MAX_STEPS) & jnp.any(jnp.abs(step) > TOLERANCE)

    def improve(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        number, low, high, depth, _ = state
        error, slope = jax.jvp(log_sum, (depth,), (jnp.ones_like(depth),))
        low, high = jnp.where(error > 0, low, depth), jnp.where(error > 0, depth, high)
        step = -error / slope
        inside = (low <= depth + step) & (depth + step <= high)  # False for NaN
        improved = jnp.where(inside, depth + step, (low + high) / 2)
        return number + 1, low, high, improved, improved - depth

    middle = (low + high) / 2
    start = (jnp.int32(0), low, high, middle, jnp.full_like(low, jnp.inf))
    _, _, _, depth, _ = jax.lax.while_loop(goes_on, improve, start)
    return log_softmax(at(depth))  # what rounding has left
