"""Studies of SIPO: how much conflict it wants, what its parts are worth, other objectives.

    paretohqd study studies/sipo:alpaca,parts --workdir runs/sipo_parts

After the colon stand the size, the tables to make, by default all, and what differs: seeds=3, and
of alpaca the data=alpaca_eval_scored.jsonl.gz. Sizes are alpaca (SmolLM2 on real pairs, see
configs/studies/sipo_alpaca.py), controlled (the task of configs/controlled.py, whose rewards are
exact, with its bulging front; half a minute a run) and toy (seconds a run, gibberish). Tables:

    conflict     pairs of which no, 30, 50, 60 or 90 % are in conflict, by SIPO, with its filter and
                 without, and by MOD alone, and a table for each share
    parts        without filter, reward models in place of implicit rewards as the filter, with
                 refinement, losers, soups and length as in the authors' code
    objectives   another pair of objectives; not of the controlled task

Each run's report says how far implicit rewards agree with the labels of held-out pairs.
"""

from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.plan import Row, Runs, Study, Table, split_argument

CONFLICT = ("0", "0.3", "0.5", "0.6", "0.9")
PARTS = {
    "sipo": (),
    "no filter": ("sipo.filter=none",),
    "filter by reward models": ("sipo.filter=rewards",),
    "refinement": ("sipo.refinement=review",),
    "models alone filter": ("sipo.soup_weights=",),
    "no likelihood": ("sipo.nll_weight=0",),
    "as the code": ("sipo.losers=both", "sipo.average=factors", "sipo.nll_length=padded"),
}
WITHOUT_REFINEMENT = tuple(part for part in PARTS if part != "refinement")  # of a toy
SIZES = {
    "alpaca": {
        "config": "studies/sipo_alpaca:{method}",
        "objectives": "rewards.models=('helpful=smollm2-helpful','positivity')",
        "parts": tuple(PARTS),
    },
    "controlled": {
        "config": "controlled:{method},bulging",
        "common": ("model.source={base}",),
        "parts": WITHOUT_REFINEMENT,
    },
    "toy": {
        "config": "toy:{method}",
        "common": ("rewards.models=('brief','configs.toy:variety')",),  # one may be good at both
        "objectives": "rewards.models=('configs.toy:variety','configs.toy:vowels')",
        "parts": WITHOUT_REFINEMENT,
    },
}
BASE = "paretohqd_jax.studies.controlled:write_base(2,1200,0)"


def get_study(argument="alpaca"):
    names, options = split_argument(argument, {"seeds": 3, "data": "alpaca_eval_scored.jsonl.gz"})
    size, *names = names or ["alpaca"]
    if size not in SIZES:
        raise InputError(f"{size!r} is not one of {', '.join(SIZES)}")
    tables = [name for name in MAKE if name != "objectives" or "objectives" in SIZES[size]]
    for name in names:
        if name not in tables:
            raise InputError(f"{name!r} is not one of {', '.join(tables)}")
    seeds = tuple(range(options["seeds"]))
    common = SIZES[size].get("common", (f"data.source={options['data']}",))
    found = [MAKE[name](SIZES[size], common, seeds) for name in names or tables]
    prepare = {"base": BASE} if size == "controlled" else {}
    runs, tables = (sum(parts, []) for parts in zip(*found, strict=True))
    return Study(runs, tables, prepare)


def _conflict(size, common, seeds):
    def pairs(name, share, method, begin_with, *overrides):
        config, overrides = size["config"].format(method=method), (*common, *overrides)
        return Runs(name, config, (f"pairs.conflict={share}", *overrides), seeds, begin_with)

    none, *shares = CONFLICT
    first = f"conflict.{none}"  # mod is all that is left; has scored the rows of all
    runs, tables = [pairs(first, none, "mod", first)], []
    rows = [Row("base model", first, "base"), Row(f"{none}, mod", first, "mod")]
    for share in shares:
        name = f"conflict.{share}"
        unfiltered = f"{name}.no_filter"  # goes on where no answer survives the filter
        runs.append(pairs(name, share, "sipo", first))
        runs.append(pairs(unfiltered, share, "sipo", name, "sipo.filter=none"))
        found = [("mod", unfiltered, "mod"), ("sipo", name), ("sipo, no filter", unfiltered)]
        rows += [Row(f"{share}, {label}", *where) for label, *where in found]
        tables.append(Table(f"conflict, {share}", [Row(*row) for row in found]))
    return runs, [Table("conflict", rows, "0.6, mod"), *tables]


def _parts(size, common, seeds):
    config = size["config"].format(method="sipo")
    names = {part: f"parts.{part.replace(' ', '_')}" for part in size["parts"]}
    first = names["sipo"]  # has trained the same DPO models
    runs = [
        Runs(name, config, (*common, *PARTS[part]), seeds, begin_with=first)
        for part, name in names.items()
    ]
    rows = [Row("base model", first, "base"), Row("mod", first, "mod")]
    rows += [Row(part, name) for part, name in names.items()]
    return runs, [Table("parts", rows, "mod")]


def _objectives(size, common, seeds):
    # An option that is given twice has the values of both.
    others = (option for option in common if not option.startswith("rewards.models="))
    overrides = (*others, size["objectives"])
    config, name = size["config"].format(method="sipo"), "objectives"
    run = Runs(name, config, overrides, seeds, begin_with=name)
    rows = [Row("base model", run.name, "base"), Row("mod", run.name, "mod"), Row("sipo", run.name)]
    return [run], [Table("objectives", rows, "mod")]


MAKE = {"conflict": _conflict, "parts": _parts, "objectives": _objectives}
