"""MODPO's safety task: Alpaca-7B, helpful against harmless, by the pairs of PKU-SafeRLHF.

    python -m paretohqd_jax.main --config=configs/safe_rlhf_llama.py:modpo --workdir=runs/safe

After the colon stand a method that learns from preference pairs and where it runs, as in
`:raco,v5p-8`: h100 (one GPU, the default), v5p-8 or v4-32 (TPU slices of 4 and 16 chips). Methods
that start from the same DPO models find them in the run directory. Not run at this size: no time is
known. What is estimated to be needed is printed by --check.

Labels come with the pairs; the authors' reward and cost models judge the answers alone. On a GPU of
40 GB the two models of `dpo` are estimated to take 18.5 GB (with parts of one pair each), all 11
preferences 39 GB: there, --config.preferences=5.

Sources: [MODPO] the code of arXiv 2310.03708, its run on BeaverTails; [MOD] that of arXiv
2406.18853; [RACO] that of arXiv 2602.02495; [own] ours.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError

# As in configs/hh_llama2_7b.py. Adapters of 11 preferences, their moments and gradients take 18 to
# 30 GB; a batch is computed in parts of so many pairs of each adapter.
HARDWARE = {
    "v5p-8": {"fsdp": 1, "pairs": 2, "responses": 256},  # 4 x 95 GB
    "v4-32": {"fsdp": 4, "pairs": 4, "responses": 256},  # 16 x 32 GB
    "h100": {"fsdp": 1, "pairs": 1, "responses": 64},  # 80 GB
}
METHODS = ("dpo", "dpo_lw", "dpo_soup", "mod", "modpo", "raco", "smooth_tchebycheff")


def get_config(method_and_hardware: str = "modpo"):
    method, _, hardware = method_and_hardware.partition(",")
    if method not in METHODS or (hardware or "h100") not in HARDWARE:
        raise InputError(
            f"{method_and_hardware!r}: write METHOD or METHOD,HARDWARE, one of "
            f"{', '.join(METHODS)} and one of {', '.join(HARDWARE)}"
        )
    fitting = HARDWARE[hardware or "h100"]
    config = default_config(method)
    config.data.source = "PKU-Alignment/PKU-SafeRLHF-10K"  # [MODPO]
    config.data.format = "safe_rlhf"
    config.data.revision = ""  # pin the one that the log names
    config.data.prompt_format = "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:"  # [MODPO]
    config.data.num_test_prompts = 200  # [MODPO] of the validation split, a tenth of all
    config.data.min_tokens = 0  # [MODPO]
    config.data.max_tokens = 512  # [MODPO] longer ones are dropped
    config.pairs.labels = "data"  # [MODPO] columns better_response_id and safer_response_id
    config.pairs.per_prompt = 1000  # [MODPO] all
    config.model.source = "PKU-Alignment/alpaca-7b-reproduced"  # [MODPO]
    config.model.dtype = "bfloat16"  # [MODPO]
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    # [MODPO] the judges; of the cost, lower is better, which the registry turns round.
    config.rewards.models = ("helpful=beaver-reward", "harmless=beaver-cost")
    config.rewards.dtype = "bfloat16"  # [MODPO]
    config.rewards.batch_size = 16  # [own]
    if "preferences" in config:
        config.preferences = "11"  # [MODPO] the paper's 0, 0.1, ..., 1; its script has three
    config.lora.rank = 64  # [MODPO]
    config.lora.alpha = 1.0  # [MODPO] a scale of 1 / 64, which the learning rate goes with
    config.lora.dropout = 0.0  # [MODPO]
    config.lora.targets = ("q_proj", "k_proj", "v_proj", "o_proj")  # [MODPO]
    config.dpo.beta = 0.1  # [MODPO]
    config.dpo.loss = "sigmoid"  # [MODPO]
    config.dpo.label_smoothing = 0.0  # [MODPO]
    config.train.num_steps = 420  # [MODPO] 3 epochs of about 9,000 pairs
    config.train.batch_size = 64  # [MODPO] the paper's; its script has 8 x 6 x 2
    config.train.num_microbatches = 64 // fitting["pairs"]  # [own]
    config.train.learning_rate = 5e-4  # [MODPO], falling linearly here, as a cosine there
    config.train.warmup_steps = 0  # [MODPO] 0.1 steps: none
    config.train.weight_decay = 0.05  # [MODPO]
    config.train.max_grad_norm = 1.0  # [MODPO]
    if method == "modpo":
        config.modpo.primary = "helpful"  # [MODPO] trained on `better`, with `safer` as the margin
        config.modpo.margins = "implicit"  # [MODPO]
    if method == "raco":
        config.raco.conflict = 0.4  # [RACO]
    config.evaluate.max_new_tokens = 384  # [own] there 512 with the prompt
    config.evaluate.temperature = 0.0  # [MOD] greedy
    config.evaluate.batch_size = fitting["responses"]  # [own]
    return config
