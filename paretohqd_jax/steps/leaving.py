"""The last steps of every method: its policies, what they answer, how good that is, a report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from paretohqd_jax.models.huggingface import CHAT_TEMPLATE
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.pareto.targets import Targets
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import FILE, Policies, Policy, read_policies, write_policies
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.cards import model_card
from paretohqd_jax.steps.evaluation import evaluate
from paretohqd_jax.steps.generation import respond
from paretohqd_jax.steps.report import report
from paretohqd_jax.steps.scoring import reference_rows, score_responses
from paretohqd_jax.steps.stacks import adapters_of, is_mixture
from paretohqd_jax.steps.task import Task

logger = logging.getLogger(__name__)
LAST_STEPS = ("policies", "respond", "judge", "reference", "evaluate", "export", "report")


def leave(
    task: Task,
    scored: Output,
    families: Mapping[str, Sequence[Policy]],
    stacks: Sequence[Output],
    selections: Sequence[Output] = (),
    pairs: Output | None = None,
    improvement: Sequence[Output] = (),
    targets: Targets | None = None,
) -> Path:
    """Leaves the policies of a method, measured on the held-out prompts; returns the report's path.

    Args:
      task: of the run.
      scored: the data.
      families: by name, in the order they came about.
      stacks: of adapters, that the policies' lie in.
      selections: of rows to train on, the first from `scored`, for the report to tell of.
      pairs: that were trained on, for the report to tell of.
      improvement: of pairs in conflict, and the agreement of the rewards that judged it, for the
        report to tell of.
      targets: where policies ask one model for scores, those of any preference.
    """
    policies = name_policies(task, families, stacks, targets)
    answers = respond(task, scored, policies)
    judged = score_responses(task, "judge", "evaluation/scores.parquet", answers)
    reference = reference_rows(task, scored)
    points = evaluate(task, policies, reference, judged)
    export(task, policies, points)
    page = report(task, policies, scored, reference, judged, points, selections, pairs, improvement)
    return page.path / "report.html"


def name_policies(
    task: Task,
    families: Mapping[str, Sequence[Policy]],
    stacks: Sequence[Output],
    targets: Targets | None = None,
) -> Output:
    """Writes policies.json, beside the stacks of adapters."""
    base = task.base
    policies = Policies(
        task.objectives,
        {
            "source": base.source, "dtype": base.dtype, "prompt_format": base.prompt_format,
            "date": base.date, "lora": dataclasses.asdict(base.lora),
        },
        {stack.path.name: stack.options["adapter_names"] for stack in stacks},
        {name: list(family) for name, family in families.items()},
        targets,
    )  # fmt: skip
    return task.run.step(
        "policies", FILE,
        lambda path, scratch, *stacks, **told: write_policies(path, policies),
        *stacks, **policies.to_dict(),
    )  # fmt: skip


def export(task: Task, policies: Output, points: Output) -> Output:
    """Writes the adapter of each policy of the last family in PEFT's format.

    With a card, and the chat template that writes prompts as they were trained.
    """
    work = partial(export_adapters, base=task.base, workdir=task.run.workdir)
    return task.run.step("export", "adapters", work, policies, points, also=task.network)


def export_adapters(
    path: Path,
    scratch: Path,
    policies: Output,
    points: Output,
    *,
    base: BaseModel,
    workdir: Path,
) -> None:
    """Writes one folder for each policy, by its label; none for those that mix logits."""
    run = read_policies(policies.path)
    mixtures = [policy.label for policy in run.served if is_mixture(policy)]
    if mixtures:
        logger.warning(
            "policies %s mix the next-token probabilities of several adapters while they answer, "
            "which no adapter does: they are not exported", ", ".join(mixtures),
        )  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)  # though there may be none
    single = [policy for policy in run.served if not is_mixture(policy)]
    adapters = adapters_of(single, run.stacks, workdir, base)
    for policy, (adapter, lora) in zip(single, adapters, strict=True):
        export_peft(path / policy.label, adapter, lora, base.config, base.source)
        card = model_card(workdir, run, policy, "peft")
        (path / policy.label / "README.md").write_text(card, "utf-8")
        template = policy.chat_template(base.chat.template)
        (path / policy.label / CHAT_TEMPLATE).write_text(template, "utf-8")
