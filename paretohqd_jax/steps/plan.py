"""What a run would do: its steps, their sizes, memory and time; nothing is written or trained."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from paretohqd_jax.config import check_supply
from paretohqd_jax.data.batches import rounded_up, token_counts
from paretohqd_jax.manifest import read_manifest
from paretohqd_jax.pipeline import Output, Run
from paretohqd_jax.policies import BASE, Policy
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.costs import (
    UTILISATION,
    Cost,
    Speed,
    decoding_cost,
    measure_speed,
    training_cost,
)
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.steps.rows import data_options, num_training, split_rows
from paretohqd_jax.steps.stacks import members
from paretohqd_jax.steps.task import base_model, longest_response
from paretohqd_jax.training.memory import device_bytes


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """A step that a run would pass: its name, options, and why it has to run, None if done."""

    name: str
    options: dict[str, Any]
    reason: str | None


class Plan(Run):
    """A run that does nothing: it takes no lock, writes nothing and notes the steps it passes."""

    def __init__(self, workdir: Path) -> None:
        """Raises InputError for a manifest that is damaged."""
        self.workdir, self.made_by = workdir, {}
        self.steps: list[PlannedStep] = []
        self._manifest = read_manifest(workdir)

    def step(
        self,
        name: str,
        path: str,
        function: Callable[..., None],
        *inputs: Output,
        also: dict[str, Any] | None = None,
        all_processes: bool = False,
        **options: Any,
    ) -> Output:
        """Notes the step; arguments as of `Run.step`."""
        output, _ = self._output(name, path, inputs, options | (also or {}))
        self.steps.append(PlannedStep(name, options, self._reason(name, output)))
        return output


class Measures(NamedTuple):
    """Of the data: training rows and prompts, tokens of the longest row and the longest prompt."""

    num_rows: int
    num_prompts: int
    row_length: int
    prompt_length: int


def plan_text(config: ConfigDict, align: Callable[[ConfigDict, Run], object], workdir: Path) -> str:
    """The plan of a run as lines for the terminal.

    Args:
      config: checked options.
      align: of the method.
      workdir: the run directory, which need not exist.

    Raises:
      InputError: the data cannot be read, or are too few for a step.
    """
    plan = Plan(workdir)
    align(config, plan)
    if "evaluate" not in config:  # it aligns no language model
        return "\n".join(map(_step_line, plan.steps))
    base = base_model(config)
    data, speed = _measure_data(config, base), measure_speed(base.config.dtype)
    lines = [
        f"data: {data.num_rows} training rows of {data.num_prompts} prompts, and "
        f"{config.data.num_test_prompts} prompts held out; the longest row has {data.row_length} "
        f"tokens, the longest prompt {data.prompt_length}"
    ]
    seconds = 0.0
    for step in plan.steps:
        lines.append(_step_line(step))
        cost = _cost(step, plan, config, base, speed, data)
        if cost is not None:
            too_much = ", more than it has" if cost.memory > (device_bytes() or cost.memory) else ""
            memory = f"{cost.memory / 1e9:.2f} GB a device{too_much}"
            lines.append(f"{'':12} {memory}, {_time(cost.seconds)}")
            seconds += 0.0 if step.reason is None else cost.seconds
    return "\n".join([*lines, *_summary(seconds, speed)])


def _summary(seconds: float, speed: Speed) -> list[str]:
    held = device_bytes()
    has = f"{held / 1e9:.2f} GB" if held else "an unknown amount of memory"
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind} devices"
    return [
        f"{devices} of {has}; what is to do takes {_time(seconds)}",
        f"Time: the operations of training and decoding at {UTILISATION:.0%} of what a matrix "
        f"product reached here just now ({speed.operations / 1e12:.3g} TFLOP/s a device), for "
        "decoding at least the reading of the weights for every token "
        f"({speed.bytes_read / 1e9:.3g} GB/s). Rows are taken as long as the longest. Scoring, "
        "loading and compiling come on top. Expect a factor of three either way.",
    ]  # fmt: skip


def _step_line(step: PlannedStep) -> str:
    state = "done" if step.reason is None else "to do"
    return f"{step.name:<12} {state}: {', '.join(_sizes(step.options))}".rstrip(": ")


def _sizes(options: dict[str, Any]) -> Iterator[str]:
    """How much a step does, by the options it has."""
    if "adapter_names" in options:
        yield f"{len(options['adapter_names'])} adapters"
    if "num_steps" in options:
        yield f"{options['num_steps']} steps of {options['batch_size']} rows"
    if "k" in options:
        yield f"{options['k']} rows"
    if "preferences" in options:
        yield f"{len(options['preferences'])} preferences"
    if isinstance(options.get("policies"), list):
        yield f"{len(options['policies'])} models"
    if "num_prompts" in options:
        yield f"{options['num_prompts']} prompts at most"
    if "sampling" in options:
        yield f"answers of {options['sampling']['max_new_tokens']} tokens at most"
    if "models" in options:
        yield f"reward models {', '.join(options['models'])}"


def _measure_data(config: ConfigDict, base: BaseModel) -> Measures:
    table = split_rows(
        data_options(config), run_gates(config).columns, base, config.data.min_tokens,
        config.data.max_tokens, longest_response(config), config.data.num_test_prompts,
    )  # fmt: skip
    prompts, responses = token_counts(
        base.tokenizer, base.format(table["prompt"].to_pylist()), table["response"].to_pylist()
    )
    training = num_training(table)
    check_supply(config, *training)
    return Measures(*training, int((prompts + responses).max()), int(prompts.max()))


def _cost(
    step: PlannedStep, plan: Plan, config: ConfigDict, base: BaseModel, speed: Speed, data: Measures
) -> Cost | None:
    """Of a step that trains or decodes here; None of others."""
    if step.options.keys() & {"num_steps", "policy"}:
        written = any("sampling" in each.options for each in (*_before(step, plan), step))
        length = data.row_length
        if written:  # it trains on responses that models of the run gave
            length = data.prompt_length + config.generate.max_new_tokens
        training = training_cost(base, speed, step.options, rounded_up(length))
        if "policy" not in step.options:
            return training
        policy = step.options["policy"]  # it has them written between its steps
        num_answers = policy["num_updates"] * policy["num_prompts"] * policy["num_answers"]
        prompt_length = min(data.prompt_length, policy["max_prompt_tokens"])
        decoding = decoding_cost(
            base, speed, config.generate, len(step.options["adapter_names"]), num_answers,
            prompt_length,
        )  # fmt: skip
        memory = max(training.memory, decoding.memory)
        return Cost(memory, training.seconds + decoding.seconds)
    if "sampling" not in step.options or config.generate.engine != "jax":
        return None
    if "num_prompts" in step.options:
        group, answering = config.generate, step.options["policies"]
        num_prompts = min(step.options["num_prompts"], data.num_prompts)
    else:
        group, num_prompts = config.evaluate, config.data.num_test_prompts
        [policies] = [each for each in plan.steps if each.name == "policies"]
        answering = [dataclasses.asdict(BASE)]
        answering += itertools.chain.from_iterable(policies.options["families"].values())
    num_models = sum(len(members(Policy(**values))) for values in answering)
    return decoding_cost(base, speed, group, num_models, num_prompts, data.prompt_length)


def _before(step: PlannedStep, plan: Plan) -> list[PlannedStep]:
    return plan.steps[: plan.steps.index(step)]


def _time(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"
