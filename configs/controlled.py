"""A controlled task with a known answer: syllables to order, rewards by programs. Runs of a minute.

    python -m paretohqd_jax.main --config=configs/controlled.py:paretohqd,hollow \
        --workdir=runs/hollow --config.model.source=runs/base

After the colon stand the method, the front, "bulging", "flat", "hollow" or the exponent of the
shares, and what of the task differs: M=2 objectives, noise=0 of the scored data (a standard
deviation), rows=1200, seed=0 of the data; as in `:best_of_n,hollow,M=3,noise=0.1`.
`paretohqd_jax/studies/controlled.py` says what the task is. One base model, trained in a minute, is
for all fronts and all noise; configs/studies/controlled.py lets the study train it. By hand:

    from pathlib import Path
    from paretohqd_jax.studies.controlled import write_base
    write_base(2, 1200, 0, Path("runs/base"))  # M, rows, seed

The method ric takes one that reads scores in prompts, which `write_base_of_scores` trains likewise.
"""

from paretohqd_jax.config import default_config
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import preference_grid
from paretohqd_jax.studies.controlled import (
    LENGTHS,
    PROMPT_FORMAT,
    check_task,
    exponent_of,
    objective_name,
)

TASK = "paretohqd_jax.studies.controlled"
# As many for all methods: answers that are generated, steps and rows of each adapter.
NUM_PROMPTS, STEPS = 80, (120, 60)
WRITING = {
    "generate.num_prompts": NUM_PROMPTS,
    "generate.max_new_tokens": LENGTHS[1] + 8,
    "generate.batch_size": 120,
    "generate.temperature": 1.0,
    "generate.top_p": 1.0,
}
# Methods that learn from preference pairs: any two rows of a prompt, by their scores.
ON_PAIRS = ("dpo", "dpo_soup", "mod", "dpo_lw", "modpo", "raco", "smooth_tchebycheff", "sipo")
# Labels by exact rewards never err, so that nothing else holds a model back from the ends.
SMOOTHED = {"dpo.label_smoothing": 0.1}
# Methods that learn few rows many times over, and overfit them without dropout.
ON_FEW_ROWS = ("paretohqd", "sft", "best_of_n", "ric", "sft_soup")
# Methods that learn from answers of the models themselves.
REINFORCED = ("morlhf", "rewarded_soup")
METHODS = {
    "paretohqd": {
        "select.k": 40,
        "train.stage1_steps": STEPS[0],
        "train.stage2_steps": STEPS[1],
        **WRITING,
    },
    "sft": {"draw.k": 40, "train.num_steps": sum(STEPS)},
    "best_of_n": {"train.num_steps": sum(STEPS), **WRITING},
    "sft_soup": {"select.k": 40, "train.num_steps": sum(STEPS)},
    "ric": {
        "ric.num_original": 200,
        "train.online_learning_rate": 1e-3,
        **WRITING,
    },
    **dict.fromkeys(ON_PAIRS, {"train.num_steps": sum(STEPS), **SMOOTHED}),
    "mopo": {"train.num_steps": sum(STEPS), "mopo.epsilon": 0.001},  # can be held on its rows
    **dict.fromkeys(
        REINFORCED,
        {
            "morlhf.num_updates": 20,
            "morlhf.num_prompts": 16,
            "morlhf.num_answers": 8,
            "generate.max_new_tokens": WRITING["generate.max_new_tokens"],
            "generate.batch_size": 640,  # all answers of five models
        },
    ),
    "sipo": {
        "train.num_steps": STEPS[0],
        **SMOOTHED,
        "sipo.num_steps": STEPS[1],
        "sipo.learning_rate": 5e-5,
        "sipo.refinement": "none",  # a model of syllables cannot review itself
        **WRITING,
        "generate.temperature": 0.0,  # as in the paper
    },
}
LEARNING_RATES = {**dict.fromkeys(ON_PAIRS, 1e-3), **dict.fromkeys(REINFORCED, 3e-3)}


def get_config(method_front_and_task="paretohqd,bulging"):
    method, _, rest = method_front_and_task.partition(",")
    front, *changes = (rest or "bulging").split(",")
    if method not in METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(METHODS)}")
    task = {"M": 2, "noise": 0.0, "rows": 1200, "seed": 0}
    for change in changes:
        name, _, value = change.partition("=")
        try:
            task[name] = type(task[name])(value)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{change!r}: write NAME=NUMBER with a name among {', '.join(task)}"
            ) from error
    return _config(method, exponent_of(front), **task)


def inner_preferences(num_objectives):
    """Evenly spread, none on the edge of the simplex: 0.1 to 0.9 in steps of 0.2 for two."""
    grid = preference_grid({2: 5, 3: 6}.get(num_objectives, num_objectives), num_objectives)
    grid = 1 + grid * {2: 8, 3: 4}.get(num_objectives, 2)
    rows = grid / grid.sum(axis=1, keepdims=True)
    return ";".join(",".join(f"{weight:.6g}" for weight in row) for row in rows)


def _config(method, exponent, M, noise, rows, seed):
    check_task(M, noise, rows, seed)
    names = [objective_name(number) for number in range(M)]
    config = default_config(method)
    config.update_from_flattened_dict(METHODS[method])
    if "preferences" in config:
        config.preferences = inner_preferences(M)
    if method == "ric":  # as much as the adapters of other methods together
        num_preferences = config.preferences.count(";") + 1
        config.train.offline_steps = num_preferences * STEPS[0]
        config.train.online_steps = num_preferences * STEPS[1]
        config.generate.num_prompts = (M + 1) * NUM_PROMPTS
    if method == "mopo" and M > 2:  # 1.1 times the data's level of two others cannot be held
        config.mopo.levels = "0.9;1.0"
    if method == "best_of_n":
        config.best_of_n.n = M + 1  # as many answers as the representatives of ParetoHqD give
    config.data.source = f"{TASK}:rows({M},{exponent},{noise},{rows},{seed})"
    config.data.scores = ",".join(f"{name}={name}" for name in names)
    config.data.prompt_format = PROMPT_FORMAT
    config.data.num_test_prompts = 40
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.rewards.models = tuple(
        f"{name}={TASK}:reward({number},{exponent})" for number, name in enumerate(names)
    )
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.dropout = 0.5 if method in ON_FEW_ROWS else 0.0
    config.lora.targets = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    )  # fmt: skip
    config.train.learning_rate = LEARNING_RATES.get(method, 1e-2)
    config.train.checkpoint_every = 1000  # a stage is over before it would be worth one
    config.evaluate.max_new_tokens = WRITING["generate.max_new_tokens"]
    config.evaluate.top_p = 1.0
    config.evaluate.batch_size = 120
    config.evaluate.truth = f"{TASK}:PowerFront({M},{exponent})"
    return config
