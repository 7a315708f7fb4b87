"""A whole run in seconds: a tiny random Llama, byte-level text, made-up rows. For tests.

    python -m paretohqd_jax.main --config=configs/toy.py --workdir=runs/toy

The model knows nothing, so the text is gibberish; every step is the real one. After a colon stands
the method, as in `configs/toy.py:sft`. The file also shows how a user's own data source and scorer
are given, as `package.module:function`.
"""

import numpy as np

from paretohqd_jax.config import default_config


def rows():
    """480 rows: 60 prompts with 8 responses of random syllables each."""
    random = np.random.default_rng(0)
    syllables = ["la", "mi", "to", "ku", "sha", "ri", "oo", "kst", "brr", "ae"]
    return [
        {
            "prompt": f"sing {number}",
            "response": " ".join(
                "".join(random.choice(syllables, random.integers(1, 4)))
                for _ in range(random.integers(3, 12))
            ),
        }
        for number in range(60)
        for _ in range(8)
    ]


def vowels(prompts, responses):
    """The share of vowels among the characters of each response."""
    return np.array([sum(c in "aeiou" for c in r) / max(len(r), 1) for r in responses])


def variety(prompts, responses):
    """The share of different characters in each response. For runs with three objectives."""
    return np.array([len(set(r)) / max(len(r), 1) for r in responses])


# How methods that have their models write new rows do so.
WRITING = {
    "generate.num_prompts": 24,
    "generate.max_new_tokens": 24,
    "generate.batch_size": 18,
    "generate.temperature": 1.0,
    "generate.top_p": 1.0,
}
# Methods that learn from preference pairs, here of two responses to a prompt by their rewards.
ON_PAIRS = ("dpo", "dpo_soup", "mod", "dpo_lw", "modpo", "raco", "smooth_tchebycheff", "sipo")
# Methods that learn from answers of the models themselves.
REINFORCED = ("morlhf", "rewarded_soup")
# What each method has of its own.
METHODS = {
    "paretohqd": {
        "preferences": "4",
        "select.k": 12,
        "train.stage1_steps": 40,
        "train.stage2_steps": 10,
        **WRITING,
    },
    "sft": {"draw.k": 12, "train.num_steps": 50},
    "best_of_n": {"preferences": "4", "best_of_n.n": 4, "train.num_steps": 50, **WRITING},
    "sft_soup": {"preferences": "3", "select.k": 12, "train.num_steps": 50},
    "ric": {
        "preferences": "3",
        "ric.num_original": 40,
        "train.offline_steps": 40,
        "train.online_steps": 10,
        "train.online_learning_rate": 3e-3,
        **WRITING,
    },
    **{method: {"train.num_steps": 20, "preferences": "3"} for method in ON_PAIRS},
    "dpo": {"train.num_steps": 20},
    "mopo": {"train.num_steps": 40, "mopo.levels": "0.9;1.1"},
    "sipo": {
        "preferences": "3",
        "train.num_steps": 20,
        "sipo.refinement": "none",  # a model that knows nothing cannot review itself
        "sipo.num_steps": 10,
        "sipo.learning_rate": 1e-3,
        **WRITING,
    },
    **dict.fromkeys(
        REINFORCED,
        {
            "preferences": "3",
            "morlhf.num_updates": 16,
            "morlhf.num_prompts": 6,
            "generate.max_new_tokens": 24,
            "generate.batch_size": 72,
        },
    ),
}
RATES = {**dict.fromkeys(ON_PAIRS, 3e-3), **dict.fromkeys(REINFORCED, 1e-2)}


def get_config(method="paretohqd"):
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    config = default_config(method)
    config.update_from_flattened_dict(METHODS[method])
    config.data.source = "configs.toy:rows"
    config.data.prompt_format = "{prompt}:"
    config.data.num_test_prompts = 6
    config.data.max_tokens = 96
    config.model.source = "random:toy"
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.rewards.models = ("brief", "configs.toy:vowels")
    config.lora.rank = 4
    config.lora.alpha = 8.0
    config.lora.targets = ("q_proj", "v_proj", "o_proj", "down_proj")
    config.train.batch_size = 12 if method in REINFORCED else 4
    config.train.learning_rate = RATES.get(method, 3e-2)
    if "held_out_loss" in config.train:
        config.train.held_out_loss = False  # takes longer to compile than the training itself
    config.train.checkpoint_every = 5
    config.evaluate.max_new_tokens = 24
    config.evaluate.batch_size = 18
    return config
