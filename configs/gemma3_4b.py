"""Concise help from a small model of today: the text part of Gemma 3 4B, helpful against brief.

    python -m paretohqd_jax.main --config=configs/gemma3_4b.py:h100 --workdir=runs/gemma3_4b

The rows are UltraFeedback's completions, four per instruction, scored for helpfulness by a reward
model that was trained on HelpSteer's scale, and for their length.

The name after the colon says where it runs, as in configs/hh_llama2_7b.py. Not run yet: no time and
no result is known.

Sources: [P] the ParetoHqD paper (arXiv 2504.16628); [card] the model's card and its
generation_config.json; [QLoRA] arXiv 2305.14314, which adapts all linear layers and trains models
below 33B at this rate; [own] ours.
"""

from paretohqd_jax.config import default_config

# As in configs/hh_llama2_7b.py. The base weights take 7.8 GB in bfloat16, the cache of a response
# with its prompt, 1280 tokens, 0.2 GB.
HARDWARE = {
    "v5p-8": {"fsdp": 1, "responses": 256, "microbatches": 1},  # 4 x 95 GB
    "v4-32": {"fsdp": 4, "responses": 384, "microbatches": 1},  # 16 x 32 GB
    "h100": {"fsdp": 1, "responses": 64, "microbatches": 4},  # 80 GB
}


def get_config(hardware: str = "h100"):
    if hardware not in HARDWARE:
        raise ValueError(f"hardware {hardware!r} is not one of {', '.join(HARDWARE)}")
    fitting = HARDWARE[hardware]
    config = default_config()
    config.data.source = "openbmb/UltraFeedback"  # [own]
    config.data.format = "ultrafeedback"
    config.data.revision = ""  # pin the one that the log names
    config.data.prompt_format = "chat"  # [card]
    config.data.num_test_prompts = 1000  # [own]
    config.data.min_tokens = 8  # [own] as for the paper's task
    config.data.max_tokens = 768  # [own] prompt and response
    config.model.source = "google/gemma-3-4b-it"  # [own]
    config.model.dtype = "bfloat16"  # [card]
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    config.rewards.models = ("dpa-helpfulness", "brief")  # [own]
    config.rewards.dtype = "bfloat16"  # [own]
    config.preferences = "11"  # [P]
    config.select.k = 100  # [P]; stage 2 takes 50 [P]
    config.select.min_pool_size = 0  # [own] 0 stands for k x 11 = 1100
    config.select.range_scope = "pareto"  # [own] low outliers do not tilt the directions
    config.select.normalize = True  # [own] reward models of other scales count the same
    config.lora.rank = 16  # [own]
    config.lora.alpha = 32.0  # [own] twice the rank, as in [P]
    config.lora.dropout = 0.05  # [P]
    config.lora.targets = (  # [QLoRA]
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    )  # fmt: skip
    config.train.stage1_steps = 200  # [P]
    config.train.stage2_steps = 200  # [P]
    config.train.batch_size = 8  # [P] rows per preference
    config.train.num_microbatches = fitting["microbatches"]  # [own]
    config.train.learning_rate = 2e-4  # [QLoRA], falling linearly
    config.train.warmup_steps = 10  # [own]
    config.train.weight_decay = 0.0  # [own]
    config.train.max_grad_norm = 1.0  # [own]
    config.generate.num_prompts = 10_000  # [P] random prompts, for each of 3 representatives
    config.generate.max_new_tokens = 512  # [own]
    config.generate.temperature = 0.7  # [own]
    config.generate.top_p = 0.9  # [own]
    config.generate.top_k = 20  # [own]
    config.generate.batch_size = fitting["responses"]  # [own]
    config.evaluate.max_new_tokens = 512  # [own]
    config.evaluate.temperature = 1.0  # [card]
    config.evaluate.top_p = 0.95  # [card]
    config.evaluate.top_k = 64  # [card]
    config.evaluate.batch_size = fitting["responses"]  # [own]
    return config
