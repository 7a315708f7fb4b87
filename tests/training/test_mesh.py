from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import llama, lora
from paretohqd_jax.models.sharding import num_shards, vmap_adapters
from paretohqd_jax.models.weights import TOY_CONFIG
from paretohqd_jax.training.mesh import (
    DECODING_RULES,
    check_sizes,
    make_mesh,
    named_shardings,
    sharded,
)

pytestmark = pytest.mark.cpu
EVERY_TARGET = lora.LoraConfig(rank=4, targets=lora.TARGETS)


def mesh_of(*shape):
    return make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])


def test_the_data_axis_takes_what_the_others_leave():
    mesh = make_mesh(fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
    assert make_mesh().shape["data"] == 8


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX asks of a chip to place it in a mesh."""

    id: int
    coords: tuple[int, int, int]
    device_kind: str
    core_on_chip: int = 0
    process_index: int = 0
    platform: str = "tpu"


@pytest.mark.parametrize(
    ("kind", "slice_shape", "shape"),
    [
        ("TPU v5", (2, 2, 1), (4, 1, 1)),
        ("TPU v5", (2, 2, 2), (1, 1, 8)),
        ("TPU v5 lite", (4, 4, 1), (4, 1, 4)),
        ("TPU v5 lite", (8, 16, 1), (2, 8, 8)),
        ("TPU v6 lite", (2, 4, 1), (8, 1, 1)),
        ("TPU v6 lite", (4, 8, 1), (2, 2, 8)),
    ],
)
def test_meshes_of_the_slices_that_the_docs_recommend_can_be_laid_on_them(kind, slice_shape, shape):
    places = np.ndindex(slice_shape[::-1])
    chips = [Chip(i, place[::-1], kind) for i, place in enumerate(places)]
    mesh = make_mesh(*shape, devices=chips)
    assert mesh.devices.shape == shape
    assert set(mesh.devices.flat) == set(chips)


def test_gpus_of_several_hosts_lie_in_the_order_of_their_numbers():
    gpus = [
        Chip(i, (0, 0, 0), "NVIDIA H100 80GB HBM3", process_index=i // 4, platform="gpu")
        for i in range(8)
    ]
    mesh = make_mesh(2, 1, 4, devices=gpus[::-1])
    assert [gpu.id for gpu in mesh.devices.flat] == [*range(8)]


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((-1, 3, 1), "divides 8, such as 1"),
        ((4, 2, 2), "config.mesh.data=2, or -1"),
        ((1, 2, 2), "config.mesh.data=2, or -1"),
        ((1, 16, 2), "divides 8, such as 8"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused_with_what_would(shape, remedy):
    with pytest.raises(InputError, match=f"fsdp={shape[1]}.* number of devices, 8; .*{remedy}"):
        make_mesh(*shape)


@pytest.mark.parametrize("tie", [False, True])
def test_every_weight_has_a_name_for_each_axis(tie):
    config = dataclasses.replace(TOY_CONFIG, tie_word_embeddings=tie)
    mesh = mesh_of(1, 2, 2)
    shapes = llama.param_shapes(config)
    shardings = named_shardings(mesh, llama.logical_axes(config), shapes)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    kernel = shardings["layers"]["down_proj"]["kernel"]
    assert kernel.spec == PartitionSpec(None, "tensor", "fsdp")
    cut = [s for s in jax.tree.leaves(shardings) if any(s.spec)]
    assert len(cut) == len(jax.tree.leaves(shapes)) - 3, "all but the norms are cut"


def test_every_adapter_leaf_is_cut_like_what_it_adapts():
    stack = jax.eval_shape(
        lambda: lora.init_adapters(jax.random.key(0), TOY_CONFIG, EVERY_TARGET, 4)
    )
    shardings = named_shardings(
        mesh_of(2, 2, 2), lora.logical_axes(TOY_CONFIG, EVERY_TARGET), stack
    )
    assert jax.tree.structure(shardings) == jax.tree.structure(stack)
    layers = shardings["layers"]
    assert layers["o_proj"]["a"].spec == PartitionSpec("data", None, "tensor", None)
    assert layers["o_proj"]["b"].spec == PartitionSpec("data", None, None, "fsdp")
    assert {s.spec[0] for s in jax.tree.leaves(shardings)} == {"data"}


def test_two_axes_of_one_array_on_one_mesh_axis_are_named():
    with pytest.raises(ValueError, match="'heads' and 'mlp' both lie on mesh axis 'tensor'"):
        named_shardings(mesh_of(1, 1, 2), ("heads", "mlp"), np.zeros((4, 4)))


def test_names_that_do_not_fit_the_array_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        named_shardings(mesh_of(1, 1, 2), ("heads",), np.zeros((4, 4)))


def test_an_axis_that_does_not_divide_is_an_error_with_the_remedy():
    with pytest.raises(
        InputError, match=r"key/value heads \(2\) .* config.mesh.tensor=4 .* to 1 or 2$"
    ):
        check_sizes(mesh_of(1, 1, 4), llama.logical_sizes(TOY_CONFIG))
    with pytest.raises(InputError, match=r"the hidden size \(50\) .*tensor=4 .* to 1 or 2$"):
        config = dataclasses.replace(TOY_CONFIG, hidden_size=50, num_kv_heads=4, vocab_size=256)
        check_sizes(mesh_of(1, 1, 4), llama.logical_sizes(config))
    with pytest.raises(InputError, match=r"axis 'embed' of \['x'\] \(6\) .* config.mesh.fsdp=4"):
        named_shardings(mesh_of(1, 4, 1), {"x": ("embed", "mlp")}, {"x": np.zeros((6, 4))})


def test_the_context_tells_the_number_of_pieces():
    assert num_shards("batch") == 1
    with sharded(mesh_of(2, 4, 1)):
        assert (num_shards("adapter"), num_shards("batch"), num_shards("norm")) == (2, 4, 1)
    with sharded(mesh_of(2, 4, 1), DECODING_RULES):
        assert (num_shards("adapter"), num_shards("batch")) == (1, 8)
    with sharded(mesh_of(1, 1, 1)):
        assert num_shards("batch") == 1


def test_constraints_under_the_map_over_adapters_keep_the_stack_cut():
    mesh = mesh_of(4, 2, 1)
    stack = jax.device_put(
        np.zeros((4, 6, 3), np.float32),
        named_shardings(mesh, ("adapter", None, None), np.zeros((4, 6, 3))),
    )

    def double(rows):
        return llama.constrain(2 * rows, ("batch", None))

    with sharded(mesh):
        out = jax.jit(vmap_adapters(double))(stack)
    assert out.sharding.spec == PartitionSpec("data", "fsdp")


def test_random_weights_are_made_in_place_and_are_the_same_on_every_mesh():
    key = jax.random.key(0)
    whole = llama.init_params(key, TOY_CONFIG)
    mesh = mesh_of(2, 2, 2)
    with sharded(mesh):
        shardings = named_shardings(mesh, llama.logical_axes(TOY_CONFIG), whole)
        parts = llama.init_params(key, TOY_CONFIG, shardings)
    assert parts["layers"]["q_proj"]["kernel"].addressable_shards[0].data.shape == (2, 16, 16)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_padding_adapters_are_zeros_after_the_others():
    stack = lora.init_adapters(jax.random.key(0), TOY_CONFIG, EVERY_TARGET, 3)
    padded = lora.pad_adapters(stack, 4)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), stack, padded)
    assert not any(jnp.any(leaf[3:]) for leaf in jax.tree.leaves(padded))
