"""How much work `device.py` gives the programs it measures."""

from __future__ import annotations

from argparse import Namespace
from typing import NamedTuple

import budget


class Sizes(NamedTuple):
    """How much work there is at a shape."""

    rank: int
    rows: int  # of each adapter and training step
    length: int
    stacks: tuple[int, int, int]  # adapters trained together
    prompts: tuple[int, ...]  # for each of three adapters
    prompt: int  # tokens
    new_tokens: int
    scorer: str  # of score.py
    scored: int
    batches: tuple[int, int]  # ours and that of transformers
    candidates: tuple[int, ...]  # rows in Pareto's order
    objectives: tuple[int, ...]
    product: int  # side of a square matrix product
    copied: int  # numbers in an array to copy
    rounds: int
    tests: tuple[str, ...]


SIZES = {
    "toy": Sizes(
        2, 2, 16, (1, 2, 3), (2,), 8, 4, "toy", 16, (4, 4), (20_000,), (2,), 512, 2**22, 1,
        ("tests/pareto/test_preference.py",),
    ),
    "llama2-7b": Sizes(
        64, 8, 512, (1, 4, 11), (24, 80), 128, 128, "gpt2-large", 4096, (128, 128), (10**6, 10**7),
        (2, 3), 8192, 2**30, 3,
        ("tests/pareto", "tests/models", "tests/training", "tests/sampling"),
    ),
}  # fmt: skip


def budget_options(shape: str) -> Namespace:
    """The options that the stages of `budget.projection` are measured with."""
    sizes = SIZES[shape]
    return budget.parse(
        [
            *(f"--shape={shape}", f"--rank={sizes.rank}", f"--adapters={sizes.stacks[1]}"),
            *(f"--rows={sizes.rows}", f"--length={sizes.length}", "--remat=full"),
            *(f"--new_tokens={sizes.new_tokens}", f"--rounds={sizes.rounds}"),
        ]
    )
