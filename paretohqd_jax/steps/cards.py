"""Model cards in Hugging Face's format: what a model is, from what a run directory says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretohqd_jax.data.hub import is_hub_name
from paretohqd_jax.policies import Policies, Policy

MEASURES = Path("evaluation") / "points.json"
ASKED = {  # how users of a library ask in the prompt format
    "peft": "Ask in the prompt format that was trained, which chat_template.jinja here writes: "
    "`tokenizer.apply_chat_template(messages, chat_template=TEXT, add_generation_prompt=True)` "
    "with the base model's tokenizer and the text of that file.",
    "transformers": "`tokenizer.apply_chat_template(messages, add_generation_prompt=True)` writes "
    "the prompt format that was trained.",
}


def model_card(workdir: Path, run: Policies, policy: Policy, library: str) -> str:
    """The README.md of a policy's adapter or merged model.

    Args:
      workdir: the run directory; where it has measures of the policy, they are told.
      run: its policies.
      policy: one of them, or a mixture.
      library: that loads the files, "peft" or "transformers".
    """
    config = json.loads((workdir / "config.json").read_text())
    method, base = config.get("method", ""), run.base["source"]
    head: dict[str, Any] = {"library_name": library, "tags": ["paretohqd_jax", method]}
    if is_hub_name(base):  # a path of this machine says nothing elsewhere
        head["base_model"] = base
    preference = "none"
    if policy.preference is not None:
        pairs = zip(run.objectives, policy.preference, strict=True)
        preference = ", ".join(f"{name} {weight:.4g}" for name, weight in pairs)
    facts = {
        "base model": base,
        "method": method,
        "objectives": ", ".join(config.get("rewards", {}).get("models", run.objectives)),
        "preference": preference,
        "adapters": ", ".join(policy.adapters),
        "prompt format": _quoted(run.base["prompt_format"]),
        "data": config.get("data", {}).get("source", ""),
    }
    if policy.prompt is not None:
        facts["asked in words of its own, the user's at {prompt}"] = _quoted(policy.prompt)
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---", ""]
    lines += [f"# {policy.label}", "", *(f"* {name}: {value}" for name, value in facts.items())]
    lines += [
        "",
        "## Prompts",
        "",
        ASKED[library],
        "",
        "## Measures",
        "",
        *_measures(workdir, policy),
        "",
        "## Licence",
        "",
    ]
    lines += [
        "That of the base model holds for what is derived from it, and those of the data and the "
        "reward models may bind too; this card grants none."
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text in one line."""
    return json.dumps(text, ensure_ascii=False)


def _measures(workdir: Path, policy: Policy) -> list[str]:
    """Mean rewards of the policy in the last family that has it, with their intervals."""
    path = workdir / MEASURES
    points: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for front in reversed(list(points.get("fronts", {}).values())):
        for model in front["models"]:
            if model["label"] == policy.label:
                cells = zip(
                    points["objectives"], model["mean_rewards"], *model["interval"], strict=True
                )
                return [
                    f"Mean rewards on {points['num_prompts']} held-out prompts, 95 % intervals:",
                    "",
                    *(f"* {name}: {mean:.4g} [{low:.4g}, {high:.4g}]"
                      for name, mean, low, high in cells),
                ]  # fmt: skip
    return ["None: this model was not measured itself."]
