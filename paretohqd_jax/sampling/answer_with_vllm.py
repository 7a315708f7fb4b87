"""Answers the requests beside this file with vLLM; needs vLLM and nothing of paretohqd_jax.

Written next to requests.jsonl and adapters/, of which each line of the first names one. Leaves
answers.jsonl, in the format of OpenAI's batch results. Adapters take turns, so that the engine
holds one at a time; what a killed run has answered is not asked again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any

ROWS_AT_ONCE = 4096  # answers are on disk after each so many


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-lora-rank", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    parser.add_argument("--enforce-eager", action="store_true", help="compile nothing")
    options = vars(parser.parse_args())

    requests = [json.loads(line) for line in (here / "requests.jsonl").open(encoding="utf-8")]
    unfinished = here / "answers.partial.jsonl"
    done = whole_lines(unfinished)
    requests = [request for request in requests if request["custom_id"] not in done]

    from vllm import LLM
    from vllm.lora.request import LoRARequest

    engine = LLM(enable_lora=True, max_loras=1, **options)
    with unfinished.open("a", encoding="utf-8") as file:
        by_adapter = itertools.groupby(requests, lambda request: request["body"]["model"])
        for number, (adapter, group) in enumerate(by_adapter, 1):
            lora = LoRARequest(adapter, number, str(here / "adapters" / adapter))
            rows = list(group)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                for line in answers(engine, lora, rows[start : start + ROWS_AT_ONCE]):
                    file.write(json.dumps(line) + "\n")
                file.flush()
    os.replace(unfinished, here / "answers.jsonl")
    print(f"{here / 'answers.jsonl'} is complete; run the command of the run again")


def answers(engine: Any, lora: Any, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each request, all of one adapter."""
    from vllm import SamplingParams

    passed_on = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop_token_ids")
    bodies = [request["body"] for request in requests]
    outputs = engine.generate(
        [{"prompt_token_ids": body["prompt"]} for body in bodies],
        [SamplingParams(**{name: body[name] for name in passed_on}) for body in bodies],
        lora_request=lora,
    )
    lines = []
    for request, output in zip(requests, outputs, strict=True):
        answer = output.outputs[0]
        body = {
            "model": request["body"]["model"],
            "choices": [{"index": 0, "text": answer.text, "finish_reason": answer.finish_reason}],
            "usage": {"completion_tokens": len(answer.token_ids)},
        }
        response = {"status_code": 200, "body": body}
        lines.append({"custom_id": request["custom_id"], "response": response, "error": None})
    return lines


def whole_lines(path: Path) -> set[str]:
    """The ids answered by a run that was killed; a line it left unfinished is cut off."""
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("".join(line + "\n" for line in lines[:-1]), encoding="utf-8")
    return {json.loads(line)["custom_id"] for line in lines[:-1]}


if __name__ == "__main__":
    main()
