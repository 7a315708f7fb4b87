"""Llama shapes with the same random weights in JAX and torch, and what their work costs at least.

Counts are of the work the task needs, whatever a program does: FLOPs without recomputation and
without gradients of frozen weights, attention over the visible half, bytes of every weight and
key read once per step.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import zlib
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
from contenders import count

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import LlamaConfig
from paretohqd_jax.models.lora import TARGETS, LoraConfig
from paretohqd_jax.models.weights import TOY_CONFIG

SHAPES = {
    "toy": TOY_CONFIG,
    "smollm2-135m": LlamaConfig(
        49152, 576, 1536, 30, 9, 3, 64, 8192, rope_theta=100000.0, tie_word_embeddings=True
    ),
    "llama2-7b": LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, dtype="bfloat16"),
    "llama3-8b": LlamaConfig(
        128256, 4096, 14336, 32, 32, 8, 128, 8192, rope_theta=500000.0, dtype="bfloat16"
    ),
    "llama3-70b": LlamaConfig(
        128256, 8192, 28672, 80, 64, 8, 128, 8192, rope_theta=500000.0, dtype="bfloat16"
    ),
}

# Dense bfloat16 FLOP/s and memory bytes/s by JAX's device_kind, from the vendors' data sheets.
CHIPS = {
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H100 PCIe": (756e12, 2.0e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12),
    "NVIDIA A100-SXM4-40GB": (312e12, 1.56e12),
    "NVIDIA L4": (121e12, 0.3e12),
    "TPU v4": (275e12, 1.23e12),
    "TPU v5 lite": (197e12, 0.82e12),
    "TPU v5": (459e12, 2.76e12),
    "TPU v6 lite": (918e12, 1.64e12),
}

# Of TPUs, cycles/s and bytes/s of all links of a chip to others; the former follow from the FLOP/s.
TPU_CLOCKS = {"TPU v4": 1.05e9, "TPU v5 lite": 1.5e9, "TPU v5": 1.75e9, "TPU v6 lite": 1.75e9}
TPU_LINKS = {"TPU v4": 300e9, "TPU v5 lite": 200e9, "TPU v5": 600e9, "TPU v6 lite": 448e9}


def projections(text: str) -> str:
    """The value of --targets, checked."""
    try:
        LoraConfig(targets=text.split(","))
    except InputError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def add_model_options(parser: ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the shape's")
    parser.add_argument("--layers", type=count, help="fewer layers than the shape has")
    parser.add_argument("--adapters", type=count, default=11, help="adapters in the stack")
    parser.add_argument("--rank", type=count, default=64)
    parser.add_argument(
        "--targets", type=projections, default=",".join(TARGETS), help="adapted projections"
    )
    parser.add_argument("--threads", type=int, default=0, help="cores to keep to; 0: all")
    parser.add_argument("--rounds", type=count, default=3, help="timed rounds")
    parser.add_argument("--alone", action="store_true", help="one contender at a time, not in turn")


def model_of(options: Namespace, remat: str = "none") -> tuple[LlamaConfig, LoraConfig]:
    shape = SHAPES[options.shape]
    config = dataclasses.replace(
        shape,
        dtype=options.dtype or shape.dtype,
        num_layers=options.layers or shape.num_layers,
        remat=remat,
        attention=getattr(options, "attention", "xla"),
    )
    targets = tuple(options.targets.split(","))
    dropout = getattr(options, "dropout", 0.0)
    return config, LoraConfig(options.rank, 2.0 * options.rank, dropout, targets)


# Weights: a hash of the tensor's name and the element's index, exactly the same everywhere

AMPLITUDE = 0.02 * 3**0.5 / 2**15  # standard deviation 0.02


def _seed(name: str) -> int:
    return zlib.crc32(name.encode())


def _hashed(index, seed, number):
    """Whole numbers in [0, 2^16) from indices, in 32 bits; `number` makes the constants."""
    mask = number(2**32 - 1)
    index = (index * number(2654435761) + seed) & mask
    index = ((index ^ (index >> 16)) * number(2246822519)) & mask
    index = ((index ^ (index >> 13)) * number(3266489917)) & mask
    return index >> 16


def jax_params(config: LlamaConfig) -> dict[str, Any]:
    """The tree `params` of our Llama, made on the device."""
    import jax
    import jax.numpy as jnp

    def tensor(seed, shape):
        index = jnp.arange(np.prod(shape), dtype=jnp.uint32)
        whole = _hashed(index, seed, np.uint32).astype(jnp.float32) - 2**15
        return (whole * AMPLITUDE).astype(config.dtype).reshape(shape)

    @functools.partial(jax.jit, static_argnums=1)
    def stacked(seeds, shape):  # [out, in] as in torch, [in, out] here
        return jax.lax.map(lambda seed: tensor(seed, shape).T, seeds)

    layers: dict[str, Any] = {
        name: jnp.ones((config.num_layers, config.hidden_size), config.dtype)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    for name, (size_in, size_out) in config.projection_shapes().items():
        seeds = [_seed(f"{layer}.{name}") for layer in range(config.num_layers)]
        kernel = stacked(jnp.array(seeds, jnp.uint32), (size_out, size_in))
        layers[name] = {"kernel": kernel}
    params = {"layers": layers, "norm": jnp.ones(config.hidden_size, config.dtype)}
    embeddings = ("embed_tokens",) if config.tie_word_embeddings else ("embed_tokens", "lm_head")
    for name in embeddings:
        shape = (config.vocab_size, config.hidden_size)
        params[name] = jax.jit(tensor, static_argnums=1)(jnp.uint32(_seed(name)), shape)
    return params


def torch_model(config: LlamaConfig, device: str) -> Any:
    """transformers' LlamaForCausalLM with the same weights, made on the device."""
    import torch
    import transformers
    from transformers.initialization import no_init_weights

    hf_config = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    dtype = getattr(torch, config.dtype)
    with torch.device(device), no_init_weights():
        model = transformers.LlamaForCausalLM._from_config(hf_config, dtype=dtype)
    model.tie_weights()  # else left undone where nothing is initialised
    for name, parameter in model.named_parameters():
        *_, layer, _, short, _ = ("", "", "", *name.split("."))
        if "norm" in name:
            parameter.data.fill_(1.0)
            continue
        seed = _seed(f"{layer}.{short}" if ".layers." in name else name.split(".")[-2])
        index = torch.arange(parameter.numel(), device=device)
        whole = _hashed(index, seed, int).to(torch.float32) - 2**15
        parameter.data.copy_((whole * AMPLITUDE).to(dtype).view(parameter.shape))
    return model


def with_peft(model: Any, lora: LoraConfig) -> Any:
    import peft

    return peft.get_peft_model(model, peft_config(lora))


def peft_config(lora: LoraConfig) -> Any:
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )


def torch_device(options: Namespace) -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    torch.set_num_threads(options.threads or torch.get_num_threads())
    return "cpu"


# Counts


def matmul_weights(config: LlamaConfig, lora: LoraConfig | None = None) -> tuple[int, int]:
    """Weights of the matrix products of one token: the base's (layers and head), the adapter's."""
    shapes = config.projection_shapes()
    base = config.num_layers * sum(a * b for a, b in shapes.values())
    adapted = [shapes[name] for name in (lora.targets if lora else ())]
    adapter = config.num_layers * sum(a + b for a, b in adapted) * (lora.rank if lora else 0)
    return base + config.vocab_size * config.hidden_size, adapter


def forward_flops(
    config: LlamaConfig, lora: LoraConfig | None, rows: int, length: int, start: int = 0
) -> float:
    """Of `rows` rows of `length` tokens that follow `start` cached ones, logits everywhere."""
    base, adapter = matmul_weights(config, lora)
    seen = start * length + length * (length + 1) / 2
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * seen
    return rows * (2 * (base + adapter) * length + attention)


def training_flops(config: LlamaConfig, lora: LoraConfig, rows: int, length: int) -> float:
    """Forward, gradients of all activations, gradients of the adapter's weights alone."""
    adapter = matmul_weights(config, lora)[1]
    return 2 * forward_flops(config, lora, rows, length) + 2 * adapter * rows * length


def decode_costs(
    config: LlamaConfig, lora: LoraConfig | None, adapters: int, rows: int, context: int
) -> tuple[float, float]:
    """FLOPs and bytes of one decoding step of `rows` rows per adapter after `context` tokens."""
    base, adapter = matmul_weights(config, lora)
    item = np.dtype(np.float32).itemsize if config.dtype == "float32" else 2
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context * item
    flops = forward_flops(config, lora, adapters * rows, 1, context)
    return flops, (base + adapters * adapter) * item + adapters * rows * cached


def machine_peaks(options: Namespace) -> tuple[str, float, float]:
    """Device, FLOP/s and bytes/s: a known chip's, else the best seen here.

    That is the best of JAX and torch on square matrix products in the benchmark's dtype and on
    copies of 256 MiB.
    """
    import jax
    import jax.numpy as jnp

    name, flops = peak_flops(model_of(options)[0].dtype, options)
    device = jax.devices()[0]
    if device.device_kind == name:
        return (name, *CHIPS[name])
    x = jnp.ones(2**26, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    copies = [lambda: copy(x).block_until_ready()]
    if torch := _torch_on_cpu(options):
        y = torch.ones(2**26)
        z = torch.empty_like(y)
        copies.append(lambda: z.copy_(y))
    return name, flops, 2 * 2**28 / min(map(fastest, copies))


def peak_flops(dtype: str, options: Namespace) -> tuple[str, float]:
    """Device and FLOP/s: a known chip's, else the best of JAX and torch on square products."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    if device.device_kind in CHIPS and dtype == "bfloat16":
        return device.device_kind, CHIPS[device.device_kind][0]
    size = 2048
    a = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    products = [lambda: multiply(a, a).block_until_ready()]
    if torch := _torch_on_cpu(options):
        b = torch.ones(size, size, dtype=getattr(torch, dtype))
        products.append(lambda: torch.matmul(b, b))
    flops = 2 * size**3 / min(fastest(product) for product in products)
    return f"{device.device_kind} (measured)", flops


def _torch_on_cpu(options: Namespace) -> Any:
    """The library, if it is installed and the device is a CPU."""
    import jax

    if jax.devices()[0].platform != "cpu":
        return None
    try:
        import torch
    except ImportError:
        return None
    torch_device(options)
    return torch


def fastest(function: Callable[[], Any], repeats: int = 7) -> float:
    """The least seconds of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
