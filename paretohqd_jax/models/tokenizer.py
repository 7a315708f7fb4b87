"""Tokenizers, always a transformers fast tokenizer, whatever the model came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import gguf, huggingface
from paretohqd_jax.models.gguf_tokenizer import special_id, tokenizer_from_gguf
from paretohqd_jax.models.weights import RANDOM_TOY, resolve_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Without one of these files the library makes up a tokenizer that knows no words.
SENTENCEPIECE = ("tokenizer.model", "spm.model")
VOCABULARIES = ("tokenizer.json", *SENTENCEPIECE, "vocab.json", "vocab.txt")


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
        return tokenizer_from_gguf(path)
    if not any((path / name).is_file() for name in VOCABULARIES):
        raise InputError(f"{path}: no usable tokenizer (none of {', '.join(VOCABULARIES)})")
    _check_sentencepiece(path)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises many kinds for the same broken directory
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: no usable tokenizer ({reason})") from error


def _check_sentencepiece(directory: Path) -> None:
    """Raises InputError for a damaged model where there is no tokenizer.json, which is preferred.

    The library would make up a tokenizer, or ask for another kind.
    """
    from sentencepiece import SentencePieceProcessor

    if (directory / "tokenizer.json").is_file():
        return
    for path in (directory / name for name in SENTENCEPIECE):
        if path.is_file():
            try:
                SentencePieceProcessor(model_file=str(path))
            except (RuntimeError, OSError) as error:
                raise InputError(
                    f"{path}: no SentencePiece model, or damaged or cut off "
                    f"({str(error).splitlines()[0]}); fetch the file again"
                ) from error


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
        return [special_id(path, metadata, kind) for kind in ("eos", "eot", "eom")]
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
