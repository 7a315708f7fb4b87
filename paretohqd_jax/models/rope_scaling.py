"""How models stretch rotary positions to longer texts: the kinds of transformers' `rope_type`.

Each kind is a record of its parameters, under the names they have in config.json.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.fields import (
    need_integer,
    need_number,
    need_numbers,
    read_flag,
    read_number,
    read_text,
)


@dataclasses.dataclass(frozen=True)
class Linear:
    """All positions closer together (kaiokendev; Chen et al., arXiv 2306.15595)."""

    factor: float


@dataclasses.dataclass(frozen=True)
class Dynamic:
    """A base that grows with each text beyond `max_position_embeddings` ("dynamic NTK")."""

    factor: float
    max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class Llama3:
    """Llama 3's stretching of the slow rotary frequencies."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class Yarn:
    """The slow frequencies stretched, by how often each turns (Peng et al., arXiv 2309.00071)."""

    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclasses.dataclass(frozen=True)
class LongRope:
    """Each frequency with a divisor of its own, and another in texts beyond the original length
    (Ding et al., arXiv 2402.13753)."""

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    attention_factor: float


RopeScaling = Linear | Dynamic | Llama3 | Yarn | LongRope
KINDS: dict[str, type] = {
    "linear": Linear,
    "dynamic": Dynamic,
    "llama3": Llama3,
    "yarn": Yarn,
    "longrope": LongRope,
}


def read_scaling(path: Path, rope: dict[str, Any], context: int) -> RopeScaling | None:
    """The scaling that RoPE parameters in the words of config.json ask for, None for none.

    `context` is what the model reads, the original context where the parameters name none. Raises
    InputError, naming the file, for a scaling that is not served or not wholly described.
    """
    kind, older_word = (read_text(path, rope, name) for name in ("rope_type", "type"))
    factor = read_number(path, rope, "factor")
    if older_word not in (None, kind):
        raise InputError(f"{path}: RoPE has rope_type {kind!r} and type {older_word!r}; keep one")
    if need_number(path, rope, "partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{path}: a partial_rotary_factor is not supported")
    if kind in (None, "default") and factor not in (None, 1.0):
        raise InputError(
            f"{path}: RoPE has a scaling factor of {factor!r} but rope_type {kind!r}; give the "
            "rope_type that the factor is for, or take the factor out"
        )
    if kind in (None, "default") or (kind == "linear" and factor == 1.0):
        return None
    if kind not in KINDS:
        raise InputError(
            f"{path}: RoPE scaling {kind!r} (factor {factor!r}) is not supported; "
            f"{', '.join(map(repr, KINDS))} are"
        )
    need = functools.partial(need_number, path, rope)
    if kind == "linear":
        return Linear(need("factor"))
    if kind == "dynamic":
        return Dynamic(need("factor"), context)
    original = need_integer(path, rope, "original_max_position_embeddings", context, least=2)
    if kind == "llama3":
        return _llama3(path, rope, original)
    factor = need("factor", context / original)
    if kind == "yarn":
        truncate = read_flag(path, rope, "truncate", default=True)
        attention_factor = need("attention_factor", _yarn_attention_factor(path, rope, factor))
        fast, slow = need("beta_fast", 32.0), need("beta_slow", 1.0)
        return Yarn(factor, original, attention_factor, fast, slow, truncate)
    divisors = (need_numbers(path, rope, name) for name in ("short_factor", "long_factor"))
    stretch = max(0.0, math.log(factor))
    default = math.sqrt(1 + stretch / math.log(original)) if stretch else 1.0
    return LongRope(*divisors, original, need("attention_factor", default))


def _llama3(path: Path, rope: dict[str, Any], original: int) -> Llama3:
    need = functools.partial(need_number, path, rope)
    scaling = Llama3(need("factor"), need("low_freq_factor"), need("high_freq_factor"), original)
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise InputError(
            f"{path}: RoPE has high_freq_factor {scaling.high_freq_factor}, which must be above "
            f"low_freq_factor {scaling.low_freq_factor}"
        )
    return scaling


def _yarn_attention_factor(path: Path, rope: dict[str, Any], factor: float) -> float:
    """The paper's by default; DeepSeek's where `mscale` and `mscale_all_dim` are given."""

    def of_scale(scale: float) -> float:
        return 0.1 * scale * max(0.0, math.log(factor)) + 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        part, whole = (need_number(path, rope, name) for name in ("mscale", "mscale_all_dim"))
        return of_scale(part) / of_scale(whole)
    return of_scale(1.0)


def check_scaling(scaling: RopeScaling | None, head_dim: int, theta: float) -> None:
    """Raises InputError for a scaling that heads of this size, or this base, do not have."""
    if isinstance(scaling, Dynamic) and head_dim == 2:
        raise InputError("RoPE scaling 'dynamic' needs heads of more than 2 numbers")
    if isinstance(scaling, Yarn) and theta <= 1:
        raise InputError(f"RoPE scaling 'yarn' needs a rope_theta above 1, not {theta}")
    if isinstance(scaling, LongRope):
        sizes = len(scaling.short_factor), len(scaling.long_factor)
        if sizes != (head_dim // 2, head_dim // 2):
            raise InputError(
                f"RoPE's short_factor and long_factor have {sizes[0]} and {sizes[1]} numbers; "
                f"heads of {head_dim} need {head_dim // 2} of each"
            )


def scaling_values(scaling: RopeScaling | None) -> dict[str, Any]:
    """The parameters of a scaling in the words of config.json, `read_scaling`'s inverse."""
    if scaling is None:
        return {}
    kind = next(name for name, record in KINDS.items() if isinstance(scaling, record))
    values = dataclasses.asdict(scaling)
    values.pop("max_position_embeddings", None)  # the model's own
    return {"rope_type": kind, **values}
