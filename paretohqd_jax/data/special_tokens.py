"""Token ids of texts in which a person's words never become control tokens.

What a prompt's format writes, `<|im_end|>` say, is a control token; the same characters in a
person's text are text. `literal` marks them there and `encode` reads the marks, which are
noncharacters of Unicode, kept for a program's own use. A text without marks, nearly every one, is
encoded as the tokenizer alone would.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

LITERAL = "\ufdd0"  # before a character that begins no control token
START = "\ufdd1"  # what follows is encoded as a text of its own, not as one that goes on
CUTS = ("left", "right", "middle")  # where texts that are too long lose tokens
SPELLING = "\ufdd2{}\ufdd3"  # of a control token for `_twin`


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The control tokens of a tokenizer, but for characters that have one by themselves."""
    added = tokenizer.added_tokens_decoder.values()
    contents = [token.content for token in added if token.special]
    return frozenset(text for text in [*contents, *tokenizer.all_special_tokens] if len(text) > 1)


def control_tokens(tokenizer: PreTrainedTokenizerBase, written: str) -> frozenset[str]:
    """The special tokens, and other added ones, no words or blanks, that a format writes."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    marks = {token for token in added if token.strip() and not token.strip().isalnum()}
    return special_tokens(tokenizer) | {token for token in marks if token in written}


def literal(tokens: Collection[str]) -> Callable[[str], str]:
    """A function that marks a text so that `encode` finds none of these control tokens in it."""
    endings: dict[str, list[str]] = {}
    for token in sorted(tokens):
        endings.setdefault(re.escape(token[0]), []).append(re.escape(token[1:]))
    branches = [f"{first}(?={'|'.join(rest)})" for first, rest in endings.items()]
    pattern = re.compile("|".join([*branches, f"[{LITERAL}{START}]"]))
    return functools.partial(pattern.sub, rf"{LITERAL}\g<0>")


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, marks heeded; no tokens are added to those written out."""
    if not texts:
        return []
    parts = [_parts(text) for text in texts]
    ids = iter(_encode_parts(tokenizer, [part for row in parts for part in row]))
    return [[token for _ in row for token in next(ids)] for row in parts]


def encode_complete(
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[str]],
    max_tokens: int | None = None,
    cut: str = "right",
) -> list[list[int]]:
    """The token ids of each text, or pair of texts, with what the tokenizer adds; marks heeded.

    Args:
      tokenizer: adds tokens to a text or to a pair.
      columns: one of texts, or two for pairs.
      max_tokens: that remain, added ones included; None for all.
      cut: where tokens are lost, one of CUTS; of a pair always the longer text's.
    """
    limit = {}
    if max_tokens is not None and cut != "middle":
        tokenizer.truncation_side = cut
        limit = {"truncation": True, "max_length": max_tokens}
    encoded = tokenizer(*columns, verbose=False, **limit)  # it would warn of what is long
    complete = list(encoded.encodings)
    rows = list(zip(*columns, strict=True))
    marked = [number for number, row in enumerate(rows) if any(LITERAL in text for text in row)]
    encodings = iter(
        _encode_marked(tokenizer, [text for number in marked for text in rows[number]])
    )
    for number in marked:  # the backend keeps the limit of the call before
        pair = (next(encodings) for _ in columns)
        complete[number] = tokenizer.backend_tokenizer.post_process(*pair)
    if max_tokens is not None and cut == "middle":
        return [_without_middle(encoding, max_tokens) for encoding in complete]
    return [encoding.ids for encoding in complete]


def _without_middle(encoding: Encoding, max_tokens: int) -> list[int]:
    """Its ids but those in the middle, which is the longer text's; what was added stays."""
    places = [
        [place for place, its_text in enumerate(encoding.sequence_ids) if its_text == text]
        for text in (0, 1)
    ]
    lengths = [len(of_text) for of_text in places]
    lost: set[int] = set()
    for _ in range(len(encoding.ids) - max_tokens):
        lengths[lengths[1] >= lengths[0]] -= 1
    for of_text, kept in zip(places, lengths, strict=True):
        first = kept - kept // 2
        lost.update(of_text[first : len(of_text) - kept // 2])
    return [token for place, token in enumerate(encoding.ids) if place not in lost]


def _parts(text: str) -> list[str]:
    """What is before START and after it; one in a person's text comes after LITERAL."""
    before, found, after = text.partition(START)
    return [before, after] if found and LITERAL not in before else [text]


def _encode_parts(tokenizer: PreTrainedTokenizerBase, parts: list[str]) -> list[list[int]]:
    """One batch for the parts without LITERAL, and one for the others."""
    marked = [index for index, part in enumerate(parts) if LITERAL in part]
    plain = [part if LITERAL not in part else "" for part in parts] if marked else parts
    ids = tokenizer(plain, add_special_tokens=False).input_ids
    if marked:
        texts = [parts[index] for index in marked]
        for index, encoding in zip(marked, _encode_marked(tokenizer, texts), strict=True):
            ids[index] = encoding.ids
    return ids


def _encode_marked(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Encoding]:
    """By a tokenizer that knows the control tokens by other spellings alone; it adds no tokens."""
    if not texts:
        return []
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    marked = {token for token in added if any(LITERAL + token in text for text in texts)}
    tokens = sorted(special_tokens(tokenizer) | marked, key=len, reverse=True)
    spelled = {token: SPELLING.format(number) for number, token in enumerate(tokens)}
    pattern = re.compile("|".join([f"{LITERAL}(.)", *map(re.escape, tokens)]), re.DOTALL)
    respelled = [pattern.sub(lambda found: found[1] or spelled[found[0]], text) for text in texts]
    twin = _twin(tokenizer.backend_tokenizer.to_str(), tuple(spelled.items()))
    return twin.encode_batch(respelled, add_special_tokens=False)


@functools.lru_cache(maxsize=2)
def _twin(state: str, spelled: tuple[tuple[str, str], ...]) -> Tokenizer:
    """The tokenizer of a state in JSON, its ids unchanged, with control tokens spelled anew.

    The vocabulary has the new spellings too, so that no merge and no search for the likeliest
    pieces can end in a control token.
    """
    from tokenizers import Tokenizer

    names = dict(spelled)
    values = json.loads(state)
    values |= {"post_processor": None, "truncation": None, "padding": None}
    for token in values["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model: dict[str, Any] = values["model"]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
    else:  # Unigram
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if "merges" in model:
        merges = (m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"])
        model["merges"] = [
            [left, right]
            for left, right in merges
            if not names.keys() & {left, right, left + right}
        ]
    return Tokenizer.from_str(json.dumps(values))
