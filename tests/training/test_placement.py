"""Training on meshes of eight simulated devices."""

from __future__ import annotations

import contextlib
import re

import jax
import numpy as np
import pytest

from paretohqd_jax.data.batches import tokenize
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama, logical_axes
from paretohqd_jax.models.lora import LoraConfig, with_rank
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import TOY_CONFIG, load_pretrained
from paretohqd_jax.training import checkpoints, loop, placement
from paretohqd_jax.training.mesh import make_mesh, named_shardings, sharded
from paretohqd_jax.training.step import OptimizerConfig, make_optimizer, make_train_step

pytestmark = pytest.mark.cpu
MODEL = Llama(TOY_CONFIG, LoraConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "o_proj")))
NUM_ADAPTERS, NUM_STEPS, BATCH_SIZE = 3, 4, 8
OPTIMIZER = OptimizerConfig(1e-2, NUM_STEPS)


def mesh_of(*shape):
    return make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])


def placed_params(mesh):
    whole = load_pretrained("random:toy")[1]
    return jax.device_put(whole, named_shardings(mesh, logical_axes(TOY_CONFIG), whole))


@pytest.fixture(scope="module")
def examples():
    texts = [f"{'la ' * (i % 5)}mi {i}" for i in range(NUM_ADAPTERS * 10)]
    rows = tokenize(load_tokenizer("random:toy"), ["sing:"] * len(texts), texts, max_length=32)
    return jax.tree.map(lambda a: a.reshape(NUM_ADAPTERS, 10, -1), rows)


def recorded_losses(patch):
    """The losses of every step, as they are written to the metrics."""
    written = []

    @contextlib.contextmanager
    def open_metrics(directory, start):
        yield lambda step, values: written.append([values[f"loss/w{i}"] for i in range(3)])

    patch.setattr(loop, "open_metrics", open_metrics)
    return written


@pytest.fixture
def losses(monkeypatch):
    return recorded_losses(monkeypatch)


def train(mesh, examples, directory):
    def start():
        return placement.fresh_adapters(mesh, MODEL, 1, NUM_ADAPTERS)

    return jax.device_get(
        loop.fine_tune(
            MODEL, placed_params(mesh), start, examples, OPTIMIZER, mesh=mesh,
            batch_size=BATCH_SIZE, seed=3, adapter_names=["w0", "w1", "w2"],
            directory=directory / "stage1", checkpoint_every=2, log_directory=directory,
            meta={}, description="test",
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def on_one_device(examples, tmp_path_factory):
    """Losses and adapters of the run that all others must agree with."""
    with pytest.MonkeyPatch.context() as patch:
        written = recorded_losses(patch)
        trained = train(mesh_of(1, 1, 1), examples, tmp_path_factory.mktemp("one"))
    return np.array(written), trained


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, other)


@pytest.mark.parametrize(
    "shape", [(8, 1, 1), pytest.param((4, 2, 1), marks=pytest.mark.slow), (2, 2, 2), (1, 8, 1)]
)
def test_training_agrees_on_every_mesh(shape, examples, losses, on_one_device, tmp_path):
    expected_losses, expected = on_one_device
    trained = train(mesh_of(*shape), examples, tmp_path)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-5)
    assert_close(trained, expected)
    saved = checkpoints.load_adapters(tmp_path / "stage1", {})
    jax.tree.map(np.testing.assert_array_equal, saved, trained)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(saved)} == {NUM_ADAPTERS}


def test_a_run_goes_on_on_another_mesh(examples, losses, on_one_device, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed_batch_rows(seed, stream, step, *rest):
        if step == 3:
            raise Killed
        return batch_rows(seed, stream, step, *rest)

    batch_rows = loop.batch_rows
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "batch_rows", killed_batch_rows)
        train(mesh_of(4, 2, 1), examples, tmp_path)
    losses.clear()
    trained = train(mesh_of(2, 2, 2), examples, tmp_path)
    expected_losses, expected = on_one_device
    np.testing.assert_allclose(losses, expected_losses[2:], atol=1e-5)  # from the checkpoint on
    assert_close(trained, expected)


def test_adapters_exchange_nothing_and_padding_stays_as_it_is(examples):
    mesh, optimizer = mesh_of(4, 1, 1), make_optimizer(OPTIMIZER)
    placed = placement.place_training(mesh, MODEL, optimizer, NUM_ADAPTERS, BATCH_SIZE)
    adapters = placement.fresh_adapters(mesh, MODEL, 1, NUM_ADAPTERS)
    params, rows = placed_params(mesh), np.tile(np.arange(BATCH_SIZE), (NUM_ADAPTERS, 1))
    with sharded(mesh):
        state, keys = placement.start(placed, adapters, optimizer, seed=3)
        batch = placement.place_batch(placed, examples, rows)
        step = make_train_step(MODEL, optimizer, shardings=placed.step)
        compiled = step.lower(state, params, batch, keys).compile()
        before = state
        for _ in range(2):
            state, metrics = compiled(state, params, batch, keys)
    collectives = re.findall(
        r" = (\S+) (all-reduce|reduce-scatter|all-to-all|collective-permute|all-gather)\(",
        compiled.as_text(),
    )
    # What is gathered is the metrics, a number per adapter.
    assert {name for _, name in collectives} <= {"all-gather"}
    assert all(re.fullmatch(r"f32\[4\]\{0\}", shape) for shape, _ in collectives)
    for leaf in jax.tree.leaves((state.adapters, state.optimizer_state)):
        assert leaf.shape[0] == 4 and leaf.sharding.spec[0] == "data"
        if leaf.ndim > 1:
            assert not np.any(leaf[3:]) and np.any(leaf[:3])
    assert jax.tree.leaves(before.adapters)[0].is_deleted(), "the state is donated"
    assert metrics["loss"].sharding.is_fully_replicated


def test_a_batch_is_gathered_where_it_is_needed(examples):
    placed = placement.place_training(
        mesh_of(4, 2, 1), MODEL, make_optimizer(OPTIMIZER), NUM_ADAPTERS, batch_size=4
    )
    rows = np.arange(NUM_ADAPTERS * 4).reshape(NUM_ADAPTERS, 4) % 10
    batch = placement.place_batch(placed, examples, rows)
    for array, source in zip(batch, examples, strict=True):
        expected = np.stack([source[adapter][rows[adapter]] for adapter in range(NUM_ADAPTERS)])
        np.testing.assert_array_equal(array[:NUM_ADAPTERS], expected)
        assert not np.any(array[NUM_ADAPTERS:])
        assert {shard.data.shape[:2] for shard in array.addressable_shards} == {(1, 2)}


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(InputError, match=r"axis 'batch' .*\(6\) cannot be cut .*fsdp=4"):
        placement.place_training(mesh_of(2, 4, 1), MODEL, make_optimizer(OPTIMIZER), 2, 6)


def test_trained_adapters_are_placed_like_fresh_ones():
    mesh = mesh_of(4, 1, 2)
    fresh = placement.fresh_adapters(mesh, MODEL, 1, NUM_ADAPTERS)
    stack = jax.tree.map(lambda leaf: np.asarray(leaf)[:NUM_ADAPTERS], fresh)
    placed = placement.place_adapters(mesh, MODEL, stack)
    jax.tree.map(np.testing.assert_array_equal, placed, fresh)
    shardings = [jax.tree.map(lambda leaf: leaf.sharding, tree) for tree in (placed, fresh)]
    assert shardings[0] == shardings[1]


def test_fresh_adapters_lie_on_top_of_those_that_stay():
    mesh = mesh_of(8, 1, 1)
    fresh = jax.device_get(placement.fresh_adapters(mesh, MODEL, 1, NUM_ADAPTERS))
    beneath = jax.tree.map(lambda leaf: leaf[:NUM_ADAPTERS] + 1, fresh)
    both = Llama(TOY_CONFIG, with_rank(MODEL.lora, 8))
    placed = jax.device_get(placement.place_on_top(mesh, both, beneath, 1))
    for target, factors in placed["layers"].items():
        for name, axis in (("a", -1), ("b", -2)):
            lower, upper = np.split(factors[name], 2, axis)
            np.testing.assert_array_equal(lower[:NUM_ADAPTERS], beneath["layers"][target][name])
            np.testing.assert_array_equal(upper, fresh["layers"][target][name])
            assert len(lower) == 8 and not lower[NUM_ADAPTERS:].any()
