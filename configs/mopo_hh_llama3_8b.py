"""MOPO's task: helpful against harmless by the prompts of HH-RLHF, Llama-3.1-8B.

    python -m paretohqd_jax.main --config=configs/mopo_hh_llama3_8b.py:h100 --workdir=runs/mopo

The name after the colon says where it runs, as in configs/llama3_8b.py. Not run at this size: no
time and no result is known. Each prompt of HH-RLHF has two responses, so that a win rate is one
comparison, smooth by the difference of the rewards.

Sources: [MOPO] notes on arXiv 2505.10892, the paper's body was not at hand and there is no code;
[RiC] the code of arXiv 2402.10207, whose reward models these tasks use; [own] ours, also where the
paper says nothing.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError

HARDWARE = {
    "v5p-8": {"fsdp": 1, "responses": 256, "rows": 8},  # 4 x 95 GB
    "v4-32": {"fsdp": 4, "responses": 384, "rows": 8},  # 16 x 32 GB
    "h100": {"fsdp": 1, "responses": 64, "rows": 2},  # 80 GB; rows of an adapter at a time
}


def get_config(hardware: str = "h100"):
    if hardware not in HARDWARE:
        raise InputError(f"hardware {hardware!r} is not one of {', '.join(HARDWARE)}")
    fitting = HARDWARE[hardware]
    config = default_config("mopo")
    config.data.source = "Anthropic/hh-rlhf"  # [MOPO]
    config.data.format = "hh"
    config.data.revision = ""  # pin the one that the log names
    config.data.prompt_format = "{prompt} \n\nAssistant:"  # [RiC]
    config.data.num_test_prompts = 2000  # [RiC]
    config.data.min_tokens = 8  # [RiC]
    config.data.max_tokens = 512  # [RiC]
    config.model.source = "meta-llama/Llama-3.1-8B"  # [MOPO] in its second version; 1.3B before
    config.model.dtype = "bfloat16"  # [own]
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    config.rewards.models = ("harmless", "helpful")  # [MOPO] the pair, [RiC] the models
    config.mopo.primary = "helpful"  # [MOPO] one objective, the other held
    config.mopo.thresholds = "adaptive"  # [MOPO] b <- beta G
    config.mopo.levels = "0.9;0.95;0.99;0.999;0.9995"  # [MOPO] beta: its ablation and default
    config.mopo.tau = 0.08  # [MOPO]
    config.mopo.epsilon = 1e-4  # [own] with the paper's 0.15 these thresholds are infeasible
    # [own] the paper's 500 of 10,000 steps leave 18 references behind, and by the closed form of
    # their re-weighting few rows with all of the weight; a quarter leaves two.
    config.mopo.refresh_every = 2500
    config.mopo.max_multiplier = 50.0  # [own]
    config.mopo.max_weight = 20.0  # [own]
    config.lora.rank = 64  # [RiC]; [MOPO] says LoRA alone
    config.lora.alpha = 128.0  # [RiC]
    config.lora.dropout = 0.05  # [RiC]
    config.lora.targets = ("q_proj", "v_proj")  # [RiC]
    config.train.num_steps = 10_000  # [MOPO]
    config.train.batch_size = 8  # [MOPO]
    config.train.num_microbatches = 8 // fitting["rows"]  # [own]
    config.train.learning_rate = 1.41e-4  # [RiC], falling linearly
    config.train.warmup_steps = 0  # [RiC]
    config.train.weight_decay = 0.01  # [RiC]
    config.train.checkpoint_every = 500  # [own]
    config.evaluate.max_new_tokens = 128  # [RiC]
    config.evaluate.temperature = 1.0  # [RiC]
    config.evaluate.top_p = 0.9  # [RiC]
    config.evaluate.batch_size = fitting["responses"]  # [own]
    return config
