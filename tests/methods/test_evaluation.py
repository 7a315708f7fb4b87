from __future__ import annotations

import pyarrow as pa

from paretohqd_jax.data.conversations import as_conversation
from paretohqd_jax.methods.evaluation import STAGES, _samples


def test_readers_see_transcripts_of_conversations():
    turns = [("system", "Be kind."), ("user", "hi"), ("assistant", "ho"), ("user", "he")]
    asked = [{"role": role, "content": content} for role, content in turns]
    prompts = [as_conversation(asked), as_conversation(asked[1:2]), "plain"]
    num_models = 1 + len(STAGES)
    answers = pa.table(
        {
            "adapter": [model for model in range(num_models) for _ in prompts],
            "prompt": prompts * num_models,
            "response": ["r"] * (3 * num_models),
            "collapsed": [""] * (3 * num_models),
            "a": [0.0] * (3 * num_models),
        }
    )
    shown = [sample.prompt for sample in _samples(answers, ["a"], 1)]
    assert shown == ["Be kind.\n\nHuman: hi\n\nAssistant: ho\n\nHuman: he", "hi", "plain"]
