"""MOPO with a lagged reference against a static one: t0 of 100 steps, and of the whole run.

    paretohqd study studies/mopo_lagged --workdir runs/mopo_lagged

On the controlled task, whose true front is known; thresholds are adaptive. After a colon stand the
front, "seeds" and "steps", as in `studies/mopo_lagged:hollow,seeds=3,steps=400`; the lag is a
quarter of the steps. constraints_reference.png has the trajectories of both: win rates of the
objectives, multipliers, bounds and thresholds, chi, effective sample size and KL.
"""

from paretohqd_jax.studies.plan import Row, Runs, Study, Table, split_argument

BASE = "paretohqd_jax.studies.controlled:write_base(2,1200,0)"


def get_study(argument=""):
    names, options = split_argument(argument, {"seeds": 1, "steps": 400})
    front = ",".join(names) or "bulging"
    steps = options["steps"]
    runs = [
        Runs(
            name,
            f"controlled:mopo,{front}",
            (
                "model.source={base}", "mopo.thresholds=adaptive", "mopo.levels=0.9;0.99",
                f"mopo.refresh_every={every}", f"train.num_steps={steps}",
            ),
            tuple(range(options["seeds"])),
        )
        for name, every in (("static", steps), ("lagged", -(-steps // 4)))
    ]  # fmt: skip
    rows = [Row("base model", "static", "base"), Row("static", "static"), Row("lagged", "lagged")]
    return Study(runs, [Table("reference", rows, against="static")], {"base": BASE})
