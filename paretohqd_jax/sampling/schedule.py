"""Which prompt goes to which slot: a queue of prompts, a fixed number of slots, a few answerers."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import side_by_side
from paretohqd_jax.models.sharding import num_shards
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.decoder import advance, fill
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.slots import Requests, Slots, empty_slots, longer_slots

MAX_STEPS = 64  # of one call, so that what has ended is seen, and kept, every few seconds


class Pending(NamedTuple):
    """A response that is wanted: of which answerer, to which prompt."""

    padded_length: int  # of the prompt
    answerer: int
    prompt: int
    tokens: list[int]


class Response(NamedTuple):
    """A response that has ended; the end-of-sequence token is one of its tokens."""

    answerer: int
    prompt: int
    tokens: list[int]


def respond(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    answerers: Sequence[Answerer],
    pending: Sequence[Pending],
    key_data: np.ndarray,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    num_slots: int,
) -> Iterator[tuple[list[Response], int]]:
    """Decodes what is pending, `num_slots` responses at a time; a free slot takes the next prompt.

    A response is the same whatever runs beside it, and whenever it begins.

    Args:
      model, params, eos_token_ids, sampling: as for `decoder.fill`.
      adapters: a stack of numpy arrays, `[num_adapters, ...]` on every leaf.
      answerers: made of these adapters.
      pending: of answerers of one kind, in ascending order of padded_length, and best with each
        answerer's together.
      key_data: of a jax.random key; the response of answerer a to prompt i is drawn with
        fold_in(fold_in(key, a), i).
      num_slots: responses decoded together.

    Yields:
      Again and again the responses that have ended since the last time, and how many tokens the
      slots had time for meanwhile, beside the first tokens of responses.
    """
    if not pending:
        return
    queue = collections.deque(pending)
    # Slots are refilled an eighth at a time, so that on average a sixteenth is idle.
    shards = num_shards("batch")
    fill_size = -(-num_slots // (8 * shards)) * shards
    seats = Seats(adapters, answerers, pending, num_slots, model.config.dtype)
    num_members, mixing = answerers[pending[0].answerer].kind
    occupants: list[Pending | None] = [None] * num_slots
    slots = None
    while queue or any(occupants):
        while rows := _seat_next(queue, occupants, seats, fill_size):
            length = occupants[rows[0]].padded_length + sampling.max_new_tokens
            if slots is None:
                slots = empty_slots(
                    model.config, num_slots, length, sampling.max_new_tokens, num_members
                )
            elif length > slots.length:
                slots = longer_slots(slots, length)
            requests = _requests(rows, occupants, seats, fill_size, key_data)
            slots = fill(
                model, params, seats.stack, slots, requests, eos_token_ids, sampling, mixing
            )
        num_occupied = sum(occupant is not None for occupant in occupants)
        max_live = min(num_slots - min(fill_size, len(queue)), num_occupied - 1) if queue else 0
        slots, num_steps = advance(
            model, params, seats.stack, slots, eos_token_ids, sampling, mixing,
            max_live=max_live, max_steps=MAX_STEPS,
        )  # fmt: skip
        yield _take_ended(slots, occupants), int(num_steps) * num_slots


def num_seats(num_adapters: int, num_prompts: int, num_slots: int, num_members: int = 1) -> int:
    """Seats for the adapters of as many slots, and of some whose last responses linger.

    Args:
      num_adapters: that there are.
      num_prompts: of each answerer.
      num_slots: responses decoded together.
      num_members: adapters of each answerer.
    """
    return min(num_adapters, num_members * (3 + num_slots // num_prompts))


class Seats:
    """The adapters that lie side by side on the device; others take their places when needed."""

    def __init__(
        self,
        adapters: dict[str, Any],
        answerers: Sequence[Answerer],
        pending: Sequence[Pending],
        num_slots: int,
        dtype: str,
    ) -> None:
        self.answerers = answerers
        asked = list(dict.fromkeys(request.answerer for request in pending))
        order = list(dict.fromkeys(each for number in asked for each in self.members(number)))
        num_prompts = -(-len(pending) // len(asked))
        num_members = len(self.members(asked[0]))
        self.residents = order[: num_seats(len(order), num_prompts, num_slots, num_members)]
        self._adapters = adapters
        first = jax.tree.map(lambda leaf: leaf[np.array(self.residents)], adapters)
        self.stack = side_by_side(first, dtype)

    def members(self, answerer: int) -> tuple[int, ...]:
        """The adapters of an answerer."""
        return self.answerers[answerer].adapters

    def admit(self, answerer: int, occupants: Sequence[Pending | None]) -> bool:
        """Gives its adapters seats where they have none; False if there are not enough.

        The seats of the occupants' adapters are taken.
        """
        members = dict.fromkeys(self.members(answerer))
        new = [adapter for adapter in members if adapter not in self.residents]
        if not new:
            return True
        in_use = set(members).union(*(self.members(o.answerer) for o in occupants if o is not None))
        free = [seat for seat, resident in enumerate(self.residents) if resident not in in_use]
        if len(free) < len(new):
            return False
        for seat, adapter in zip(free, new, strict=False):
            one = jax.tree.map(lambda leaf, i=adapter: leaf[i : i + 1], self._adapters)
            self.stack = _replace(self.stack, one, np.int32(seat))
            self.residents[seat] = adapter
        return True


@functools.partial(jax.jit, donate_argnums=0)
def _replace(stack: dict[str, Any], one: dict[str, Any], seat: jax.Array) -> dict[str, Any]:
    """The stack with another adapter, a stack of one, in a seat."""

    def put(path: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        axis = 1 if path[-1].key == "a" else 0
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), seat, axis)

    [first, *_] = jax.tree.leaves(stack)
    return jax.tree_util.tree_map_with_path(put, stack, side_by_side(one, first.dtype))


def _seat_next(
    queue: collections.deque[Pending],
    occupants: list[Pending | None],
    seats: Seats,
    fill_size: int,
) -> list[int]:
    """Moves the next prompts, of one padded length, into free slots; the slots, in order.

    None as long as fewer slots are free than are worth the while.
    """
    free = [row for row, occupant in enumerate(occupants) if occupant is None]
    if len(free) < min(fill_size, len(queue)):
        return []
    rows: list[int] = []
    for row in free[:fill_size]:
        same_length = queue and (not rows or queue[0][0] == occupants[rows[0]].padded_length)
        if not same_length or not seats.admit(queue[0].answerer, occupants):
            break
        occupants[row] = queue.popleft()
        rows.append(row)
    return rows


def _requests(
    rows: list[int],
    occupants: list[Pending | None],
    seats: Seats,
    fill_size: int,
    key_data: np.ndarray,
) -> Requests:
    """What `fill` needs to know of the new occupants of `rows`, made up to `fill_size`."""
    chosen = [occupants[row] for row in rows]
    chosen += chosen[-1:] * (fill_size - len(rows))
    tokens = np.zeros((fill_size, chosen[0].padded_length), np.int32)
    for number, request in enumerate(chosen):
        tokens[number, : len(request.tokens)] = request.tokens
    numbers = np.array([request.answerer for request in chosen], np.int32)
    prompts = np.array([request.prompt for request in chosen], np.int32)
    answerers = [seats.answerers[number] for number in numbers]
    return Requests(
        rows=np.array(rows + [len(occupants)] * (fill_size - len(rows)), np.int32),
        tokens=tokens,
        lengths=np.array([len(request.tokens) for request in chosen], np.int32),
        adapter_ids=np.array(
            [[seats.residents.index(a) for a in each.adapters] for each in answerers], np.int32
        ),
        weights=np.array([each.weights for each in answerers], np.float32),
        keys=np.asarray(_row_keys(key_data, numbers, prompts)),
    )


@jax.jit
def _row_keys(key_data: jax.Array, answerers: jax.Array, prompts: jax.Array) -> jax.Array:
    fold_in = jax.vmap(jax.random.fold_in, (0, 0))
    key = jax.random.wrap_key_data(key_data)
    answerer_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, answerers)
    return jax.random.key_data(fold_in(answerer_keys, prompts))


def _take_ended(slots: Slots, occupants: list[Pending | None]) -> list[Response]:
    """The responses that have ended; their slots become free."""
    tokens, num_tokens, live = jax.device_get((slots.tokens, slots.num_tokens, slots.live))
    ended = []
    for row, occupant in enumerate(occupants):
        if occupant is not None and not live[row]:
            response = tokens[row, : num_tokens[row]].tolist()
            ended.append(Response(occupant.answerer, occupant.prompt, response))
            occupants[row] = None
    return ended
