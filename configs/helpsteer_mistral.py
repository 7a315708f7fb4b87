"""SIPO's line on HelpSteer: Mistral-7B, correctness against verbosity, by pairs of answers.

    python -m paretohqd_jax.main --config=configs/helpsteer_mistral.py:raco --workdir=runs/steer

After the colon as in configs/safe_rlhf_llama.py: a method that learns from preference pairs, and
where it runs. Any two answers to a prompt make a pair, labelled by HelpSteer's own scores; where
these are equal the objective says nothing. The judge is DPA's reward model. Not run at this size.

Sources: [SIPO] the code of arXiv 2502.14354; [RACO] that of arXiv 2602.02495; [own] ours.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError

# As in configs/safe_rlhf_llama.py.
HARDWARE = {
    "v5p-8": {"fsdp": 1, "pairs": 2, "responses": 256},  # 4 x 95 GB
    "v4-32": {"fsdp": 4, "pairs": 4, "responses": 256},  # 16 x 32 GB
    "h100": {"fsdp": 1, "pairs": 1, "responses": 64},  # 80 GB
}
METHODS = ("dpo", "dpo_lw", "dpo_soup", "mod", "modpo", "raco", "smooth_tchebycheff")


def get_config(method_and_hardware: str = "dpo_lw"):
    method, _, hardware = method_and_hardware.partition(",")
    if method not in METHODS or (hardware or "h100") not in HARDWARE:
        raise InputError(
            f"{method_and_hardware!r}: write METHOD or METHOD,HARDWARE, one of "
            f"{', '.join(METHODS)} and one of {', '.join(HARDWARE)}"
        )
    fitting = HARDWARE[hardware or "h100"]
    config = default_config(method)
    config.data.source = "nvidia/HelpSteer"  # [SIPO]
    config.data.format = "helpsteer"
    config.data.revision = ""  # pin the one that the log names
    config.data.scores = "correctness=correctness,verbosity=verbosity"  # [SIPO]
    config.data.prompt_format = "[INST] {prompt} [/INST]"  # [own] the model's, in plain text
    config.data.num_test_prompts = 500  # [own] there as many as the validation split has
    config.data.min_tokens = 0  # [SIPO]
    config.data.max_tokens = 512  # [SIPO]
    config.pairs.labels = "rewards"  # [SIPO] which score is larger
    config.pairs.margin = 0.0  # [SIPO]
    config.pairs.per_prompt = 6  # [SIPO] all of four answers
    config.pairs.conflict = -1.0  # [own] SIPO compares shares of 0 to 0.9
    config.model.source = "mistralai/Mistral-7B-Instruct-v0.2"  # [own] of the judge's kin
    config.model.dtype = "bfloat16"  # [SIPO]
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    config.rewards.models = ("correctness=dpa-correctness", "verbosity=dpa-verbosity")  # [SIPO]
    config.rewards.dtype = "bfloat16"  # [SIPO]
    config.rewards.batch_size = 16  # [own]
    if "preferences" in config:
        config.preferences = "11"  # [own] there the inner ones of steps of 0.2
    config.lora.rank = 64  # [SIPO]
    config.lora.alpha = 1.0  # [SIPO] a scale of 1 / 64, which the learning rate goes with
    config.lora.dropout = 0.0  # [SIPO]
    config.lora.targets = ("q_proj", "k_proj", "v_proj", "o_proj")  # [SIPO]
    config.dpo.beta = 0.1  # [SIPO]
    config.dpo.loss = "sigmoid"  # [SIPO]
    config.dpo.label_smoothing = 0.0  # [SIPO]
    config.train.num_steps = 1000  # [own] there 3 epochs
    config.train.batch_size = 32  # [own] there 2, on each device
    config.train.num_microbatches = 32 // fitting["pairs"]  # [own]
    config.train.learning_rate = 5e-4  # [SIPO], falling linearly here, as a cosine there
    config.train.warmup_steps = 0  # [SIPO]
    config.train.weight_decay = 0.05  # [SIPO]
    config.train.max_grad_norm = 1.0  # [SIPO]
    if method == "raco":
        config.raco.conflict = 0.4  # [RACO]
    config.evaluate.max_new_tokens = 512  # [SIPO]
    config.evaluate.temperature = 0.0  # [SIPO] greedy
    config.evaluate.batch_size = fitting["responses"]  # [own]
    return config
