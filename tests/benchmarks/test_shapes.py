"""Options, counts against published sizes, and weights equal in every dialect."""

from __future__ import annotations

import budget
import collectives
import finetune
import generate
import jax
import numpy as np
import pytest
import shapes

from paretohqd_jax.models.llama import init_params
from paretohqd_jax.models.lora import TARGETS, LoraConfig

LLAMA = shapes.SHAPES["llama2-7b"]


@pytest.mark.parametrize(
    ("program", "option", "message"),
    [
        (finetune, "--rounds=0", "'0' is no whole number above 0"),
        (generate, "--rows=-1", "'-1' is no whole number above 0"),
        (budget, "--batches=8,x", "'x' is no whole number above 0"),
        (collectives, "--targets=z_proj", "'z_proj' does not exist"),
        (collectives, "--meshes=2,1", "a mesh is DATA,FSDP,TENSOR"),
    ],
)
def test_options_that_make_no_sense_are_refused(program, option, message, capsys):
    with pytest.raises(SystemExit):
        program.parse([option])
    assert message in capsys.readouterr().err


def test_weights_of_llama_2_7b():
    base, adapter = shapes.matmul_weights(LLAMA, LoraConfig(64, targets=("q_proj", "v_proj")))
    embedding, norms = 32000 * 4096, 65 * 4096  # what no matrix product touches
    assert base + embedding + norms == 6_738_415_616
    assert adapter == 33_554_432
    assert shapes.matmul_weights(LLAMA)[1] == 0


def test_flops_of_training_are_two_passes_and_the_adapters_gradient():
    lora = LoraConfig(64, targets=TARGETS)
    base, adapter = shapes.matmul_weights(LLAMA, lora)
    attention = 4 * 32 * 4096 * 512 * 513 / 2
    forward = 2 * (base + adapter) * 512 + attention
    assert shapes.forward_flops(LLAMA, lora, 3, 512) == pytest.approx(3 * forward)
    expected = 2 * forward + 2 * adapter * 512
    assert shapes.training_flops(LLAMA, lora, 1, 512) == pytest.approx(expected)


def test_prefill_and_steps_cost_as_much_as_the_whole():
    parts = [shapes.forward_flops(LLAMA, None, 2, 10)]
    parts += [shapes.decode_costs(LLAMA, None, 1, 2, context)[0] for context in range(10, 16)]
    assert sum(parts) == pytest.approx(shapes.forward_flops(LLAMA, None, 2, 16))


def test_bytes_of_a_decoding_step():
    lora = LoraConfig(64, targets=("q_proj", "v_proj"))
    base, adapter = shapes.matmul_weights(LLAMA, lora)
    moved = shapes.decode_costs(LLAMA, lora, 3, 8, 100)[1]
    assert moved == 2 * (base + 3 * adapter + 3 * 8 * 2 * 32 * 4096 * 100)


def test_the_hash_is_the_same_in_wider_integers():
    index = np.arange(1000)
    wide = shapes._hashed(index, 12345, int)
    assert wide.min() >= 0
    assert wide.max() < 2**16
    assert abs(wide.mean() / 2**16 - 0.5) < 0.03
    narrow = shapes._hashed(index.astype(np.uint32), np.uint32(12345), np.uint32)
    np.testing.assert_array_equal(narrow, wide)


def test_the_weights_have_the_models_structure():
    config = shapes.SHAPES["toy"]
    params, expected = shapes.jax_params(config), init_params(jax.random.key(0), config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )
    kernel = params["layers"]["up_proj"]["kernel"]
    assert float(kernel.std()) == pytest.approx(0.02, rel=0.05)
    assert not np.allclose(kernel[0], kernel[1])
