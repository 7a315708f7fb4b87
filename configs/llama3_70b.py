"""The task of configs/llama3_8b.py on Llama-3.1-70B-Instruct: helpful against harmless.

    python -m paretohqd_jax.main --config=configs/llama3_70b.py:v5p-16 --workdir=runs/llama3_70b

The name after the colon says where it runs: TPU slices v5p-16 (8 chips), v6e-32 (32 chips) or
v5e-128 (128 chips). docs/launching.md tells how the meshes were chosen. Not run yet: no time and no
result is known.

Sources: [QLoRA] arXiv 2305.14314, which trains models of 33B and more at half the rate; [own] ours.
All else is that of configs/llama3_8b.py.
"""

from paretohqd_jax.configs import llama3_8b

# config.mesh.tensor cuts the base weights (141 GB in bfloat16) within matrices, so that a decoding
# step exchanges activations, where with fsdp it would send all weights. There are 8 key/value heads
# to cut. fsdp and data cut what does not fit else, most of all the activations of all adapters.
HARDWARE = {
    "v5p-16": {"fsdp": 1, "tensor": 8, "microbatches": 4},  # 8 x 95 GB
    "v6e-32": {"fsdp": 2, "tensor": 8, "microbatches": 4},  # 32 x 32 GB
    "v5e-128": {"fsdp": 8, "tensor": 8, "microbatches": 1},  # 128 x 16 GB
}


def get_config(hardware: str = "v5p-16"):
    if hardware not in HARDWARE:
        raise ValueError(f"hardware {hardware!r} is not one of {', '.join(HARDWARE)}")
    fitting = HARDWARE[hardware]
    config = llama3_8b.get_config()
    config.model.source = "meta-llama/Llama-3.1-70B-Instruct"  # [own]
    config.mesh.fsdp = fitting["fsdp"]  # [own]
    config.mesh.tensor = fitting["tensor"]  # [own]
    config.train.num_microbatches = fitting["microbatches"]  # [own]
    config.train.learning_rate = 1e-4  # [QLoRA], falling linearly
    config.generate.batch_size = 256  # [own]
    config.evaluate.batch_size = 256  # [own]
    return config
