"""A study of the methods on a task with a known answer: what each reaches of the true front.

    paretohqd study studies/controlled --workdir runs/controlled

Tables by front, noise and number of objectives, of five seeds. After a colon stand the tables to
make, as in `studies/controlled:bulging,hollow`, and the number of seeds, as in `:hollow,seeds=2`.
docs/results.md has what came out.
"""

from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.plan import Row, Runs, Study, Table

# Front, what differs from the task's defaults, and whether all methods are in the table.
TABLES = {
    "bulging": ("bulging", "", True),
    "hollow": ("hollow", "", True),
    "flat": ("flat", "", True),
    "bulging_noisy": ("bulging", ",noise=0.1", True),
    "hollow_noisy": ("hollow", ",noise=0.1", True),
    "flat_noisy": ("flat", ",noise=0.1", True),
    "bulging_3": ("bulging", ",M=3", False),
    "hollow_3": ("hollow", ",M=3", False),
    "bulging_5": ("bulging", ",M=5", False),
    "hollow_5": ("hollow", ",M=5", False),
}
RULES = ("ray", "weighted_sum", "chebyshev")
BASELINES = {
    "sft_random": ("sft", "draw.rule=random"),
    "sft_all": ("sft", "draw.rule=all"),
    "best_of_n": ("best_of_n", "best_of_n.n={n}"),
}
ROWS, DATA_SEED = 1200, 0


def get_study(argument=""):
    names = [part for part in argument.split(",") if part and "=" not in part] or list(TABLES)
    options = dict(part.split("=") for part in argument.split(",") if "=" in part)
    for name in names:
        if name not in TABLES:
            raise InputError(f"table {name!r} is not one of {', '.join(TABLES)}")
    seeds = tuple(range(int(options.get("seeds", 5))))
    runs, tables = [], []
    for name in names:
        ours, table = _table(name, seeds)
        runs += ours
        tables.append(table)
    sizes = sorted({_num_objectives(name) for name in names})
    write = "paretohqd_jax.studies.controlled:write_base"
    return Study(runs, tables, {f"base_{m}": f"{write}({m},{ROWS},{DATA_SEED})" for m in sizes})


def _num_objectives(table):
    return int(TABLES[table][1].partition("M=")[2] or 2)


def _table(name, seeds):
    front, changes, with_baselines = TABLES[name]
    num_objectives = _num_objectives(name)
    base = f"model.source={{base_{num_objectives}}}"

    def of(label, method, *overrides):
        config = f"controlled:{method},{front}{changes}"
        return Runs(f"{name}.{label}", config, (base, *overrides), seeds)

    runs = [of(rule, "paretohqd", f"select.rule={rule}") for rule in RULES]
    rows = [Row("base model", runs[0].name, "base")]
    if with_baselines:
        n = num_objectives + 1
        baselines = {
            label: of(label, method, override.format(n=n))
            for label, (method, override) in BASELINES.items()
        }
        runs += baselines.values()
        rows += [Row(label, run.name) for label, run in baselines.items()]
    for rule in RULES:
        rows += [Row(f"{rule}, stage 1", f"{name}.{rule}", "stage1"), Row(rule, f"{name}.{rule}")]
    return runs, Table(name, rows, against="ray")
