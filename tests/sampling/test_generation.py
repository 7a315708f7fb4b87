"""The table of responses, its independence of batches, and going on after a kill."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.tokenizer import eos_token_ids, load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY, load_pretrained
from paretohqd_jax.sampling import generation, schedule
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.generation import (
    encode_prompts,
    generate_responses,
    has_periodic_tail,
    padded_lengths,
)
from paretohqd_jax.sampling.sampler import SamplingConfig

PROMPTS = ["one", "two and more", "three", "a", "five fives", "six", "seventh prompt"]


@pytest.fixture(scope="module")
def toy():
    config, params = load_pretrained(RANDOM_TOY)
    lora = LoraConfig(rank=2, alpha=4.0, targets=("v_proj",))
    adapters = init_adapters(jax.random.key(1), config, lora, 2)
    adapters = jax.tree.map(lambda leaf: leaf + 0.5, adapters)
    return Llama(config, lora), params, adapters, load_tokenizer(RANDOM_TOY)


def generate(toy, directory, prompts=PROMPTS, batch_size=3, seed=0, answerers=(), **sampling):
    model, params, adapters, tokenizer = toy
    sampling = SamplingConfig(**{"max_new_tokens": 12, "temperature": 1.0, **sampling})
    encoded = encode_prompts(tokenizer, prompts, model.config.max_position_embeddings, sampling)
    prompts = [encoded] * (len(answerers) or jax.tree.leaves(adapters)[0].shape[0])
    return generate_responses(
        model, params, adapters, tokenizer, prompts, jax.random.key(seed), sampling,
        # Some bytes end a response too, so that lengths differ.
        eos_token_ids=(*range(24), 256), batch_size=batch_size, directory=directory,
        description="test", answerers=answerers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def table(toy, tmp_path_factory):
    return generate(toy, tmp_path_factory.mktemp("shards"))


def test_columns_and_order(table):
    assert table.schema == generation.SCHEMA
    assert table["answerer"].to_pylist() == [0] * 7 + [1] * 7
    assert table["prompt_id"].to_pylist() == list(range(7)) * 2
    lengths = np.array(table["num_tokens"])
    truncated = np.array(table["truncated"])
    assert np.all(lengths[truncated] == 12) and len(set(lengths.tolist())) > 3
    assert 0 < truncated.sum() < len(lengths)
    for response in table["response"].to_pylist():
        assert response == response.strip()


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_responses_do_not_depend_on_the_batches(toy, table, tmp_path, batch_size):
    assert generate(toy, tmp_path, batch_size=batch_size).equals(table)


def test_adapters_take_turns_on_few_seats(toy, tmp_path, monkeypatch):
    """Nine adapters, of which four are side by side at a time, answer like nine at once."""
    model, params, _, tokenizer = toy
    adapters = init_adapters(jax.random.key(2), model.config, model.lora, 9)
    adapters = jax.tree.map(lambda leaf: leaf + 0.5, adapters)
    sizes = []

    def counting(*arguments, **options):
        sizes.append(jax.tree.leaves(arguments[2])[0].shape[1])
        return advance(*arguments, **options)

    advance = schedule.advance
    monkeypatch.setattr(schedule, "advance", counting)
    few, all_at_once = (
        generate((model, params, adapters, tokenizer), tmp_path / str(size), PROMPTS[:2], size)
        for size in (2, 100)
    )
    assert few.equals(all_at_once) and few.num_rows == 18
    assert set(sizes) == {4, 9}
    assert len(set(few["response"].to_pylist())) > 9


def test_mixtures_take_turns_on_few_seats(toy, tmp_path, monkeypatch):
    """Eight mixtures of nine adapters, six of which lie side by side; killed, they go on."""
    monkeypatch.setattr(generation, "SECONDS_BETWEEN_SHARDS", 0)
    model, params, _, tokenizer = toy
    adapters = init_adapters(jax.random.key(2), model.config, model.lora, 9)
    adapters = jax.tree.map(lambda leaf: leaf + 0.5, adapters)
    mixtures = [Answerer((i, i + 1), (0.5, 0.5)) for i in range(8)]
    answerers = [*mixtures, Answerer((1, 0), (0.5, 0.5))]
    mixed_toy, few = (model, params, adapters, tokenizer), tmp_path / "few"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        interrupt_after(context, 9)
        generate(mixed_toy, few, PROMPTS[:2], 2, answerers=answerers)
    kept = sum(pq.read_table(path).num_rows for path in few.glob("*/*.parquet"))
    sizes = interrupt_after(monkeypatch, 999)
    found = generate(mixed_toy, few, PROMPTS[:2], 2, answerers=answerers)
    assert {jax.tree.leaves(call[2])[0].shape[1] for call in sizes} == {6} and 0 < kept < 18
    assert found.equals(generate(mixed_toy, tmp_path, PROMPTS[:2], 100, answerers=answerers))


def test_beams_do_not_depend_on_the_batches(toy, tmp_path):
    mixtures = [Answerer((0, 1), (0.5, 0.5)), Answerer((0, 1), (0.9, 0.1))]
    how = {"answerers": mixtures, "temperature": 0.0, "num_beams": 3}
    few, many = (generate(toy, tmp_path / str(size), PROMPTS[:3], size, **how) for size in (5, 40))
    assert few.equals(many) and few["answerer"].to_pylist() == [0] * 3 + [1] * 3


def test_slots_are_refilled(toy, tmp_path, caplog):
    """Short responses make room: few slot steps are spent on responses that have ended."""
    prompts = [f"{number} bottles" for number in range(60)]
    with caplog.at_level("INFO"):
        table = generate(toy, tmp_path, prompts, batch_size=16)
    [line] = [record.getMessage() for record in caplog.records if "slots idle" in record.message]
    assert f"120 responses of {sum(table['num_tokens'].to_pylist())} tokens" in line
    assert float(line.split("idle ")[1].split(" %")[0]) < 25


def test_adapter_and_prompt_decide_a_response(toy, table, tmp_path):
    """The first adapter and the first three prompts alone give the same rows."""
    model, params, adapters, tokenizer = toy
    first = jax.tree.map(lambda leaf: leaf[:1], adapters)
    part = generate((model, params, first, tokenizer), tmp_path, prompts=PROMPTS[:3])
    assert part.equals(table.slice(0, 3).combine_chunks())


def interrupt_after(monkeypatch, num_calls):
    """Makes generation stop like on Ctrl-C at that call of `advance`; returns the calls."""
    calls = []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == num_calls:
            raise KeyboardInterrupt
        return advance(*arguments, **options)

    advance = schedule.advance
    monkeypatch.setattr(schedule, "advance", interrupted)
    return calls


@pytest.mark.parametrize("num_calls", [1, 2, 5])
def test_a_killed_run_goes_on(toy, table, tmp_path, monkeypatch, num_calls):
    monkeypatch.setattr(generation, "SECONDS_BETWEEN_SHARDS", 0)
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        interrupt_after(context, num_calls)
        generate(toy, tmp_path)
    shards = {path: path.read_bytes() for path in tmp_path.glob("*/*.parquet")}
    assert bool(shards) == (num_calls > 1)
    if shards:  # as a kill -9 leaves it
        (next(iter(shards)).parent / ".tmp-1-killed.parquet").write_bytes(b"PAR1")
    assert generate(toy, tmp_path, batch_size=5).equals(table)
    assert all(path.read_bytes() == content for path, content in shards.items())
    calls = interrupt_after(monkeypatch, 99)
    assert generate(toy, tmp_path).equals(table) and not calls  # all of it was kept


def test_what_has_ended_is_kept_on_any_failure(toy, table, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SECONDS_BETWEEN_SHARDS", float("inf"))
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        interrupt_after(context, 4)
        generate(toy, tmp_path)
    [shard] = tmp_path.glob("*/*.parquet")
    assert pq.read_table(shard).num_rows > 0
    assert generate(toy, tmp_path).equals(table)


def test_responses_to_another_request_are_not_taken(toy, table, tmp_path):
    generate(toy, tmp_path)
    model, params, adapters, tokenizer = toy
    others = {
        "seed": generate(toy, tmp_path, seed=1),
        "temperature": generate(toy, tmp_path, temperature=0.5),
        "adapters": generate(
            (model, params, jax.tree.map(lambda leaf: 2 * leaf, adapters), tokenizer), tmp_path
        ),
        "prompts": generate(toy, tmp_path, prompts=[prompt + "!" for prompt in PROMPTS]),
    }
    for what, other in others.items():
        assert not other.equals(table), what


def test_what_decides_no_response_keeps_what_is_done(toy, table, tmp_path, monkeypatch):
    """A run cut off by a full device goes on with other options of memory and speed."""
    generate(toy, tmp_path)
    model, *rest = toy
    config = dataclasses.replace(model.config, remat="full", attention="splash")
    calls = interrupt_after(monkeypatch, 1)
    assert generate((Llama(config, model.lora), *rest), tmp_path).equals(table) and not calls


def test_no_prompts(toy, tmp_path):
    assert generate(toy, tmp_path, prompts=[]).num_rows == 0


def test_prompt_over_the_context_is_named(toy, tmp_path):
    prompts = ["fine", "x" * 505]
    with pytest.raises(InputError, match="prompt 1 has 505 tokens.*context of 512"):
        generate(toy, tmp_path, prompts=prompts)
    assert generate(toy, tmp_path, prompts=["fine", "x" * 500]).num_rows == 4


def test_empty_prompt_is_named(toy, tmp_path):
    with pytest.raises(InputError, match="prompt 1 is empty"):
        generate(toy, tmp_path, prompts=["fine", ""])


def test_diverged_adapter_is_named(toy, tmp_path):
    model, params, adapters, tokenizer = toy
    broken = jax.tree.map(lambda leaf: leaf.at[1, 0, 0, 0].set(np.nan), adapters)
    with pytest.raises(InputError, match="adapter 1 holds NaN"):
        generate((model, params, broken, tokenizer), tmp_path)


def test_lengths_that_prompts_are_padded_to():
    ladder = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    lengths = list(range(1, 1000))
    padded = padded_lengths(lengths, 1)
    assert sorted(set(padded)) == ladder
    assert all(n <= length <= max(16, 1.5 * n) for n, length in zip(lengths, padded, strict=True))
    assert padded_lengths([30, 5, 17, 18, 3], 2) == [32, 16, 24, 24, 16]
    assert padded_lengths([30, 5, 17, 3], 2) == [32, 16, 32, 16]  # 17 alone is not worth it
    assert padded_lengths([30, 5, 17], 9) == [32, 32, 32]
    assert padded_lengths([], 9) == []


@pytest.mark.parametrize(
    "tokens, periodic",
    [
        ([], False),
        ([1, 1, 1], False),
        ([1, 1, 1, 1], True),
        ([9, 8, 7] + [1, 2] * 4, True),
        ([9, 8, 7] + [1, 2] * 4 + [3], False),
        ([1, 2] * 3, False),
        (list(range(16)) * 4, True),
        (list(range(17)) * 4, False),
    ],
)
def test_periodic_tail(tokens, periodic):
    assert has_periodic_tail(tokens) is periodic


def test_end_token_is_left_out_of_text_and_counted(toy):
    tokenizer = toy[3]
    assert eos_token_ids(tokenizer, RANDOM_TOY) == (256,)
    tokens = [*tokenizer(" hi ").input_ids, 256]
    row = generation._to_row(tokenizer, 0, 4, tokens, (256,))
    assert row == {
        "prompt_id": 4, "answerer": 0, "response": "hi", "num_tokens": 5, "truncated": False,
        "periodic_tail": False,
    }  # fmt: skip
    looping = generation._to_row(tokenizer, 0, 0, [70] * 8, (256,))
    assert looping["truncated"] and looping["periodic_tail"]
