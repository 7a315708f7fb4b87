"""Rewards-in-Context as its code has it: Llama-2-7B, the helpful assistant or summaries.

    python -m paretohqd_jax.main --config=configs/ric_llama2_7b.py:assistant,h100 --workdir=runs/ric

After the colon stand the task, assistant or summary, and where it runs, as in
configs/hh_llama2_7b.py, whose head says what you supply; of the summaries,
configs/summary_llama2_7b.py. Not run yet at this size: no time is known.

What the code does and this does not: base weights in 8 bits, a batch of its own on each of 4
processes (2 rows each, 8 together here), no end of sequence as the first token of an answer, and
answers cut where they begin a turn of the user's.

Sources: [RiC] the code of Rewards-in-Context (arXiv 2402.10207), at commit aee53a6; [own] ours.
"""

from paretohqd_jax.config import default_config

# What training and decoding are estimated to need stays below three quarters of a device, which is
# what JAX reserves of a GPU; the base weights take 13.5 GB, the cache of a response of 640 tokens
# 0.34 GB.
HARDWARE = {
    "v5p-8": {"fsdp": 4, "responses": 256},  # 4 x 95 GB
    "v4-32": {"fsdp": 8, "responses": 384},  # 16 x 32 GB
    "h100": {"fsdp": 1, "responses": 48},  # 80 GB
}
TASKS = {
    "assistant": {
        "data.source": "Anthropic/hh-rlhf",  # [RiC] chosen and rejected alike
        "data.format": "hh",
        "data.prompt_format": "{prompt} \n\nAssistant:",  # [RiC]
        "data.num_test_prompts": 2138,  # [RiC] as many; there every 4th row of the test split
        "rewards.models": ("harmless", "helpful"),  # [RiC]
        "generate.max_new_tokens": 128,  # [RiC]
        "evaluate.max_new_tokens": 128,  # [RiC]
    },
    "summary": {
        "data.source": "openai/summarize_from_feedback/comparisons",  # [RiC]
        "data.format": "summarize",
        "data.revision": "refs/convert/parquet",  # [own] on main the set is a script
        "data.prompt_format": "### Instruction: Generate a one-sentence summary of this post. "
        "### Input: {prompt} ### Response:",  # [RiC]
        "data.num_test_prompts": 2000,  # [RiC] as many; there of the validation split
        "rewards.models": ("summary", "faithful"),  # [RiC]
        "generate.max_new_tokens": 48,  # [RiC]
        "evaluate.max_new_tokens": 48,  # [RiC]
    },
}


def get_config(task_and_hardware: str = "assistant,h100"):
    task, _, hardware = task_and_hardware.partition(",")
    hardware = hardware or "h100"
    if task not in TASKS or hardware not in HARDWARE:
        raise ValueError(
            f"{task_and_hardware!r}: write TASK or TASK,HARDWARE, one of {', '.join(TASKS)} and "
            f"one of {', '.join(HARDWARE)}"
        )
    config = default_config("ric")
    config.update_from_flattened_dict(TASKS[task])
    config.seed = 8888  # [RiC]
    config.data.min_tokens = 8  # [RiC]
    config.data.max_tokens = 512  # [RiC]
    config.model.source = "meta-llama/Llama-2-7b-hf"  # [RiC]
    config.model.dtype = "bfloat16"  # [RiC] of generation; 8 bits in training
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = HARDWARE[hardware]["fsdp"]  # [own]
    config.rewards.dtype = "bfloat16"  # [RiC]; scores are float32 and not rounded here
    config.preferences = "11"  # [RiC] (0, 1), (0.1, 0.9), ..., (1, 0)
    config.ric.mapping = "l2"  # [RiC] its evaluation
    config.ric.range = "normal"  # [RiC] extremes of 50,000 normal draws, about 4
    config.ric.iterations = 2  # [RiC] its README; 1 by default
    config.ric.quantile = 0.7  # [RiC]
    config.ric.num_original = 10_000  # [RiC]
    config.ric.legacy_no_eos = False  # [RiC] since November 2024; True for the paper's numbers
    config.ric.legacy_round = False  # [own] True in [RiC], which makes ties of most rows
    config.ric.legacy_clean = True  # [RiC]
    config.draw.rule = "all"  # [RiC]
    config.lora.rank = 64  # [RiC]
    config.lora.alpha = 128.0  # [RiC]
    config.lora.dropout = 0.05  # [RiC]
    config.lora.targets = ("q_proj", "v_proj")  # [RiC] PEFT's default for Llama
    config.train.offline_steps = 20_000  # [RiC]
    config.train.online_steps = 4_000  # [RiC] of each iteration
    config.train.batch_size = 8  # [RiC] 2 on each of 4 processes
    config.train.learning_rate = 1.414e-4  # [RiC] offline, falling linearly
    config.train.online_learning_rate = 1e-5  # [RiC] constant
    config.train.warmup_steps = 0  # [RiC]
    config.train.weight_decay = 0.01  # [RiC]
    config.train.max_grad_norm = 1.0  # [RiC]
    config.train.checkpoint_every = 500  # [own]
    config.generate.num_prompts = 20_000  # [RiC] of training rows, with replacement
    config.generate.temperature = 0.7  # [RiC]
    config.generate.top_p = 0.9  # [RiC]
    config.generate.top_k = 0  # [RiC]
    config.generate.batch_size = HARDWARE[hardware]["responses"]  # [own]
    config.evaluate.temperature = 1.0  # [RiC]
    config.evaluate.top_p = 0.9  # [RiC]
    config.evaluate.top_k = 0  # [RiC]
    config.evaluate.batch_size = HARDWARE[hardware]["responses"]  # [own]
    return config
