from __future__ import annotations

import pyarrow as pa

from paretohqd_jax.data.conversations import as_conversation
from paretohqd_jax.policies import Policies, Policy
from paretohqd_jax.steps.report import _samples


def test_readers_see_transcripts_of_conversations():
    turns = [("system", "Be kind."), ("user", "hi"), ("assistant", "ho"), ("user", "he")]
    asked = [{"role": role, "content": content} for role, content in turns]
    prompts = [as_conversation(asked), as_conversation(asked[1:2]), "plain"]
    run = Policies(["a"], {}, {}, {"sft": [Policy("sft")]})
    answers = pa.Table.from_pylist(
        [
            {"family": family, "policy": policy.label, "prompt": prompt, "response": "r",
             "collapsed": "", "a": 0.0}
            for family, policy in run.every()
            for prompt in prompts
        ]
    )  # fmt: skip
    shown = [sample.prompt for sample in _samples(run, answers, ["a"])]
    assert shown == ["Be kind.\n\nHuman: hi\n\nAssistant: ho\n\nHuman: he", "hi", "plain"]
