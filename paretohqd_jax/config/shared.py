"""The options that methods share, in groups."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from typing import Any

from paretohqd_jax.config.engine import ENGINE
from paretohqd_jax.config.objectives import objective_names
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    OURS,
    PAPER,
    RIC,
    SWITCH,
    TEXT,
    TEXTS,
    Option,
    Valid,
    at_least,
    one_of,
)
from paretohqd_jax.data.chat import check_prompt_format
from paretohqd_jax.data.gates import parse_gates
from paretohqd_jax.data.public import PUBLIC_FORMATS

SEED = Option(0, at_least(0), OURS, "Each step and row draws from it by name.")
READING = {
    "source": Option(
        "",
        TEXT,
        OURS,
        '"quickstart", a parquet, jsonl or csv file, "package.module:function", a directory or hub '
        'name ("Anthropic/hh-rlhf/harmless-base") for the datasets library.',
    ),
    "format": Option(
        "plain",
        one_of("plain", *PUBLIC_FORMATS),
        OURS,
        '"plain": columns prompt, response or prompt, chosen, rejected; else a public set\'s own '
        "fields.",
    ),
    "columns": Option("", TEXT, OURS, 'New names, ours first: "prompt=question,response=answer".'),
    "split": Option("train", TEXT, OURS, "Of a directory or hub name."),
    "revision": Option("", TEXT, OURS, 'Of a hub name: a commit or tag; "": the newest.'),
}
SCORES = Option(
    "",
    Valid('"" or OBJECTIVE=COLUMN,...', TEXT.holds),
    OURS,
    'Objectives whose rewards the rows bring along: "helpful=log_odds(win_rate)". The reward '
    "models score what is generated.",
)


def _is_day(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return not text or datetime.date.fromisoformat(text).isoformat() == text
    return False


DATA = {
    **READING,
    "scores": SCORES,
    "prompt_format": Option(
        "chat",
        Valid(
            "chat, chat:NAME, or a text with {prompt}",
            lambda value: check_prompt_format(value) is None,
        ),
        OURS,
        '"chat" is the tokenizer\'s template, "chat:NAME" the one of that name; a text has '
        "{prompt} in it once.",
    ),
    "date": Option(
        "",
        Valid("a day such as '2026-01-31', or ''", _is_day),
        OURS,
        'That chat templates are told; "": the day that the run began, which config.json of the '
        "run directory says.",
    ),
    "num_test_prompts": Option(200, at_least(1), OURS, "Held out by prompt, for the evaluation."),
    "min_tokens": Option(8, at_least(0), RIC, "Shorter rows are left out."),
    "max_tokens": Option(512, at_least(1), RIC, "Longer rows are left out."),
}
MODEL = {
    "source": Option(
        "",
        TEXT,
        OURS,
        "A Hugging Face directory or hub name, a GGUF file, or package:NAME/FILE.",
    ),
    "dtype": Option("bfloat16", one_of("float32", "bfloat16"), RIC, "Of the base weights."),
    "remat": Option(
        "full",
        one_of("none", "dots", "full"),
        OURS,
        "What the backward pass computes again; full takes the least memory.",
    ),
    "attention": Option(
        "xla",
        one_of("xla", "cudnn", "splash"),
        OURS,
        "In training and of prompts: cudnn needs NVIDIA GPUs and bfloat16, splash TPUs.",
    ),
}
MESH = {
    "data": Option(
        -1,
        Valid("-1 (the rest), or 1 or more", lambda value: value == -1 or value >= 1),
        OURS,
        "Devices that cut the stack of adapters; -1: what the other axes leave.",
    ),
    "fsdp": Option(
        1,
        at_least(1),
        OURS,
        "Devices that cut the rows of a batch and, with tensor, the base weights.",
    ),
    "tensor": Option(
        1,
        at_least(1),
        OURS,
        "Devices that cut heads, feed-forward, vocabulary and, in training, hidden states.",
    ),
}


def _are_different(models: Sequence[Any]) -> bool:
    """Whether there are two objectives or more, no two of one name."""
    return (
        len(models) >= 2
        and all(isinstance(model, str) for model in models)
        and len(set(objective_names(models))) == len(models)
    )


REWARDS = {
    "models": Option(
        ("brief", "positivity"),
        Valid(
            "two or more of different names, written like \"('brief','positivity')\"",
            _are_different,
        ),
        OURS,
        "The objectives: reward models and scorers by name, a directory, or "
        '"package.module:function"; larger is better. "COLUMN=NAME" says what the scores are '
        "called.",
    ),
    "backend": Option(
        "jax", one_of("jax", "torch"), OURS, '"torch" reads any classifier of Hugging Face\'s.'
    ),
    "dtype": Option(
        "float32", one_of("float32", "bfloat16"), OURS, "Of the reward models' weights."
    ),
    "batch_size": Option(64, at_least(1), OURS, "Responses that a reward model reads together."),
    "cache": Option(
        "", TEXT, OURS, 'A folder in which runs share their scores; "": the run directory\'s own.'
    ),
}
PREFERENCES = Option(
    "11",
    Valid("a number, the name of a list, or a list", TEXT.holds),
    PAPER,
    'Points of a grid ("11" of two objectives: steps of 0.1), "ric-11", "ric-13", or '
    '"0.8,0.2;0.5,0.5".',
)
LORA = {
    "rank": Option(64, at_least(1), PAPER, "Of each adapter's matrices."),
    "alpha": Option(128.0, ABOVE_ZERO, PAPER, "An update counts alpha / rank times."),
    "dropout": Option(
        0.05,
        Valid("in [0, 1)", lambda value: 0 <= value < 1),
        PAPER,
        "The share of an adapter's inputs that a training step leaves out.",
    ),
    "targets": Option(
        ("q_proj", "v_proj"),
        Valid("names of linear layers", TEXTS.holds),
        RIC,
        "The layers that are adapted: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
        "down_proj.",
    ),
}
TRAIN = {
    "batch_size": Option(8, at_least(1), PAPER, "Rows per adapter and step."),
    "num_microbatches": Option(
        1,
        Valid("a divisor of train.batch_size", lambda value: value >= 1),
        OURS,
        "Parts that a batch is computed in; more take less memory.",
    ),
    "learning_rate": Option(1.41e-4, ABOVE_ZERO, RIC, "At its highest; it falls linearly to 0."),
    "warmup_steps": Option(
        0, at_least(0), RIC, "Steps in which the learning rate rises; fewer than there are."
    ),
    "weight_decay": Option(0.01, at_least(0), RIC, "Of the adapters, by AdamW."),
    "max_grad_norm": Option(1.0, ABOVE_ZERO, OURS, "Longer gradients of an adapter are scaled."),
    "checkpoint_every": Option(50, at_least(1), OURS, "Steps between two checkpoints."),
    "held_out_loss": Option(
        True,
        SWITCH,
        OURS,
        "At each checkpoint the loss on a batch of rows of held-out prompts, where there are any; "
        "of pairs the accuracy, too.",
    ),
}


# Of methods whose loss says nothing about rows that they do not train on.
TRAIN_ALONE = {name: option for name, option in TRAIN.items() if name != "held_out_loss"}
ROWS = "a response takes one, or one for each beam and each adapter whose logits are mixed"


def sampling(temperature: float, together: str) -> dict[str, Option]:
    """How responses are drawn, with this default temperature; `together` says of what."""
    return {
        "max_new_tokens": Option(128, at_least(1), RIC, "Of a response; longer ones are cut."),
        "temperature": Option(temperature, at_least(0), RIC, "0: the most probable token."),
        "top_p": Option(
            0.9,
            Valid("1e-6 to 1", lambda value: 1e-6 <= value <= 1),
            RIC,
            "The probability that the tokens drawn from add up to.",
        ),
        "top_k": Option(0, at_least(0), RIC, "The number of tokens drawn from; 0: all."),
        "num_beams": Option(1, at_least(1), OURS, "Above 1, with temperature 0: a beam search."),
        "batch_size": Option(96, at_least(1), OURS, f"Rows decoded together, {together}; {ROWS}."),
    }


GATES = Option(
    (),
    Valid("conditions such as 'relevance>=0.3'", lambda gates: parse_gates(gates) is not None),
    OURS,
    "Rows that fail one of these are not trained on: NAME, one of >=, <=, > and <, and a number. "
    "The name is that of an objective, a scorer or a column of the data.",
)
# Of new training rows, by methods that have their models write some.
GENERATE = {
    **ENGINE,
    "num_prompts": Option(
        10_000, at_least(1), PAPER, "Random training prompts that each model answers."
    ),
    **sampling(0.7, "of all models"),  # RiC's online stage
}
EVALUATE = {
    **sampling(1.0, "of all models"),  # RiC's evaluation
    "truth": Option(
        "",
        TEXT,
        OURS,
        'Of a task whose true front is known: "package.module:function" that returns it (see '
        "evaluation.truth), for measures against it.",
    ),
}

# What all methods that align a model read.
ALIGNMENT = {
    "seed": SEED,
    "data": DATA,
    "model": MODEL,
    "mesh": MESH,
    "rewards": REWARDS,
    "lora": LORA,
    "train": TRAIN,
    "generate": ENGINE,
    "evaluate": EVALUATE,
}
