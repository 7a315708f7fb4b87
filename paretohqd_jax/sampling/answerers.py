"""Who answers: one adapter of a stack, or several whose next-token distributions are mixed."""

from __future__ import annotations

from typing import NamedTuple

from paretohqd_jax.sampling.logit_mixtures import PRODUCT, Mixing


class Kind(NamedTuple):
    """Of answerers, by the number of adapters and how these are mixed."""

    num_members: int
    mixing: Mixing


class Answerer(NamedTuple):
    """Adapters by their number in a stack, the members, and how they answer together.

    Where `mixing` reads the reference, that is the last of them, with weight 0.
    """

    adapters: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)
    mixing: Mixing = PRODUCT

    @property
    def kind(self) -> Kind:
        """What answerers must have in common to be decoded by one program."""
        return Kind(len(self.adapters), self.mixing)


def alone(num_adapters: int) -> list[Answerer]:
    """Each adapter of a stack by itself."""
    return [Answerer((adapter,)) for adapter in range(num_adapters)]


def num_slots(kind: Kind, num_beams: int, batch_size: int, multiple: int) -> int:
    """Responses of a kind of answerers decoded together, rounded up to a `multiple`.

    `batch_size` counts rows, of which a response takes one for each member in each of its beams.
    """
    return -(-batch_size // (kind.num_members * num_beams * multiple)) * multiple
