"""Run directories as finished runs leave them, with made-up answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.rows import write_table
from paretohqd_jax.files import write_json
from paretohqd_jax.manifest import LAYOUT
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import (
    Policies,
    one_adapter_each,
    preference_labels,
    write_policies,
)
from paretohqd_jax.steps.evaluation import measure_policies

OBJECTIVES = ["helpful", "brief"]
PREFERENCES = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]


def finished_run(workdir, gain=0.0, prompts=range(10), preferences=PREFERENCES, seed=0):
    """A run whose stage 2 is better by 1 and by `gain` on both objectives."""
    random = np.random.default_rng(seed)
    stages = ("stage1", "stage2")
    families = {stage: one_adapter_each(stage, np.array(preferences)) for stage in stages}
    labels = preference_labels(np.array(preferences))
    told = {"source": "random:toy", "dtype": "float32", "prompt_format": "", "date": "", "lora": {}}
    policies = Policies(OBJECTIVES, told, dict.fromkeys(stages, labels), families)
    write_policies(workdir / "policies.json", policies)
    strengths = {"": 0.0, "stage1": 0.0, "stage2": 1 + gain}
    answers = [
        {"family": family, "policy": policy.label, "prompt": f"prompt {prompt}",
         "response": f"answer of {policy.label}", "num_tokens": 7, "truncated": family == "",
         "collapsed": "",
         "helpful": rewards[0], "brief": rewards[1]}
        for family, policy in policies.every()
        for prompt in prompts
        for rewards in [
            strengths[family] + np.array(policy.preference or (0, 0)) + 0.1 * random.normal(size=2)
        ]
    ]  # fmt: skip
    rows = {"prompt": ["p"] * 4, "response": ["r"] * 4, "split": ["train"] * 3 + ["test"],
            "helpful": [0.0, 1.0, 2.0, 99.0], "brief": [2.0, 1.0, 0.0, 99.0]}  # fmt: skip
    write_table(workdir / "scores.parquet", pa.table(rows))
    write_table(workdir / "evaluation/scores.parquet", pa.Table.from_pylist(answers))
    config = {"rewards": {"models": OBJECTIVES}, "evaluate": {"temperature": 1.0, "batch_size": 2},
              "seed": seed, "select": {"rule": "ray"}}  # fmt: skip
    write_json(workdir / "config.json", config)
    names = ("policies.json", "scores.parquet", "evaluation/scores.parquet")
    outputs = [Output(workdir / name, "", {}) for name in names]
    measure_policies(
        workdir / "evaluation/points.json", workdir, *outputs, objectives=OBJECTIVES, engine="jax"
    )
    step = {"inputs": [], "options": {}, "seconds": 1800.0, "cost": {}, "num_devices": 4,
            "device": "TPU v9"}  # fmt: skip
    steps = {name: step | {"fingerprint": name} for name in ("stage2", "evaluate")}
    steps["evaluate"] |= {"inputs": ["stage2"], "seconds": 0.0}
    steps["other"] = step | {"fingerprint": "of a method that ran there before", "device": "CPU"}
    write_json(workdir / "manifest.json", {"layout": LAYOUT, "steps": steps})
    return workdir
