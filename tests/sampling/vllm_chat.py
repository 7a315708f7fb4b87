"""Greedy answers of a merged checkpoint, asked by its chat template; runs where vLLM is."""

import json
import os
import sys

os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"  # standard output is for the answers

from vllm import LLM, SamplingParams  # noqa: E402


def main(model: str, max_tokens: int, questions: list[str]) -> None:
    engine = LLM(model, dtype="float32", enforce_eager=True, max_model_len=256)
    outputs = engine.chat(
        [[{"role": "user", "content": question}] for question in questions],
        SamplingParams(temperature=0.0, max_tokens=max_tokens),
    )
    answers = [(list(o.prompt_token_ids), o.outputs[0].text.strip()) for o in outputs]
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
