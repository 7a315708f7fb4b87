"""Tokenizers that GGUF files keep in their metadata: byte-level BPE, and SentencePiece's."""

from __future__ import annotations

import collections
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import gguf
from paretohqd_jax.models.fields import need_list, need_text, read_flag, read_integer, read_text
from paretohqd_jax.models.sentencepiece import sentencepiece_bpe

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# llama.cpp's numbers for kinds of tokens.
CONTROL, USER_DEFINED = 3, 4
NO_TOKEN = 2**32 - 1  # -1 as the unsigned number that ids are
# Llama 3's and GPT-4's pattern, which llama.cpp calls "llama-bpe"; Qwen's takes digits one by one.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace("{1,3}", "")
# Mistral's of 2024: words end where capitals begin.
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Words are tokens even where no merges lead to them, and texts begin with BOS unless the file says
# otherwise.
WHOLE_WORDS = ("llama-bpe", "tekken")
# Other names that llama.cpp has for what is split alike.
SAME_SPLITTING = {
    **dict.fromkeys(
        ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), "llama-bpe"
    ),
    **dict.fromkeys(("deepseek-r1-qwen", "kormo", "megrez"), "qwen2"),
    **dict.fromkeys(("phi-2", "gigachat", "a.x-4.0", "mellum"), "gpt-2"),
}


def tokenizer_from_gguf(path: Path) -> PreTrainedTokenizerBase:
    """A byte-level BPE, or SentencePiece's, built from a GGUF file's metadata.

    Raises InputError, naming the field, for a kind that is not served and for metadata that are
    damaged.
    """
    from transformers import PreTrainedTokenizerFast

    metadata = gguf.read_metadata(path)
    tokens = _tokens(path, metadata)
    flag, named = (functools.partial(f, path, metadata) for f in (read_flag, special_token))
    if metadata["tokenizer.ggml.model"] == "llama":
        tokenizer = _sentencepiece_bpe(path, metadata, tokens)
        begins = True
    else:
        tokenizer = _byte_level_bpe(path, metadata, tokens)
        splitter = metadata["tokenizer.ggml.pre"]
        begins = SAME_SPLITTING.get(splitter, splitter) in WHOLE_WORDS
    _add_tokens(tokenizer, path, metadata, tokens)
    context = f"{metadata.get('general.architecture')}.context_length"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        # What llama.cpp adds unless the file says otherwise.
        add_bos_token=flag("tokenizer.ggml.add_bos_token", begins),
        add_eos_token=flag("tokenizer.ggml.add_eos_token", False),
        bos_token=named("bos"),
        eos_token=named("eos"),
        unk_token=named("unknown"),
        pad_token=named("padding") or named("eos"),
        chat_template=_chat_template(path, metadata),
        model_max_length=read_integer(path, metadata, context),
        clean_up_tokenization_spaces=False,
    )


def special_id(path: Path, metadata: dict[str, Any], kind: str) -> int | None:
    """The id of the file's special token of a kind, such as "eos"; None where it has none."""
    field, num_tokens = f"tokenizer.ggml.{kind}_token_id", len(metadata["tokenizer.ggml.tokens"])
    token_id = metadata.get(field)
    if token_id in (None, NO_TOKEN):
        return None
    if type(token_id) is not int or not 0 <= token_id < num_tokens:
        raise InputError(
            f"{path}: {field} is {token_id!r}, but there are {num_tokens} tokens; set the right one"
            f" (gguf-set-metadata {path} {field} ID)"
        )
    return token_id


def special_token(path: Path, metadata: dict[str, Any], kind: str) -> str | None:
    token_id = special_id(path, metadata, kind)
    return None if token_id is None else metadata["tokenizer.ggml.tokens"][token_id]


def _tokens(path: Path, metadata: dict[str, Any]) -> list[str]:
    """The tokens of a tokenizer of a kind that is served, by id."""
    model = metadata.get("tokenizer.ggml.model")
    needed = {"gpt2": ("tokens", "merges"), "llama": ("tokens", "scores", "token_type")}
    if not isinstance(model, str) or model not in needed:
        raise InputError(
            f"{path}: tokenizer {model!r} is not supported from GGUF; only byte-level BPE ('gpt2') "
            "and SentencePiece's ('llama') are"
        )
    for field in needed[model]:
        if f"tokenizer.ggml.{field}" not in metadata:
            raise InputError(f"{path}: metadata lacks tokenizer.ggml.{field}")
    tokens = need_list(path, metadata, "tokenizer.ggml.tokens", str)
    [(token, count)] = collections.Counter(tokens).most_common(1)
    if count > 1:
        raise InputError(f"{path}: tokenizer.ggml.tokens has {token!r} {count} times, not once")
    return tokens


def _chat_template(path: Path, metadata: dict[str, Any]) -> str | dict[str, str] | None:
    """The only one, or several by their names."""
    default, listed = read_text(path, metadata, "tokenizer.chat_template"), "chat_templates"
    if f"tokenizer.{listed}" not in metadata:
        return default
    names = need_list(path, metadata, f"tokenizer.{listed}", str)
    named = {name: need_text(path, metadata, f"tokenizer.chat_template.{name}") for name in names}
    return named | ({"default": default} if default else {})


def _byte_level_bpe(path: Path, metadata: dict[str, Any], tokens: list[str]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        return pre_tokenizers.Sequence([split, whole])

    splitters = {
        "gpt-2": words,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]),
        "llama-bpe": by_pattern(LLAMA3_PATTERN),
        "qwen2": by_pattern(QWEN2_PATTERN),
        "tekken": by_pattern(TEKKEN_PATTERN),
    }
    name = read_text(path, metadata, "tokenizer.ggml.pre")
    if name is None:
        raise InputError(
            f"{path}: metadata lacks tokenizer.ggml.pre, which says how texts are split into words;"
            f" name it ({', '.join(splitters)}): gguf-new-metadata --pre-tokenizer NAME {path}"
            " NEW.gguf"
        )
    splitter = SAME_SPLITTING.get(name, name)
    if splitter not in splitters:
        raise InputError(
            f"{path}: pre-tokenizer {name!r} is not supported; known are "
            f"{', '.join([*splitters, *SAME_SPLITTING])}"
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = _merges(path, metadata, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=splitter in WHOLE_WORDS))
    tokenizer.pre_tokenizer = splitters[splitter]
    if splitter == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(
    path: Path, metadata: dict[str, Any], vocabulary: dict[str, int]
) -> list[tuple[str, str]]:
    """Pairs of tokens that make a token, the first to be put together first."""
    pairs = []
    for merge in need_list(path, metadata, "tokenizer.ggml.merges", str):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise InputError(
                f"{path}: tokenizer.ggml.merges has {merge!r:.80}, which is no two tokens, with a "
                "blank between, that make a third"
            )
        pairs.append((left, right))
    return pairs


def _sentencepiece_bpe(path: Path, metadata: dict[str, Any], tokens: list[str]) -> Tokenizer:
    ranks = need_list(path, metadata, "tokenizer.ggml.scores", float, len(tokens))
    if (read_text(path, metadata, "general.architecture") or "").startswith("gemma"):
        ranks = [-i for i in range(len(tokens))]  # its scores do not follow its merges
    prefix = read_flag(path, metadata, "tokenizer.ggml.add_space_prefix", True)
    return sentencepiece_bpe(tokens, ranks, special_token(path, metadata, "unknown"), prefix)


def _add_tokens(
    tokenizer: Tokenizer, path: Path, metadata: dict[str, Any], tokens: list[str]
) -> None:
    """Makes those of a file's tokens whole that are not to be cut, and control tokens special."""
    from tokenizers import AddedToken

    field = "tokenizer.ggml.token_type"
    kinds = need_list(path, metadata, field, int, len(tokens)) if field in metadata else []
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [token for token, its_kind in zip(tokens, kinds, strict=False) if its_kind == kind]
        tokenizer.add_tokens(
            [
                AddedToken(token, special=special, normalized=False)
                for token in added
                if tokenizer.token_to_id(token) is not None  # others are spelled anew
            ]
        )
