"""How GGUF files say that rotary positions are scaled, put into the words of config.json.

As llama.cpp reads them: the scaling is linear where none is named, a factor of 0 is none, and files
of its first year have the factor under another key. Llama 3's is kept as the divisors of the
frequencies that come of it. What llama.cpp would heed and `rope_scaling` cannot say is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.fields import (
    need_number,
    need_numbers,
    need_text,
    read_integer,
    read_number,
)

# Tensors of divisors, of all texts, of short and of long ones.
EVERYWHERE = "rope_freqs.weight"
BY_LENGTH = ("rope_factors_short.weight", "rope_factors_long.weight")
TENSORS = (EVERYWHERE, *BY_LENGTH)
KINDS = ("none", "linear", "yarn", "longrope")
FIELDS = (
    "type", "factor", "original_context_length", "attn_factor", "yarn_beta_fast", "yarn_beta_slow",
    "finetuned",
)  # fmt: skip


def rope_words(
    path: Path, values: dict[str, Any], family: str, tensors: dict[str, list[Any]]
) -> dict[str, Any]:
    """The parameters of RoPE's scaling, for `read_scaling`; empty for none.

    Args:
      path: of the file, for messages.
      values: its metadata.
      family: its architecture.
      tensors: those of TENSORS that it holds, as lists.

    Raises:
      InputError: names the field or tensor that is wrong or not served.
    """
    prefix = f"{family}.rope.scaling."
    unknown = {key for key in values if key.startswith(prefix)} - {prefix + own for own in FIELDS}
    if unknown:
        raise InputError(f"{path}: field {min(unknown)!r} is not supported")
    kind = need_text(path, values, f"{prefix}type", "linear")
    if kind not in KINDS:
        raise InputError(
            f"{path}: field '{prefix}type' is {kind!r}, which is not supported; {', '.join(KINDS)} "
            "are"
        )
    older = f"{family}.rope.scale_linear"
    name = older if older in values and f"{prefix}factor" not in values else f"{prefix}factor"
    factor = read_number(path, values, name, zero_is_none=True) or 1.0
    temperature = need_number(path, values, f"{prefix}attn_factor", 1.0)
    words = {
        "original_max_position_embeddings": read_integer(
            path, values, f"{prefix}original_context_length", least=2
        ),
        "beta_fast": read_number(path, values, f"{prefix}yarn_beta_fast"),
        "beta_slow": read_number(path, values, f"{prefix}yarn_beta_slow"),
    }
    divisors = {tensor: list(need_numbers(path, tensors, tensor)) for tensor in tensors}
    _check_divisors(path, family, kind, factor, divisors)
    if EVERYWHERE in divisors:
        kind, divisors = "longrope", dict.fromkeys(BY_LENGTH, divisors[EVERYWHERE])
    if kind in ("none", "linear") and temperature != 1.0:
        raise InputError(f"{path}: field '{prefix}attn_factor' is not supported with {kind!r}")
    if kind == "none":
        return {}
    if kind == "yarn":
        temperature *= 1.0 + 0.1 * math.log(factor)
    if kind == "longrope":
        words["short_factor"], words["long_factor"] = map(divisors.get, BY_LENGTH)
    return words | {"rope_type": kind, "factor": factor, "attention_factor": temperature}


def _check_divisors(
    path: Path, family: str, kind: str, factor: float, divisors: Collection[str]
) -> None:
    """Raises InputError for tensors that the scaling lacks, or has no use for."""
    if EVERYWHERE in divisors:
        if family == "gemma3":
            raise InputError(f"{path}: tensor {EVERYWHERE} is not supported in {family} files")
        if len(divisors) > 1 or (kind != "none" and factor != 1.0):
            raise InputError(f"{path}: has {EVERYWHERE} and RoPE scaling {kind!r}; keep one")
    elif kind != "longrope" and divisors:
        raise InputError(f"{path}: has {min(divisors)}, which RoPE scaling {kind!r} does not use")
    elif kind == "longrope" and len(divisors) < len(BY_LENGTH):
        missing = min({*BY_LENGTH} - {*divisors})
        raise InputError(f"{path}: lacks tensor {missing}, which RoPE scaling 'longrope' uses")
    elif kind == "longrope" and factor != 1.0:
        raise InputError(f"{path}: a factor ({factor}) is not supported with RoPE scaling {kind!r}")
