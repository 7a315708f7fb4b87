"""The reward models that come with the package: which way is up, and what their cards say."""

from __future__ import annotations

import dataclasses
import json

import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.rewards.loading import check_reward_model
from paretohqd_jax.rewards.registry import ASSETS, CARD, find_entry
from paretohqd_jax.rewards.scoring import score

PAIRS = {
    "smollm2-helpful": [
        (
            "How do I get a red wine stain out of a cotton shirt?",
            "Blot the stain with a clean cloth, then soak the shirt in cold water with a little "
            "dish soap and white vinegar for 30 minutes. Rinse it, and wash it as usual. Do not "
            "put it in the dryer before the stain is gone, since heat sets it.",
            "I do not know. Shirts can have stains and stains are bad.",
        ),
        (
            "Write a short poem about the sea.",
            "The sea breathes in, the sea breathes out,\nIt hums of storms and days of calm;\n"
            "It turns the stones and wears them smooth,\nAnd lays its silver in my palm.",
            "sea sea sea sea sea",
        ),
        (
            "Give me three tips for sleeping better.",
            "1. **Keep regular hours.** Sleep and get up at the same time every day.\n"
            "2. **Dim the light.** Screens keep you from sleeping.\n"
            "3. **Cool the room.** Most people sleep better at about 18 °C.",
            "Sleep is important for health and people should sleep.",
        ),
        (  # the word in common has other tokens at the beginning of a sentence
            "What is compost?",
            "Compost is a nutrient-rich soil amendment.",
            "Breakfast is the first meal of the day.",
        ),
    ],
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_better_response_has_the_larger_reward(name):
    prompts = [prompt for prompt, _, _ in PAIRS[name] for _ in range(2)]
    responses = [response for _, *both in PAIRS[name] for response in both]
    better, worse = score(prompts, responses, [name]).reshape(-1, 2).T
    assert (better > worse).all(), (better, worse)


def test_its_card_tells_what_the_model_is_worth():
    directory = ASSETS / "smollm2-helpful"
    card = json.loads((directory / CARD).read_text())
    for metrics in (card["metrics"], card["validation"]):
        assert metrics["accuracy"] >= 0.70
        assert metrics["accuracy_same_length"] > max(metrics["longer_same_length"], 0.5)
    for robustness in (card["robustness"], card["validation"]["robustness"]):
        assert {found["verdict"] for found in robustness.values()} == {"sound"}, robustness
    assert card["sign"] == 1 and card["licence"].startswith("research") and card["data"]["about"]
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 2_000_000


def test_an_adapter_of_another_base_is_refused_before_any_weights_are_read():
    entry = find_entry("smollm2-helpful")
    check_reward_model("smollm2-helpful", entry)
    other = dataclasses.replace(entry, checkpoint="tests/models/golden/tied")
    with pytest.raises(InputError, match="has 2 layers, not 15"):
        check_reward_model("other", other)
    gone = dataclasses.replace(entry, adapter="nowhere.safetensors")
    with pytest.raises(InputError, match=r"nowhere.safetensors: no adapter of a reward model"):
        check_reward_model("gone", gone)
