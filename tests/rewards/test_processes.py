"""Two processes share the work of a reward model; functions run in the first alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from jobs import run_together
from safetensors.numpy import load_file

from paretohqd_jax.rewards.scoring import score

pytestmark = pytest.mark.slow
PROMPTS, RESPONSES = ["a", "bb", "why", "so", "so"], ["x", "it is", "no", "and so on", "y"]
PROGRAM = """
import json
from pathlib import Path
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.rewards import scoring
from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

def alone(prompts, responses):
    assert me == 0
    return [len(response) for response in responses]

scoring.SCORERS["alone"] = alone
with sharded(make_mesh(), DECODING_RULES):
    rewards = score(*{texts!r}, {models!r} + ["alone"], batch_size=1, store=Path({store!r}))
print(json.dumps(rewards.tolist()))
"""


def test_two_processes_give_the_rewards_of_one(gpt2, tmp_path):
    models = [f"helpful@{gpt2}"]
    program = PROGRAM.format(texts=(PROMPTS, RESPONSES), models=models, store=str(tmp_path))
    ends = run_together(program)
    assert [end.status for end in ends] == [0, 0], ends
    first, second = (np.array(json.loads(end.out.splitlines()[-1])) for end in ends)
    np.testing.assert_array_equal(first, second)
    expected = score(PROMPTS, RESPONSES, models)[:, 0]
    np.testing.assert_allclose(first[:, 0], expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(first[:, 1], [len(response) for response in RESPONSES])
    [file] = tmp_path.rglob("*.safetensors")  # of the function there is no program to tell it by
    assert load_file(file)["rewards"].size == len(RESPONSES)
