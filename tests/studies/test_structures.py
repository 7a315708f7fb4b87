from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.config.structure_study import STRUCTURES
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console
from paretohqd_jax.studies.structures import preference_probabilities


@pytest.mark.parametrize("structure", STRUCTURES)
def test_probabilities_of_a_pair_sum_to_1(structure):
    probabilities = np.asarray(preference_probabilities(structure, 3, 6))
    np.testing.assert_array_equal(probabilities + probabilities.swapaxes(1, 2), 1)
    first, others = probabilities[0], probabilities[1:]
    if structure == "total_order":
        assert (others == first).all()
    elif structure == "antichain":
        assert (others == 1 - first).all()
    else:
        assert not (others == first).all() and not (others == 1 - first).all()
    if structure == "cyclic":  # all win alike, as often as they lose
        np.testing.assert_array_equal(others.mean(axis=2), 0.5)


def run(workdir, *flags):
    config = "studies/mopo_structures"
    console(["paretohqd", f"--config={config}", f"--workdir={workdir}", *flags])


def test_trained_policies_are_the_optimal_ones(tmp_path):
    run(
        tmp_path, "--config.num_objectives=(2,)", "--config.num_thresholds=3",
        "--config.structures=('total_order','antichain')",
    )  # fmt: skip
    rows = read_table(tmp_path / "study" / "table.csv").to_pylist()
    assert len(rows) == 2 * 3 * 2
    assert max(row["error"] for row in rows) < 1e-3
    assert max(row["violation"] for row in rows) < 1e-3
    front = [
        [
            row["optimum"]
            for row in rows
            if (row["structure"], row["objective"]) == ("antichain", name)
        ]
        for name in ("primary", "secondary 1")
    ]
    assert front[0] == sorted(front[0], reverse=True) and front[1] == sorted(front[1])
    assert "| antichain | 2 |" in (tmp_path / "study" / "table.md").read_text()
    assert (tmp_path / "study" / "front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_so_they_are_in_every_structure_of_two_and_three_objectives(tmp_path):
    run(tmp_path)
    rows = read_table(tmp_path / "study" / "table.csv").to_pylist()
    fronts = {(row["structure"], row["num_objectives"]) for row in rows}
    assert fronts == {(structure, number) for structure in STRUCTURES for number in (2, 3)}
    assert max(row["error"] for row in rows) < 1e-3
    assert max(row["violation"] for row in rows) < 1e-3


def test_options_that_are_not_valid_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--config.structures=('chain',)")
    assert "config.structures=('chain',) is not valid; use some of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--config.mopo.epsilon=0.0")
    assert "config.mopo.epsilon=0.0 is not valid; use above 0" in capsys.readouterr().err
