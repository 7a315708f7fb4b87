"""Distances in min-max units, or in those of the rewards.

    python -m paretohqd_jax.main --config=configs/studies/normalization.py \
        --workdir=runs/normalization

With two objectives the choice changes nothing but the last of ties: to scale an axis scales the
distances of all rows to a line by the same factor. So there are three here.
"""

from paretohqd_jax.config import default_config


def get_config():
    config = default_config("selection_study")
    config.populations = ("configs.studies.populations:three_scales",)
    config.rewards.models = ("first", "second", "third")
    config.preferences = "ric-13"
    config.settings = ("normalize=True", "normalize=False")
    return config
