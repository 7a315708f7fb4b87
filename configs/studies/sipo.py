"""Studies of SIPO: how much conflict it wants, what its parts are worth, other objectives.

    paretohqd study studies/sipo:alpaca,parts --workdir runs/sipo_parts

After the colon stand the size, alpaca (SmolLM2 on real pairs, see configs/studies/sipo_alpaca.py)
or toy (seconds a run, gibberish), the tables to make, by default all, and what differs: seeds=3,
and of alpaca the data=alpaca_eval_scored.jsonl.gz. Tables:

    conflict     pairs of which no, 30, 50, 60 or 90 % are in conflict, by SIPO and by MOD alone
    parts        without filter, reward models in place of implicit rewards as the filter, with
                 refinement, losers, soups and length as in the authors' code
    objectives   another pair of objectives

Each run's report says how far implicit rewards agree with the labels of held-out pairs.
"""

from dataclasses import replace

from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.plan import Row, Runs, Study, Table, split_argument

SIZES = {
    "alpaca": {
        "config": "studies/sipo_alpaca",
        "objectives": "rewards.models=('helpful=smollm2-helpful','positivity')",
    },
    "toy": {
        "config": "toy",
        "objectives": "rewards.models=('configs.toy:variety','configs.toy:vowels')",
    },
}
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
NAMES = ("conflict", "parts", "objectives")


def get_study(argument="alpaca"):
    names, options = split_argument(argument, {"seeds": 3, "data": "alpaca_eval_scored.jsonl.gz"})
    size, *names = names or ["alpaca"]
    names = names or NAMES
    for name, known in ((size, SIZES), *((name, NAMES) for name in names)):
        if name not in known:
            raise InputError(f"{name!r} is not one of {', '.join(known)}")
    seeds = tuple(range(options["seeds"]))
    common = ("rewards.models=('brief','configs.toy:variety')",)  # gibberish may be good at both
    if size == "alpaca":
        common = (f"data.source={options['data']}",)
    found = [MAKE[name](size, common, seeds) for name in names]
    return Study([run for runs, _ in found for run in runs], [table for _, table in found])


def _conflict(size, common, seeds):
    config = SIZES[size]["config"]
    runs, rows = [], []
    for share in CONFLICT:
        method = "sipo" if float(share) else "mod"  # where nothing is in conflict, all that is left
        name = f"conflict.{share}"
        overrides = (*common, f"pairs.conflict={share}")
        first = f"conflict.{CONFLICT[0]}"  # has scored the same rows
        runs.append(Runs(name, f"{config}:{method}", overrides, seeds, begin_with=first))
        rows.append(Row(f"{share}, mod", name, "mod"))
        if method == "sipo":
            rows.append(Row(f"{share}, sipo", name))
    return runs, Table("conflict", [Row("base model", runs[0].name, "base"), *rows], "0.6, mod")


def _parts(size, common, seeds):
    config = f"{SIZES[size]['config']}:sipo"
    names = {part: f"parts.{part.replace(' ', '_')}" for part in PARTS}
    whole = Runs(names["sipo"], config, common, seeds, begin_with=names["sipo"])
    runs = [
        replace(whole, name=names[part], overrides=(*common, *overrides), begin_with=whole.name)
        for part, overrides in PARTS.items()
        if overrides
    ]
    runs = [whole, *runs]
    rows = [Row("base model", runs[0].name, "base"), Row("mod", runs[0].name, "mod")]
    rows += [Row(part, names[part]) for part in PARTS]
    return runs, Table("parts", rows, "mod")


def _objectives(size, common, seeds):
    overrides = (*common, SIZES[size]["objectives"])
    run = Runs("objectives", f"{SIZES[size]['config']}:sipo", overrides, seeds)
    rows = [Row("base model", run.name, "base"), Row("mod", run.name, "mod"), Row("sipo", run.name)]
    return [run], Table("objectives", rows, "mod")


MAKE = {"conflict": _conflict, "parts": _parts, "objectives": _objectives}
