"""The accelerator's path gives the CPU's results, and the CPU's loops stay compiled."""

from __future__ import annotations

import math
import re

import jax
import numpy as np
import pytest
from jax import lax

from paretohqd_jax.pareto import non_dominated_mask, non_dominated_rank, pool_layers, tiles
from paretohqd_jax.pareto.divide import front_of_three, ranks_of_three
from paretohqd_jax.pareto.order import order_keys
from paretohqd_jax.pareto.patience import ranks_of_two
from paretohqd_jax.pareto.sweep import staircase_gains

pytestmark = pytest.mark.cpu


@pytest.fixture
def accelerator_path(monkeypatch):
    """Every choice by platform takes the branch for platforms other than CPU."""
    jax.clear_caches()
    monkeypatch.setattr(
        lax, "platform_dependent", lambda *operands, default, **_: default(*operands)
    )
    yield
    jax.clear_caches()


def everything(num_objectives, num_rows=2100):
    rewards = np.random.default_rng(num_objectives).normal(size=(num_rows, num_objectives))
    rewards[: num_rows // 2] = np.round(rewards[: num_rows // 2], 1)
    ranks = non_dominated_rank(rewards)
    return rewards, ranks, non_dominated_mask(rewards), pool_layers(rewards, 100)


@pytest.mark.parametrize("num_objectives", [2, 3, 4])
def test_accelerator_path_agrees(num_objectives, request):
    rewards, *expected = everything(num_objectives)
    request.getfixturevalue("accelerator_path")
    _, *forced = everything(num_objectives)
    for here, there in zip(expected, forced, strict=True):
        np.testing.assert_array_equal(here, there)
    hlo = jax.jit(lambda r: non_dominated_rank(r, validate=False)).lower(rewards).as_text()
    assert "tensor<256x256xi1>" in hlo  # whole tiles at once: the path was indeed forced


def test_large_slabs_of_tiles_agree(monkeypatch):
    """Slabs of four by four tiles, which serve many rows, on few."""
    keys = np.random.default_rng(7).integers(0, 60, (5000, 4)).astype(np.int32)
    expected = jax.jit(tiles.ranks_by_tiles)(keys)
    monkeypatch.setattr(tiles, "MANY", 0)
    text = jax.jit(lambda keys: tiles.ranks_by_tiles(keys)).lower(keys).as_text()
    assert "8192" in text  # rows padded to two slabs of 16 tiles
    np.testing.assert_array_equal(jax.jit(lambda keys: tiles.ranks_by_tiles(keys))(keys), expected)


@pytest.mark.parametrize(
    "kernel, num_columns",
    [(ranks_of_two, 2), (ranks_of_three, 3), (front_of_three, 3), ("staircase", 2)],
)
def test_sequential_loops_compile_to_native_code_without_copies(kernel, num_columns):
    """XLA hoists a small loop into one native call; a read that it fuses past a write of the same
    array would copy the array in every step instead, a thousand times slower."""
    num_rows = 5003

    def run(rewards):
        if kernel == "staircase":
            return staircase_gains(*rewards.T)
        return kernel(order_keys(rewards))

    text = jax.jit(run).lower(np.zeros((num_rows, num_columns), np.float32)).compile().as_text()
    computations = dict(re.findall(r"^([%\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))
    native = re.findall(r"to_apply=([%\w.\-]+).*xla_cpu_small_call", text)
    reached = set(native)
    while native:
        body = computations[native.pop()]
        inner = set(re.findall(r"(?:body|calls|to_apply)=([%\w.\-]+)", body)) - reached
        reached |= inner
        native.extend(inner)
    loops = reached & set(re.findall(r"body=([%\w.\-]+)", text))
    assert len(loops) >= 2  # one within another
    for loop in loops:
        for shape in re.findall(r"= \w+\[([\d,]+)\]\S* copy(?:-start)?\(", computations[loop]):
            assert math.prod(map(int, shape.split(","))) < num_rows
