"""MOPO's strength and patience: tau in {0.1, 0.5, 1} by beta in {0.95, 0.99, 0.999, 0.9999}.

    paretohqd study studies/mopo_sweep --workdir runs/mopo_sweep

A table for each tau, a row for each beta: the front of the models that maximise one objective each
and hold the other, on the controlled task, whose true front is known. Thresholds are adaptive, with
a reference every quarter of the run. After a colon stand the front, "seeds" and "steps", as in
`studies/mopo_sweep:hollow,seeds=3,steps=180`. constraints_TABLE.png has the constraints' curves.
"""

from paretohqd_jax.studies.plan import Row, Runs, Study, Table, split_argument

TAUS = (0.1, 0.5, 1.0)
BETAS = (0.95, 0.99, 0.999, 0.9999)
BASE = "paretohqd_jax.studies.controlled:write_base(2,1200,0)"


def get_study(argument=""):
    names, options = split_argument(argument, {"seeds": 1, "steps": 180})
    front = ",".join(names) or "bulging"
    steps = options["steps"]
    runs, tables = [], []
    for tau in TAUS:
        cells = [
            Runs(
                f"tau{tau:g}.beta{beta:g}",
                f"controlled:mopo,{front}",
                (
                    "model.source={base}", "mopo.thresholds=adaptive", f"mopo.levels={beta}",
                    f"mopo.tau={tau}", f"mopo.refresh_every={-(-steps // 4)}",
                    f"train.num_steps={steps}",
                ),
                tuple(range(options["seeds"])),
            )
            for beta in BETAS
        ]  # fmt: skip
        runs += cells
        rows = [Row("base model", cells[0].name, "base")]
        rows += [Row(f"beta {beta:g}", cell.name) for beta, cell in zip(BETAS, cells, strict=True)]
        tables.append(Table(f"tau {tau:g}", rows, against=f"beta {BETAS[-1]:g}"))
    return Study(runs, tables, {"base": BASE})
