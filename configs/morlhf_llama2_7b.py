"""MORLHF, the baseline of ParetoHqD and RiC: Llama-2-7B, harmless against helpful, 5 preferences.

    python -m paretohqd_jax.main --config=configs/morlhf_llama2_7b.py:h100 --workdir=runs/morlhf

The name after the colon says where it runs: v5p-8 and v4-32 (TPU slices of 4 and 16 chips) or h100
(one GPU). Not run at this size: no time is known. What is estimated to be needed is printed by
--check. Data and reward models are those of configs/hh_llama2_7b.py, which says where they come
from.

The published baseline is PPO of trl 0.8, whose critic says what an answer is worth; here the other
answers to the same prompt do (docs/methods.md says what that changes). It starts from an SFT model:
fine-tune one (method sft, draw.rule=all), merge it (`paretohqd merge`) and give its folder as
--config.model.source; it is the reference, too.

Sources: [RiC] its code of MORLHF, ppo/morlhf.py (arXiv 2402.10207); [P] ParetoHqD (arXiv
2504.16628); [MODPO] the settings of PPO in arXiv 2310.03708; [own] ours.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError

# As in configs/hh_llama2_7b.py, but five adapters and their moments stay while they answer.
HARDWARE = {
    "v5p-8": {"fsdp": 1, "answers": 256, "microbatches": 16},  # 4 x 95 GB
    "v4-32": {"fsdp": 4, "answers": 256, "microbatches": 8},  # 16 x 32 GB
    "h100": {"fsdp": 1, "answers": 64, "microbatches": 32},  # 80 GB
}


def get_config(hardware: str = "h100"):
    if hardware not in HARDWARE:
        raise InputError(f"hardware {hardware!r} is not one of {', '.join(HARDWARE)}")
    fitting = HARDWARE[hardware]
    config = default_config("morlhf")
    config.seed = 8888  # [RiC]
    config.data.source = "Anthropic/hh-rlhf"  # [RiC] the prompts are answered
    config.data.format = "hh"
    config.data.revision = ""  # pin the one that the log names
    config.data.prompt_format = "{prompt} \n\nAssistant:"  # [RiC]
    config.data.num_test_prompts = 2138  # [RiC] as many; there every 4th row of the test split
    config.data.min_tokens = 8  # [RiC]
    config.data.max_tokens = 512  # [RiC]
    config.model.source = "meta-llama/Llama-2-7b-hf"  # [RiC] fine-tuned and merged, see above
    config.model.dtype = "bfloat16"  # [own] there in 8 bits
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    config.rewards.models = ("harmless", "helpful")  # [RiC]; Ray2333's GPT-2 large
    config.rewards.dtype = "bfloat16"  # [RiC]; scores are float32 and not rounded here
    config.preferences = "5"  # [P]
    config.morlhf.num_updates = 200  # [RiC] soups take about the 200th batch
    config.morlhf.num_prompts = 64  # [RiC] a batch, there of one answer each
    config.morlhf.num_answers = 4  # [own] the group that stands in for the critic
    config.morlhf.max_prompt_tokens = 256  # [RiC]
    config.morlhf.advantage = "rloo"  # [own] in units of the rewards, as PPO's are
    config.morlhf.normalize = False  # [RiC] raw scores
    config.morlhf.num_epochs = 1  # [own] there 4, the default of trl
    config.morlhf.clip = 0.2  # [MODPO]
    config.morlhf.kl = 0.2  # [RiC] at the start; there it follows a target of 3 per answer
    config.morlhf.max_kl = 10.0  # [own]
    config.lora.rank = 64  # [RiC]
    config.lora.alpha = 128.0  # [RiC]
    config.lora.dropout = 0.0  # [own] there 0.05; what is trained is what answered
    config.lora.targets = ("q_proj", "v_proj")  # [RiC] PEFT's default for Llama
    config.train.batch_size = 64  # [own] there 1: 64 optimiser steps for as many answers
    config.train.num_microbatches = fitting["microbatches"]  # [own]
    config.train.learning_rate = 1e-5  # [RiC], there constant, here falling linearly
    config.train.warmup_steps = 0  # [RiC]
    config.train.weight_decay = 0.0  # [RiC] Adam
    config.train.max_grad_norm = 0.5  # [RiC]
    config.train.checkpoint_every = 5  # [own]
    config.generate.max_new_tokens = 128  # [RiC]
    config.generate.temperature = 0.7  # [RiC]; there EOS may not come first, nor a turn follow
    config.generate.batch_size = fitting["answers"]  # [own]
    config.evaluate.max_new_tokens = 128  # [RiC]
    config.evaluate.temperature = 1.0  # [RiC]
    config.evaluate.top_p = 0.9  # [RiC]
    config.evaluate.top_k = 0  # [RiC]
    config.evaluate.batch_size = fitting["answers"]  # [own]
    return config
