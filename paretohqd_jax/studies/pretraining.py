"""A tiny language model with a vocabulary of its own, all weights trained from nothing.

For tasks whose words no pretrained model knows. It is left in Hugging Face's layout, so that runs
read it like any other model.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from paretohqd_jax.data.batches import Examples, batch_rows, tokenize
from paretohqd_jax.files import atomic_directory, write_json, write_tensors
from paretohqd_jax.models.llama import Llama, compute_logits, init_params, output_embedding
from paretohqd_jax.models.llama_config import LlamaConfig
from paretohqd_jax.models.merging import config_values
from paretohqd_jax.models.weights import tensors_of
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.training.losses import sft_loss

EOS, PAD, UNKNOWN = SPECIAL = ("<eos>", "<pad>", "<unk>")
CONTEXT = 128
HIDDEN_SIZE = 64
BATCH_SIZE = 64
LEARNING_RATE = 3e-3  # at its highest; it falls to 0 by a cosine
UNLIKELY = 3.0  # times the logit of the unknown word, which is negative

logger = logging.getLogger(__name__)


def pretrain(
    directory: Path,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    hidden_size: int = HIDDEN_SIZE,
    num_layers: int = 2,
    num_steps: int = 600,
    seed: int = 0,
    read_only: Mapping[str, np.ndarray] | None = None,
) -> float:
    """Trains a model to answer each prompt with its response, and returns the last loss.

    Args:
      directory: that the model is left in; must not exist.
      prompts: `[num_rows]`, formatted.
      responses: `[num_rows]`; the words of both, parted by blanks, are the vocabulary.
      hidden_size: of the model; the feed-forward layers have twice as much.
      num_layers: of the model.
      num_steps: of AdamW on `BATCH_SIZE` rows each.
      seed: of the weights and of the order of the rows.
      read_only: further words, for prompts to come, with their embeddings `[hidden_size]` in units
        of the others' standard deviation. The other weights are the same without them.
    """
    words = sorted({word for text in [*prompts, *responses] for word in text.split()})
    read_only = read_only or {}
    tokenizer = word_tokenizer(words, tuple(read_only))
    config = LlamaConfig(
        vocab_size=len(words) + len(SPECIAL), hidden_size=hidden_size,
        intermediate_size=2 * hidden_size, num_layers=num_layers, num_heads=4, num_kv_heads=4,
        head_dim=hidden_size // 4, max_position_embeddings=CONTEXT,
    )  # fmt: skip
    examples = tokenize(tokenizer, prompts, responses, CONTEXT)
    params, loss = _train(config, examples, num_steps, seed)
    if read_only:
        params = _with_read_only(params, np.stack([*read_only.values()]), tokenizer.unk_token_id)
        config = dataclasses.replace(config, vocab_size=len(params["embed_tokens"]))
    tokens = {
        "bos_token_id": None, "eos_token_id": [tokenizer.eos_token_id],
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    with atomic_directory(directory) as temporary:
        tokenizer.save_pretrained(temporary)
        write_json(temporary / "config.json", config_values(config) | tokens)
        write_json(temporary / "generation_config.json", tokens)
        tensors = {
            name: np.ascontiguousarray(tensor)
            for name, tensor in tensors_of(config, params).items()
        }
        write_tensors(temporary / "model.safetensors", tensors, {"format": "pt"})
    logger.info("%s: a model of %d words, loss %.3f", directory, len(words), loss)
    return loss


def word_tokenizer(words: Sequence[str], further: Sequence[str] = ()) -> Any:
    """A transformers tokenizer of these words, which blanks part, and the special tokens.

    Tokens are in the order of the words, the special tokens, the further words.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate([*words, *SPECIAL, *further])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _with_read_only(params: dict[str, Any], embeddings: np.ndarray, unknown: int) -> dict[str, Any]:
    """The weights with further words, which are as good as never written.

    Training has seen to it that the unknown word is not.
    """
    scale = np.std(params["embed_tokens"])
    never = UNLIKELY * np.tile(params["lm_head"][unknown], (len(embeddings), 1))
    return params | {
        "embed_tokens": np.concatenate([params["embed_tokens"], scale * embeddings]),
        "lm_head": np.concatenate([params["lm_head"], never]),
    }


def _train(
    config: LlamaConfig, examples: Examples, num_steps: int, seed: int
) -> tuple[dict[str, Any], float]:
    """The trained weights, and the mean loss of the last tenth of the steps."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, num_steps)),
    )

    def loss_of(params: dict[str, Any], batch: Examples) -> jax.Array:
        hidden, _ = Llama(config).apply({"params": params}, batch.tokens, batch.token_mask)
        logits = compute_logits(hidden[:, :-1], output_embedding(params, config))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.tokens[:, 1:])
        return sft_loss(-losses, batch.response_mask[:, 1:])

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: dict[str, Any], state: Any, batch: Examples) -> tuple:
        loss, gradients = jax.value_and_grad(loss_of)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = init_params(jax.random.key(seed), config)
    state = optimizer.init(params)
    losses = []
    with progress_bar(num_steps, "training the base model", "step") as progress:
        for number in range(num_steps):
            rows = batch_rows(seed, 0, number, len(examples.tokens), BATCH_SIZE)
            batch = jax.tree.map(lambda array, rows=rows: jnp.asarray(array[rows]), examples)
            params, state, loss = step(params, state, batch)
            losses.append(loss)
            progress.update()
    return params, float(np.mean(jax.device_get(losses[-max(num_steps // 10, 1) :])))
