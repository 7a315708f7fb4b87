"""SIPO's line on HelpSteer: a Llama-2-7B, correct against verbose answers, with refinement.

    python -m paretohqd_jax.main --config=configs/sipo_helpsteer_llama2_7b.py --workdir=runs/steer

After a colon stands where it runs, as in configs/sipo_beavertails_llama2_7b.py. Any two answers to
a prompt make a pair, labelled by HelpSteer's own scores. The judge is DPA's reward model. Answers
are reviewed and rewritten, for which a context of 4,096 tokens has room. Not run at this size.

Sources: [SIPO] the code of arXiv 2502.14354, its run on HelpSteer; [paper] the paper, as its
summaries have it; [own] ours.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError

# As in configs/safe_rlhf_llama.py.
HARDWARE = {
    "v5p-8": {"fsdp": 1, "pairs": 2, "responses": 256},  # 4 x 95 GB
    "v4-32": {"fsdp": 4, "pairs": 4, "responses": 256},  # 16 x 32 GB
    "h100": {"fsdp": 1, "pairs": 1, "responses": 64},  # 80 GB
}


def get_config(hardware: str = "h100"):
    if hardware not in HARDWARE:
        raise InputError(f"{hardware!r} is not one of {', '.join(HARDWARE)}")
    fitting = HARDWARE[hardware]
    config = default_config("sipo")
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
    config.pairs.conflict = 0.6  # [SIPO] the mix whose conflicts are answered better
    config.model.source = "meta-llama/Llama-2-7b-chat-hf"  # [own]
    config.model.dtype = "bfloat16"  # [SIPO]
    config.model.remat = "full"  # [own] least memory
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    config.rewards.models = ("correctness=dpa-correctness", "verbosity=dpa-verbosity")  # [SIPO]
    config.rewards.dtype = "bfloat16"  # [SIPO]
    config.rewards.batch_size = 16  # [own]
    config.preferences = "6"  # [paper] 0, 0.2, ..., 1
    config.lora.rank = 64  # [SIPO]
    config.lora.alpha = 1.0  # [SIPO] a scale of 1 / 64, which the learning rates go with
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
    config.generate.num_prompts = 10_000  # [SIPO] all
    config.generate.max_new_tokens = 384  # [own] there 512 with the prompt
    config.generate.temperature = 0.0  # [SIPO] greedy
    config.generate.batch_size = fitting["responses"]  # [own]
    config.sipo.weights = "inner"  # [SIPO] 0.2, 0.4, 0.6, 0.8
    config.sipo.refinement = "review"  # [SIPO]
    config.sipo.reviewer = "1,0"  # [SIPO] the model of correctness; in the paper a mixture
    config.sipo.review_tokens = 384  # [own] there 1,200 with all that is asked
    config.sipo.filter = "implicit"  # [SIPO]
    config.sipo.soup_weights = "inner"  # [SIPO] the same
    config.sipo.average = "updates"  # [own] there the factors
    config.sipo.margin = 0.0  # [SIPO]
    config.sipo.losers = "weaker"  # [paper] in the code both
    config.sipo.nll_weight = 0.1  # [SIPO]
    config.sipo.nll_length = "response"  # [own] there the padded length
    config.sipo.num_steps = 120  # [own] there 3 epochs of the pairs that were improved
    config.sipo.learning_rate = 5e-6  # [SIPO]
    config.evaluate.max_new_tokens = 384  # [own] there 512 with the prompt
    config.evaluate.temperature = 0.0  # [SIPO] greedy
    config.evaluate.batch_size = fitting["responses"]  # [own]
    return config
