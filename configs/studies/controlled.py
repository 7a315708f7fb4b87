"""A study of the methods on a task with a known answer: what each reaches of the true front.

    paretohqd study studies/controlled --workdir runs/controlled

Tables by front, noise and number of objectives, of five seeds; those called "_field" have all other
methods beside ParetoHqD's rays. After a colon stand the tables to make, as in
`studies/controlled:bulging,hollow`, and the number of seeds, as in `:hollow,seeds=2`.
docs/results.md has what came out.
"""

from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.plan import Row, Runs, Study, Table, split_argument

FRONTS = ("bulging", "hollow", "flat")
RULES = {
    rule: ("paretohqd", f"select.rule={rule}") for rule in ("ray", "weighted_sum", "chebyshev")
}
BASELINES = {
    "sft_random": ("sft", "draw.rule=random"),
    "sft_all": ("sft", "draw.rule=all"),
    "best_of_n": ("best_of_n", "best_of_n.n=3"),  # as many answers as ParetoHqD generates
}
RAY = {"ray": RULES["ray"]}
FIELD = (
    "sft_soup", "dpo_soup", "mod", "dpo_lw", "modpo", "raco", "smooth_tchebycheff", "sipo", "mopo",
    "ric", "morlhf", "rewarded_soup",
)  # fmt: skip
FIELD = RAY | {method: (method,) for method in FIELD}
FIELD["sipo_no_filter"] = ("sipo", "sipo.filter=none")
# Front, what differs from the task's defaults, and the methods of the table.
TABLES = {
    **{front: (front, "", BASELINES | RULES) for front in FRONTS},
    **{f"{front}_noisy": (front, ",noise=0.1", BASELINES | RULES) for front in FRONTS},
    **{f"{front}_3": (front, ",M=3", RULES) for front in FRONTS[:2]},
    **{f"{front}_5": (front, ",M=5", RULES) for front in FRONTS[:2]},
    **{f"{front}_field": (front, "", FIELD) for front in FRONTS},
    **{f"{front}_3_field": (front, ",M=3", FIELD) for front in FRONTS[:2]},
}
ROWS, DATA_SEED = 1200, 0
# The base model, and the same one that reads scores in prompts as well.
WRITE_BASE = {"base": "write_base", "scores": "write_base_of_scores"}


def get_study(argument=""):
    names, options = split_argument(argument, {"seeds": 5})
    names = names or list(TABLES)
    for name in names:
        if name not in TABLES:
            raise InputError(f"table {name!r} is not one of {', '.join(TABLES)}")
    seeds = tuple(range(options["seeds"]))
    runs, tables = [], []
    for name in names:
        ours, table = _table(name, seeds)
        runs += [run for run in ours if run not in runs]
        tables.append(table)
    prepare = {
        f"{base}_{m}": f"paretohqd_jax.studies.controlled:{write}({m},{ROWS},{DATA_SEED})"
        for m in sorted({_num_objectives(name) for name in names})
        for base, write in WRITE_BASE.items()
        if any(f"{{{base}_{m}}}" in run.overrides[0] for run in runs)
    }
    return Study(runs, tables, prepare)


def _num_objectives(table):
    return int(TABLES[table][1].partition("M=")[2] or 2)


def _table(name, seeds):
    front, changes, methods = TABLES[name]
    task = name.removesuffix("_field")
    runs = {}
    for label, (method, *rest) in methods.items():
        base = "scores" if method == "ric" else "base"
        overrides = f"model.source={{{base}_{_num_objectives(name)}}}", *rest
        config = f"controlled:{method},{front}{changes}"
        runs[label] = Runs(f"{task}.{label}", config, overrides, seeds)
    rows = [Row("base model", runs["ray"].name, "base")]
    for label, (method, *_) in methods.items():
        if method == "paretohqd":
            rows.append(Row(f"{label}, stage 1", runs[label].name, "stage1"))
        rows.append(Row(label, runs[label].name))
    return list(runs.values()), Table(name, rows, against="ray")
