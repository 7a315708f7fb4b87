"""SentencePiece's BPE as GGUF files keep it: pieces with scores, and no merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLANK = "\u2581"  # stands for a blank in pieces


def sentencepiece_bpe(
    pieces: Sequence[str], ranks: Sequence[float], unknown: str | None, prefix: bool
) -> Tokenizer:
    """The tokenizer that transformers has for Llama 2, with `legacy` false, or for Gemma.

    What has no piece is spelled in bytes.

    Args:
      pieces: by id.
      ranks: of the pieces; of two that could be put together the higher one is.
      unknown: the piece for what cannot be spelled.
      prefix: whether a text that does not begin with a blank is read as if it did.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # llama.cpp keeps pieces of several blanks as they are typed.
    spelled = [BLANK * len(piece) if _is_blank(piece) else piece for piece in pieces]
    vocabulary = {piece: i for i, piece in enumerate(spelled)}
    model = models.BPE(
        vocabulary, _merges(vocabulary, ranks), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    scheme = "first" if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _is_blank(piece: str) -> bool:
    return len(piece) > 1 and not piece.strip(" ")


def _merges(vocabulary: dict[str, int], ranks: Sequence[float]) -> list[tuple[str, str]]:
    """All pairs of pieces that make a piece, the highest first, as transformers orders them."""
    pairs = []
    for piece, token_id in vocabulary.items():
        for place in range(1, len(piece)):
            left, right = piece[:place], piece[place:]
            if left in vocabulary and right in vocabulary:
                order = -ranks[token_id], -len(left), -len(right), token_id
                pairs.append((order, (left, right)))
    return [pair for _, pair in sorted(pairs)]
