"""MOPO where the optimum is known: five structures of preferences, two and three objectives.

    python -m paretohqd_jax.main --config=configs/studies/mopo_structures.py \
        --workdir=runs/structures

Needs no data and no model. docs/studies.md shows what comes out.
"""

from paretohqd_jax.config import default_config


def get_config():
    return default_config("structure_study")
