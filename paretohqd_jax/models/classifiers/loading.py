"""Classifiers and sentence encoders from Hugging Face checkpoints, whatever their family."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import huggingface
from paretohqd_jax.models.classifiers import bart, bert, deberta, gpt2, llama
from paretohqd_jax.models.classifiers.checkpoint import read_params
from paretohqd_jax.models.sources import resolve_source


class Family(NamedTuple):
    """How one architecture is read and computed."""

    read_config: Callable[..., Any]  # path of config.json, its values -> configuration
    table: Callable[..., Any]  # configuration -> where the params lie
    compute: Callable[..., jax.Array]  # params, tokens, mask, config=
    ignored: str  # tensors that are not needed


LLAMA = Family(llama.read_config, llama.table, llama.compute_logits, llama.IGNORED)
LLAMA_SCORE = LLAMA._replace(read_config=llama.read_score_config)
FAMILIES = {
    "GPT2ForSequenceClassification": Family(
        gpt2.read_config, gpt2.table, gpt2.compute_logits, gpt2.IGNORED
    ),
    "LlamaForSequenceClassification": LLAMA,
    "MistralForSequenceClassification": LLAMA,
    "Qwen2ForSequenceClassification": LLAMA,
    "Qwen3ForSequenceClassification": LLAMA,
    "LlamaForScore": LLAMA_SCORE,
    "LlamaModelForScore": LLAMA_SCORE,
    "BertForSequenceClassification": Family(
        bert.read_config, bert.table, bert.compute_logits, bert.IGNORED
    ),
    "DistilBertForSequenceClassification": Family(
        bert.read_distilled_config, bert.distilled_table, bert.compute_logits, bert.IGNORED
    ),
    "BertModel": Family(
        bert.read_encoder_config, bert.encoder_table, bert.compute_embeddings, bert.IGNORED
    ),
    "BartForSequenceClassification": Family(
        bart.read_config, bart.table, bart.compute_logits, bart.IGNORED
    ),
    "DebertaV2ForSequenceClassification": Family(
        deberta.read_config, deberta.table, deberta.compute_logits, deberta.IGNORED
    ),
}


class Classifier(NamedTuple):
    """A model that maps texts to scores, or a sentence encoder.

    `apply(params, tokens, mask)` of tokens int32 [B, T] and a mask bool [B, T], True on real tokens
    and padded on either side, gives logits float32 [B, len(labels)], or a sentence encoder's
    vectors [B, D]. It is pure; BERT's takes `token_types` int32 [B, T] besides.
    """

    apply: Callable[..., jax.Array]
    params: Any
    labels: tuple[str, ...]  # names of the outputs, empty for a sentence encoder
    max_tokens: int  # longer texts cannot be read
    vocab_size: int


def load_classifier(source: str, dtype: str = "float32") -> Classifier:
    """The classifier in a directory, on the hub or in a package (see `weights`), in `dtype`.

    Raises InputError, naming the file, where the architecture is none of `FAMILIES`, or the weights
    do not fit the configuration.
    """
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype is {dtype!r}: choose float32 or bfloat16")
    directory = resolve_source(source)
    family, config = _read_config(directory)
    params = read_params(directory, family.table(config), family.ignored, dtype)
    apply = functools.partial(family.compute, config=config)
    return Classifier(apply, params, config.labels, config.max_tokens, config.vocab_size)


def read_labels(source: str) -> tuple[str, ...]:
    """The names of a classifier's outputs, without its weights; raises InputError as above."""
    return _read_config(resolve_source(source, weights=False))[1].labels


def _read_config(directory: Path) -> tuple[Family, Any]:
    path = directory / "config.json"
    values = huggingface.read_json(path)
    architectures = values.get("architectures") or ["none"]
    family = next((FAMILIES[name] for name in FAMILIES if architectures == [name]), None)
    if family is None:
        raise InputError(
            f"{path}: architectures {architectures} is not a list of one of the classifiers "
            f"supported here: {', '.join(FAMILIES)}"
        )
    try:
        return family, family.read_config(path, values)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: a field holds no valid value ({error})") from error
