"""Tokenizers, always a transformers fast tokenizer, whatever the model came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import gguf, huggingface
from paretohqd_jax.models.sentencepiece import sentencepiece_bpe
from paretohqd_jax.models.weights import RANDOM_TOY, resolve_source

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# Without one of these files the library makes up a tokenizer that knows no words.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spm.model", "vocab.json", "vocab.txt")
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


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's source (see `weights`), with its chat template if it has one.

    Remote code is never run. Raises InputError where there is none or it cannot be read.
    """
    # Without this, importing transformers prints that PyTorch was not found.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if source == RANDOM_TOY:
        return _byte_tokenizer()
    path = resolve_source(source, weights=False)
    if not path.is_dir():
        return _tokenizer_from_gguf(path)
    if not any((path / name).is_file() for name in VOCABULARIES):
        raise InputError(f"{path}: no usable tokenizer (none of {', '.join(VOCABULARIES)})")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises many kinds for the same broken directory
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: no usable tokenizer ({reason})") from error


def eos_token_ids(tokenizer: PreTrainedTokenizerBase, source: str) -> tuple[int, ...]:
    """The ids that end a response: the tokenizer's, which is trained, and those configured.

    Raises InputError where the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"model {source!r}: its tokenizer has no end-of-sequence token to end responses with; "
            "set eos_token in tokenizer_config.json, or tokenizer.ggml.eos_token_id in a GGUF file"
        )
    listed: list[int | None] = []
    if source != RANDOM_TOY:
        listed = _listed_eos_ids(resolve_source(source, weights=False))
    return tuple(sorted({int(i) for i in [tokenizer.eos_token_id, *listed] if i is not None}))


def _listed_eos_ids(path: Path) -> list[int | None]:
    """Those of both configurations, each a number, a list or nothing, or of a GGUF file."""
    if not path.is_dir():
        metadata = gguf.read_metadata(path)
        return [_special_id(path, metadata, kind) for kind in ("eos", "eot", "eom")]
    found: list[int | None] = []
    for file in (path / "config.json", path / "generation_config.json"):
        listed = huggingface.read_json(file).get("eos_token_id") if file.is_file() else None
        ids = listed if isinstance(listed, list) else [listed]
        if not all(i is None or (type(i) is int and i >= 0) for i in ids):
            raise InputError(
                f"{file}: eos_token_id is {listed!r}; give a token id or a list of them"
            )
        found += ids
    return found


def _byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token per byte, then <eos> (256) and <pad> (257); chats are lines of role and text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        chat_template=(
            "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        ),
    )


def _tokenizer_from_gguf(path: Path) -> PreTrainedTokenizerBase:
    """A byte-level BPE, or SentencePiece's, built from a GGUF file's metadata."""
    from transformers import PreTrainedTokenizerFast

    metadata = gguf.read_metadata(path)
    model = metadata.get("tokenizer.ggml.model")
    needed = {"gpt2": ("tokens", "merges"), "llama": ("tokens", "scores", "token_type")}
    if model not in needed:
        raise InputError(
            f"{path}: tokenizer {model!r} is not supported from GGUF; only byte-level BPE ('gpt2') "
            "and SentencePiece's ('llama') are"
        )
    for field in needed[model]:
        if f"tokenizer.ggml.{field}" not in metadata:
            raise InputError(f"{path}: metadata lacks tokenizer.ggml.{field}")

    def named(kind: str) -> str | None:
        token_id = _special_id(path, metadata, kind)
        return None if token_id is None else metadata["tokenizer.ggml.tokens"][token_id]

    # What llama.cpp adds unless the file says otherwise.
    splitter = metadata.get("tokenizer.ggml.pre")
    begins = model == "llama" or SAME_SPLITTING.get(splitter, splitter) in WHOLE_WORDS
    adds = {"bos": begins, "eos": False}
    if model == "llama":
        tokenizer = _sentencepiece_bpe(metadata, named("unknown"))
    else:
        tokenizer = _byte_level_bpe(path, metadata)
    _add_tokens(tokenizer, metadata)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{
            f"add_{kind}_token": bool(metadata.get(f"tokenizer.ggml.add_{kind}_token", default))
            for kind, default in adds.items()
        },
        bos_token=named("bos"),
        eos_token=named("eos"),
        unk_token=named("unknown"),
        pad_token=named("padding") or named("eos"),
        chat_template=_chat_template(metadata),
        model_max_length=metadata.get(f"{metadata.get('general.architecture')}.context_length"),
        clean_up_tokenization_spaces=False,
    )


def _special_id(path: Path, metadata: dict[str, Any], kind: str) -> int | None:
    field, num_tokens = f"tokenizer.ggml.{kind}_token_id", len(metadata["tokenizer.ggml.tokens"])
    token_id = metadata.get(field)
    if token_id in (None, NO_TOKEN):
        return None
    if not 0 <= token_id < num_tokens:
        raise InputError(
            f"{path}: {field} is {token_id}, but there are {num_tokens} tokens; set the right one "
            f"(gguf-set-metadata {path} {field} ID)"
        )
    return token_id


def _chat_template(metadata: dict[str, Any]) -> str | dict[str, str] | None:
    """The only one, or several by their names."""
    default = metadata.get("tokenizer.chat_template")
    names = metadata.get("tokenizer.chat_templates", [])
    named = {name: metadata[f"tokenizer.chat_template.{name}"] for name in names}
    return named | ({"default": default} if default else {}) if named else default


def _byte_level_bpe(path: Path, metadata: dict[str, Any]) -> Tokenizer:
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
    name = metadata.get("tokenizer.ggml.pre")
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
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=splitter in WHOLE_WORDS))
    tokenizer.pre_tokenizer = splitters[splitter]
    if splitter == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece_bpe(metadata: dict[str, Any], unknown: str | None) -> Tokenizer:
    pieces, ranks = (metadata[f"tokenizer.ggml.{field}"] for field in ("tokens", "scores"))
    if metadata.get("general.architecture", "").startswith("gemma"):
        ranks = [-i for i in range(len(pieces))]  # its scores do not follow its merges
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    return sentencepiece_bpe(pieces, ranks, unknown, prefix)


def _add_tokens(tokenizer: Tokenizer, metadata: dict[str, Any]) -> None:
    """Makes those of a file's tokens whole that are not to be cut, and control tokens special."""
    from tokenizers import AddedToken

    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type", [])
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [token for token, its_kind in zip(tokens, kinds, strict=False) if its_kind == kind]
        tokenizer.add_tokens(
            [
                AddedToken(token, special=special, normalized=False)
                for token in added
                if tokenizer.token_to_id(token) is not None  # others are spelled anew
            ]
        )
