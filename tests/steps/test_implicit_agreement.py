"""How far implicit rewards agree with the labels of held-out pairs, by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import write_table
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps import implicit_agreement
from paretohqd_jax.steps.base_model import BaseModel

PAIRS = {
    "prompt": ["p", "q", "r", "s"],
    "chosen": ["a b", "c", "d", "e"],
    "rejected": ["a", "c d", "d e", "e f"],
    "kind": [1, 1, 0, 1],
    "brief": [-1, 1, 1, -1],
    "long": [0, 0, 0, 1],
}
# Of the two responses to p, q and r, under the base model and those of kind, brief and long.
LOG_PROBS = np.array([[-9.0] * 6, [-8, -9, -8, -7, -9, -8], [-9, -5, -7, -9, -6, -9], [-9.0] * 6])


@pytest.mark.parametrize("splits", [["test"] * 3 + ["train"], ["train"] * 4])
def test_agreement_is_of_the_held_out_pairs_that_an_objective_decides(
    tmp_path, monkeypatch, splits
):
    write_table(tmp_path / "pairs.parquet", pa.table(PAIRS | {"split": splits}))
    stacked = {"b": np.zeros((3, 1))}
    monkeypatch.setattr(implicit_agreement, "load_adapters", lambda *_: stacked)
    monkeypatch.setattr(implicit_agreement, "checkpoint_meta", lambda *_: {})
    monkeypatch.setattr(
        implicit_agreement, "compute_log_probs",
        lambda base, adapters, tokens, *_: LOG_PROBS[: len(adapters), : len(tokens)],
    )  # fmt: skip
    implicit_agreement.write_agreement(
        tmp_path / "agreement.json", tmp_path, Output(tmp_path / "pairs.parquet", "", {}),
        Output(tmp_path / "dpo", "", {"adapter_names": list("abc")}),
        base=BaseModel("random:toy", "float32", "none", "{prompt}:", lora=None), batch_size=2,
        objectives=["kind", "brief", "long"], beta=0.5, per_prompt=3, seed=0,
    )  # fmt: skip
    found = json.loads((tmp_path / "agreement.json").read_text())
    if splits[0] == "train":
        assert found == {}
        return
    assert list(found) == ["brief", "kind"]
    # The better one less the worse one, times beta: kind 0.5 and -0.5, brief 2, 1 and 1.5.
    told = {
        name: (each["num_pairs"], each["accuracy"], each["margin"]) for name, each in found.items()
    }
    assert told == {"kind": (2, 0.5, 0.0), "brief": (3, 1.0, 1.5)}
    assert "num_prompts" not in found["kind"]
