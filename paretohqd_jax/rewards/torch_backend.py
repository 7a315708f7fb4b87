"""Any Hugging Face classifier as a reward model, through PyTorch, where there is no JAX code.

An optional way in: `pip install 'paretohqd_jax[torch]'`. It runs in the first process alone, on one
GPU if there is one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.rewards.registry import Entry, check_outputs
from paretohqd_jax.rewards.reward_model import RewardModel, encode_pairs, token_types


def load_torch_model(name: str, entry: Entry, dtype: str = "float32") -> RewardModel:
    """The reward model of an entry, its params a PyTorch module. Remote code is never run.

    Raises:
      InputError: PyTorch is missing, or the checkpoint cannot be used.
    """
    try:
        import torch
        from transformers import AutoModelForSequenceClassification
    except ImportError as error:
        raise InputError(
            f"reward model {name!r}: config.rewards.backend='torch' needs PyTorch; install it with:"
            " pip install 'paretohqd_jax[torch]'"
        ) from error
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            entry.checkpoint, dtype=getattr(torch, dtype), output_loading_info=True
        )
    except Exception as error:  # the library raises many kinds for the same broken directory
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"reward model {name!r}: {entry.checkpoint}: {reason}") from error
    lacking = sorted(info["missing_keys"])
    if lacking:  # the library would go on with random numbers in their place
        raise InputError(
            f"reward model {name!r}: {entry.checkpoint} lacks {', '.join(lacking[:3])}: "
            "it is no classifier"
        )
    labels = [label for _, label in sorted(model.config.id2label.items())]
    check_outputs(name, entry, tuple(labels))
    tokenizer = load_tokenizer(entry.checkpoint)
    limits = (
        entry.max_tokens,
        tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", entry.max_tokens),
    )
    encode = functools.partial(encode_pairs, tokenizer, entry.texts, entry.cut, min(limits))
    has_types = len(entry.texts) == 2 and getattr(model.config, "type_vocab_size", 0) > 1
    separator = tokenizer.sep_token_id if has_types else None
    compute = functools.partial(_rewards, entry.output, entry.sign, separator)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    vocab_size = model.get_input_embeddings().num_embeddings
    return RewardModel(encode, compute, model, vocab_size, traced=False)


def _rewards(
    output: int,
    sign: int,
    separator: int | None,
    model: Any,
    tokens: np.ndarray,
    mask: np.ndarray,
) -> np.ndarray:
    """A RewardModel's `apply`: rewards float32 [B]."""
    import torch

    tokens = tokens.astype(np.int64)
    padding = model.config.pad_token_id
    if padding is None:  # the last token that is another than this one is read
        last = tokens[np.arange(len(tokens)), mask.sum(axis=1) - 1]
        padding = int(np.setdiff1d(np.arange(len(last) + 1), last)[0])
    inputs = {"input_ids": np.where(mask, tokens, padding), "attention_mask": mask}
    if separator is not None:
        inputs["token_type_ids"] = token_types(tokens, mask, separator)
    with torch.inference_mode():
        inputs = {
            name: torch.from_numpy(array.astype(np.int64)).to(model.device)
            for name, array in inputs.items()
        }
        own, model.config.pad_token_id = model.config.pad_token_id, padding
        try:
            logits = model(**inputs).logits
        finally:
            model.config.pad_token_id = own
    return sign * logits[:, output].float().cpu().numpy()
