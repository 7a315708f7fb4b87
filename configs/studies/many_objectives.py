"""Many objectives, where nearly every row is non-dominated: the pool, and three rules.

    python -m paretohqd_jax.main --config=configs/studies/many_objectives.py:5 --workdir=runs/many_5

After the colon stands the number of objectives: 3, 5 or 8. Spheres that bulge and that are hollow,
and Gaussians without any front. The rows of the method come from its pool of first layers, from all
rows and from as many rows of the largest plain sum; those of the other two rules from all rows.
"""

from paretohqd_jax.config import default_config

PREFERENCES = {"3": "15", "5": "15", "8": "36"}  # lattices of steps 1/4, 1/2 and 1/2
NUM_DRAWS = {"3": 10, "5": 10, "8": 3}  # a hypervolume of 3,600 rows in eight takes seconds
POPULATIONS = ("bulging", "hollow", "unrelated")


def get_config(num_objectives: str = "5"):
    if num_objectives not in PREFERENCES:
        raise ValueError(f"{num_objectives!r}: use one of {', '.join(PREFERENCES)} objectives")
    config = default_config("selection_study")
    config.num_draws = NUM_DRAWS[num_objectives]
    config.populations = tuple(
        f"configs.studies.populations:{name}_{num_objectives}" for name in POPULATIONS
    )
    config.rewards.models = tuple(f"objective_{m + 1}" for m in range(int(num_objectives)))
    config.preferences = PREFERENCES[num_objectives]
    config.settings = (
        "rule=ray", "rule=ray,pool=all", "rule=ray,pool=sum", "rule=weighted_sum,pool=all",
        "rule=chebyshev,pool=all",
    )  # fmt: skip
    return config
