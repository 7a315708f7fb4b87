from __future__ import annotations

import dataclasses
import functools
import resource

import jax
import numpy as np
import pytest

from paretohqd_jax.data.batches import tokenize
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.training import checkpoints, loop
from paretohqd_jax.training.mesh import make_mesh
from paretohqd_jax.training.metrics import read_metrics
from paretohqd_jax.training.step import OptimizerConfig, adapter_loss

NUM_STEPS = 6


@pytest.fixture(scope="module")
def setting():
    config, params = load_pretrained("random:toy")
    texts = [f"{'la ' * (i % 5)}mi {i}" for i in range(10)]
    examples = tokenize(load_tokenizer("random:toy"), ["sing:"] * 10, texts, max_length=32)
    examples = jax.tree.map(lambda a: a.reshape(2, 5, -1), examples)
    return Llama(config, LoraConfig(rank=2, alpha=4.0, dropout=0.1)), params, examples


def train(setting, directory, **changes):
    model, params, examples = setting

    def fresh():
        return init_adapters(jax.random.key(1), model.config, model.lora, 2)

    learning_rate = changes.pop("learning_rate", 1e-2)
    start = changes.pop("start", fresh)
    arguments = {
        "mesh": make_mesh(devices=jax.devices()[:1]), "batch_size": 2, "seed": 3,
        "adapter_names": ["w0", "w1"], "checkpoint_every": 2,
        "directory": directory / "stage1", "log_directory": directory / "logs",
        "meta": {"rank": 2}, "description": "test",
    } | changes  # fmt: skip
    optimizer = OptimizerConfig(learning_rate, NUM_STEPS)
    return jax.device_get(loop.fine_tune(model, params, start, examples, optimizer, **arguments))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("last_step", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_run_that_was_cut_off_ends_with_the_same_bytes(setting, tmp_path, monkeypatch, last_step):
    undisturbed = train(setting, tmp_path / "whole")

    steps_seen = []

    def killed_batch_rows(seed, stream, step, *rest):
        if step == last_step:
            raise Killed
        return loop_batch_rows(seed, stream, step, *rest)

    loop_batch_rows = loop.batch_rows
    with monkeypatch.context() as patch:
        patch.setattr(loop, "batch_rows", killed_batch_rows)
        with pytest.raises(Killed):
            train(setting, tmp_path / "cut")

    def counting_batch_rows(seed, stream, step, *rest):
        steps_seen.append(step)
        return loop_batch_rows(seed, stream, step, *rest)

    monkeypatch.setattr(loop, "batch_rows", counting_batch_rows)
    start = {} if last_step < 2 else {"start": None}  # fresh adapters are not made to be dropped
    same(train(setting, tmp_path / "cut", **start), undisturbed)
    assert min(steps_seen) == last_step // 2 * 2, "resumed from the last checkpoint, not the start"


def test_a_finished_run_is_read_back_and_not_trained_again(setting, tmp_path, monkeypatch):
    trained = train(setting, tmp_path)
    same(checkpoints.load_adapters(tmp_path / "stage1", {"rank": 2}), trained)
    monkeypatch.setattr(loop, "batch_rows", None)
    same(train(setting, tmp_path), trained)


def test_another_seed_trains_otherwise(setting, tmp_path):
    one, other = (train(setting, tmp_path / str(seed), seed=seed) for seed in (3, 4))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_a_checkpoint_of_another_configuration_is_refused(setting, tmp_path):
    train(setting, tmp_path)
    with pytest.raises(InputError, match=r"stage1: .* rank=2, this run has 4"):
        train(setting, tmp_path, meta={"rank": 4})


def test_a_checkpoint_of_other_shapes_is_refused(setting, tmp_path):
    train(setting, tmp_path)
    model, params, examples = setting
    wider = Llama(model.config, dataclasses.replace(model.lora, rank=8))
    with pytest.raises(InputError, match="stage1"):
        train((wider, params, examples), tmp_path)


def test_adapters_of_another_configuration_are_refused(setting, tmp_path):
    train(setting, tmp_path)
    with pytest.raises(InputError, match="rank=2, this run has 3"):
        checkpoints.load_adapters(tmp_path / "stage1", {"rank": 3})


def test_a_damaged_checkpoint_is_named_with_the_remedy(setting, tmp_path):
    train(setting, tmp_path)
    for file in (tmp_path / "stage1").rglob("*"):
        if file.is_file() and "state" in file.parts:
            file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(InputError, match="stage1: checkpoint 6 is damaged; delete this"):
        checkpoints.load_adapters(tmp_path / "stage1", {"rank": 2})


def test_training_goes_on_from_the_last_whole_checkpoint(setting, tmp_path, caplog):
    undisturbed = train(setting, tmp_path)
    for file in (tmp_path / "stage1" / "6").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    same(train(setting, tmp_path, start=None), undisturbed)
    assert "training goes on from checkpoint 4" in caplog.text
    same(checkpoints.load_adapters(tmp_path / "stage1", {"rank": 2}), undisturbed)


def test_dropout_reaches_the_loss_and_changes_with_the_key(setting):
    model, params, examples = setting
    adapters = init_adapters(jax.random.key(1), model.config, model.lora, 1)
    adapter = jax.tree.map(lambda leaf: leaf[0] + 0.3, adapters)
    rows = jax.tree.map(lambda leaf: leaf[0], examples)
    loss = jax.jit(lambda key: adapter_loss(model, params, adapter, rows, key))
    keys = jax.random.split(jax.random.key(0), 2)
    assert loss(keys[0]) == loss(keys[0]) and loss(keys[0]) != loss(keys[1])


def test_a_directory_without_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoints.load_adapters(tmp_path, {})


def test_a_loss_that_is_not_finite_stops_the_run_by_name(setting, tmp_path):
    model, params, examples = setting
    broken = {**params, "norm": params["norm"].at[0].set(np.nan)}
    message = "loss of adapter w0, w1 became nan between step 0 and step 0; lower"
    with pytest.raises(InputError, match=message):
        train((model, broken, examples), tmp_path)


@pytest.mark.parametrize("last_step", [3, 4])
def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    setting, tmp_path, monkeypatch, last_step
):
    """Also when the bad step is one after which a checkpoint is due."""
    undisturbed = train(setting, tmp_path / "whole")

    def broken_train_step(*args):
        step = make_train_step(*args)

        def train_step(state, params, batch, keys):
            if int(state.step) == last_step - 1:
                params = {**params, "norm": params["norm"].at[0].set(np.nan)}
            return step(state, params, batch, keys)

        return train_step

    make_train_step = loop.make_train_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", broken_train_step)
        message = f"between step 2, whose checkpoint is kept, and step {last_step - 1}; lower"
        with pytest.raises(InputError, match=message):
            train(setting, tmp_path / "cut")
    kept = checkpoints.load_adapters(tmp_path / "cut" / "stage1", {"rank": 2})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))
    assert [path.name for path in (tmp_path / "cut" / "stage1").iterdir()] == ["2"]
    same(train(setting, tmp_path / "cut"), undisturbed)


def test_an_adapter_that_is_not_finite_stops_the_run_by_name(setting, tmp_path):
    with pytest.raises(InputError, match="the norm of adapter w0, w1 became inf between step 0"):
        train(setting, tmp_path, learning_rate=1e30)
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoints.load_adapters(tmp_path / "stage1", {"rank": 2})


def test_microbatches_reach_the_step(setting, tmp_path):
    model, params, examples = setting
    quiet = Llama(model.config, dataclasses.replace(model.lora, dropout=0.0))
    parts = [
        train((quiet, params, examples), tmp_path / str(n), num_microbatches=n) for n in (1, 2)
    ]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, *parts)
    with pytest.raises(InputError, match=r"batch_size \(2\) .* num_microbatches \(3\)"):
        train(setting, tmp_path / "3", num_microbatches=3)


@pytest.mark.parametrize("limit", [700, 3_000])
def test_a_full_disk_ends_the_run_and_more_space_resumes_it(setting, tmp_path, limit):
    undisturbed = train(setting, tmp_path / "whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # longer files: "File too large"
    try:
        with pytest.raises(Exception, match="File too large"):
            train(setting, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    same(train(setting, tmp_path / "full"), undisturbed)


def test_metrics_reach_tensorboard(setting, tmp_path):
    model, params, examples = setting
    held_out = jax.tree.map(lambda array: array[:, ::-1][:, :3], examples)
    adapters = train(setting, tmp_path, held_out=held_out, num_microbatches=2)
    told = read_metrics(tmp_path / "logs")["held_out_loss/w1"]
    assert [*told] == [0, 2, 4, 6]  # at the start and at each checkpoint
    one, rows = jax.tree.map(lambda array: array[1], (adapters, held_out))
    calm = Llama(model.config, dataclasses.replace(model.lora, dropout=0.0))
    loss = adapter_loss(calm, params, one, rows, jax.random.key(0))
    np.testing.assert_allclose(told[6], loss, rtol=1e-5)
    events = b"".join(path.read_bytes() for path in (tmp_path / "logs").iterdir())
    for name in (b"loss/w0", b"grad_norm/w1", b"norm/w1"):
        assert events.count(b"\n" + bytes([len(name)]) + name) == NUM_STEPS
