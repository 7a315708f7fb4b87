"""The configs of whole tasks are resolved, valid and fit their hardware; no weights are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from jax.sharding import AbstractMesh

from paretohqd_jax.config import check_config, parse_preferences
from paretohqd_jax.config.mopo import trade_offs
from paretohqd_jax.data.sources import check_source
from paretohqd_jax.errors import InputError
from paretohqd_jax.main import parse_flags
from paretohqd_jax.models.attention import check_attention
from paretohqd_jax.models.huggingface import parse_config
from paretohqd_jax.models.llama import Llama, logical_sizes
from paretohqd_jax.models.lora import LoraConfig, with_rank
from paretohqd_jax.pareto import representatives
from paretohqd_jax.rewards.registry import find_entry
from paretohqd_jax.rewards.scoring import SCORERS
from paretohqd_jax.sampling.answerers import Answerer, alone
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps import capacity
from paretohqd_jax.steps.preferences import NUM_RESPONSES
from paretohqd_jax.training.mesh import AXES, check_sizes

CONFIGS = Path(__file__).parents[2] / "configs"
DEVICES = {"v5p-8": (4, 95e9), "v4-32": (16, 32e9), "h100": (1, 80e9)}  # how many, bytes of each
LARGE_DEVICES = {"v5p-16": (8, 95e9), "v6e-32": (32, 32e9), "v5e-128": (128, 16e9)}
LLAMA2_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3_8B = LLAMA2_7B | {
    "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
LLAMA3_70B = LLAMA3_8B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64,
}  # fmt: skip
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 40960, "rope_theta": 1000000, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "attention_bias": False, "use_sliding_window": False,
}  # fmt: skip
GEMMA3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
}  # fmt: skip
MISTRAL_7B = LLAMA2_7B | {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "intermediate_size": 14336,
    "num_key_value_heads": 8, "max_position_embeddings": 32768, "rope_theta": 1e6,
    "sliding_window": None,
}  # fmt: skip
# The model of each task, the number of its preferences and of its representatives.
TASKS = {
    "hh_llama2_7b": (LLAMA2_7B, 11, 3), "hh3_llama2_7b": (LLAMA2_7B, 13, 4),
    "summary_llama2_7b": (LLAMA2_7B, 11, 3), "llama3_8b": (LLAMA3_8B, 11, 3),
    "qwen3_8b": (QWEN3_8B, 11, 3), "gemma3_4b": (GEMMA3_4B, 11, 3),
}  # fmt: skip
# Tasks on preference pairs, by whichever method.
ON_PAIRS = {"safe_rlhf_llama": LLAMA2_7B, "helpsteer_mistral": MISTRAL_7B}
SIPO = {  # stated by its code, for both tasks and for each
    name: {
        "sipo.learning_rate": 5e-6, "sipo.nll_weight": 0.1, "sipo.weights": "inner",
        "sipo.soup_weights": "inner", "sipo.filter": "implicit", "sipo.margin": 0,
        "generate.temperature": 0, "evaluate.temperature": 0, **own,
    }
    for name, own in {
        "sipo_beavertails_llama2_7b": {"generate.num_prompts": 2500, "sipo.refinement": "none"},
        "sipo_helpsteer_llama2_7b": {
            "pairs.conflict": 0.6, "sipo.refinement": "review", "sipo.reviewer": "1,0",
        },
    }.items()
}  # fmt: skip
METHODS_ON_PAIRS = ("dpo", "dpo_lw", "dpo_soup", "mod", "modpo", "raco", "smooth_tchebycheff")
RIC = {  # stated by its code
    "ric.mapping": "l2", "ric.range": "normal", "ric.quantile": 0.7, "ric.num_original": 10_000,
    "lora.rank": 64, "lora.alpha": 128, "lora.dropout": 0.05, "lora.targets": ("q_proj", "v_proj"),
    "train.offline_steps": 20_000, "train.online_steps": 4_000, "train.batch_size": 8,
    "train.learning_rate": 1.414e-4, "train.online_learning_rate": 1e-5,
    "train.weight_decay": 0.01, "train.warmup_steps": 0, "data.min_tokens": 8,
    "data.max_tokens": 512, "generate.num_prompts": 20_000, "generate.temperature": 0.7,
    "generate.top_p": 0.9, "evaluate.temperature": 1.0, "evaluate.top_p": 0.9,
}  # fmt: skip
MODPO = {  # stated by its code, and by SIPO's alike
    "lora.rank": 64, "lora.alpha": 1, "lora.dropout": 0, "dpo.beta": 0.1, "data.max_tokens": 512,
    "lora.targets": ("q_proj", "k_proj", "v_proj", "o_proj"), "train.learning_rate": 5e-4,
    "train.weight_decay": 0.05,
}  # fmt: skip
PAPER = {  # stated by the paper, or by the code whose settings it follows
    "select.k": 100, "lora.rank": 64, "lora.alpha": 128, "lora.dropout": 0.05,
    "lora.targets": ("q_proj", "v_proj"),
    "train.stage1_steps": 200, "train.stage2_steps": 200, "train.batch_size": 8,
    "train.learning_rate": 1.41e-4, "train.weight_decay": 0.01, "train.warmup_steps": 0,
    "data.min_tokens": 8, "data.max_tokens": 512,
    "generate.num_prompts": 10_000, "generate.max_new_tokens": 128,
    "generate.temperature": 0.7, "generate.top_p": 0.9, "generate.top_k": 0,
    "evaluate.max_new_tokens": 128, "evaluate.temperature": 1.0, "evaluate.top_p": 0.9,
    "evaluate.top_k": 0,
}  # fmt: skip
SUMMARY = {"generate.max_new_tokens": 48, "evaluate.max_new_tokens": 48}


def task(name: str, argument: str):
    path = CONFIGS / f"{name}.py:{argument}"
    return parse_flags(["paretohqd", f"--config={path}", "--workdir=run"])[0]


def base_of(config, values, num_devices):
    """What is needed of the base model to estimate memory; its sizes fit the mesh."""
    dtypes = {"dtype": config.model.dtype, "remat": config.model.remat}
    network = dataclasses.replace(parse_config(Path("config.json"), values), **dtypes)
    fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
    shape = (num_devices // fsdp // tensor, fsdp, tensor)
    base = SimpleNamespace(
        model=Llama(network, LoraConfig(**config.lora)), mesh=AbstractMesh(shape, AXES),
        dtype=config.model.dtype, remat=config.model.remat,
    )  # fmt: skip
    check_attention(config.model.attention, network.dtype, network.head_dim)
    train = config.train
    check_sizes(base.mesh, {"batch": train.batch_size // train.num_microbatches})
    check_sizes(base.mesh, logical_sizes(network))
    return base


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_valid_as_it_stands(name):
    config = task(name, "h100")
    check_config(config)
    check_source(config.data.source)
    assert all(find_entry(model) or model in SCORERS for model in config.rewards.models)
    preferences = parse_preferences(config.preferences, len(config.rewards.models))
    assert (len(preferences), len(representatives(preferences))) == TASKS[name][1:]
    stated = {"select.k": 100, "train.stage1_steps": 200, "train.stage2_steps": 200}
    if name.endswith("llama2_7b"):
        stated = PAPER | (SUMMARY if name.startswith("summary") else {})
    for option, value in stated.items():
        group, _, option = option.partition(".")
        assert config[group][option] == value, option


def test_unknown_hardware_is_named_with_what_there_is():
    for name in TASKS:
        with pytest.raises(InputError, match="'v99' is not one of v5p-8, v4-32, h100"):
            task(name, "v99")


@pytest.mark.parametrize("hardware", DEVICES)
@pytest.mark.parametrize("name", TASKS)
def test_a_task_fits_its_hardware(name, hardware, monkeypatch):
    """With a quarter to spare: JAX takes three quarters of a GPU."""
    check_fit(task(name, hardware), *TASKS[name], *DEVICES[hardware], monkeypatch)


@pytest.mark.parametrize("hardware", LARGE_DEVICES)
def test_a_model_of_70b_fits_slices(hardware, monkeypatch):
    """Its mesh divides the model and the batch, and a quarter of each chip is to spare."""
    config, devices = task("llama3_70b", hardware), LARGE_DEVICES[hardware]
    check_config(config)
    check_fit(config, LLAMA3_70B, 11, 3, *devices, monkeypatch)


def check_fit(
    config, values, num_preferences, num_representatives, num_devices, device_bytes, monkeypatch
):
    """Training, generation and the answers of all models."""
    estimates = []
    monkeypatch.setattr(capacity, "check_memory", lambda memory, *_: estimates.append(memory))
    base, train = base_of(config, values, num_devices), config.train
    capacity.check_training_memory(
        base, num_preferences, train.batch_size, config.data.max_tokens, train.num_microbatches
    )
    prompts = [[0] * (config.data.max_tokens - 1)] * 1000
    num_adapters = {"generate": num_representatives, "respond": 1 + 2 * num_preferences}
    for step, group in (("generate", config.generate), ("respond", config.evaluate)):
        how = SamplingConfig(group.max_new_tokens)
        answerers = alone(num_adapters[step])
        capacity.check_generation_memory(
            base, [prompts] * len(answerers), answerers, how, group.batch_size, step, ""
        )
    assert len(estimates) == 3
    for memory in estimates:
        assert memory.total < 0.75 * device_bytes, memory


@pytest.mark.parametrize("name", SIPO)
def test_a_task_of_sipo_is_valid_and_fits_its_hardware(name, monkeypatch):
    estimates = []
    monkeypatch.setattr(capacity, "check_memory", lambda memory, *_: estimates.append(memory))
    for hardware, (num_devices, device_bytes) in DEVICES.items():
        config = task(name, hardware)
        check_config(config)
        base, train = base_of(config, LLAMA2_7B, num_devices), config.train
        both = Llama(base.model.config, with_rank(base.model.lora, 2 * config.lora.rank))
        base = SimpleNamespace(**vars(base) | {"model": both})
        capacity.check_training_memory(
            base, 2, train.batch_size, config.data.max_tokens, train.num_microbatches, NUM_RESPONSES
        )
        assert estimates.pop().total < 0.75 * device_bytes
    for option, value in (MODPO | SIPO[name]).items():
        group, _, option = option.partition(".")
        assert config[group][option] == value, option


@pytest.mark.parametrize("method", METHODS_ON_PAIRS)
@pytest.mark.parametrize("name", ON_PAIRS)
def test_a_task_on_pairs_is_valid_as_it_stands(name, method):
    config = task(name, method)
    assert config.method == method
    check_config(config)
    check_source(config.data.source)
    assert all(find_entry(model.partition("=")[2]) for model in config.rewards.models)
    for option, value in MODPO.items():
        group, _, option = option.partition(".")
        assert config[group][option] == value, option


@pytest.mark.parametrize("hardware", DEVICES)
@pytest.mark.parametrize("name", ON_PAIRS)
def test_a_task_on_pairs_fits_its_hardware(name, hardware, monkeypatch):
    """By the method that needs most memory, which has a gradient for each objective."""
    estimates = []
    monkeypatch.setattr(capacity, "check_memory", lambda memory, *_: estimates.append(memory))
    config, (num_devices, device_bytes) = task(name, f"raco,{hardware}"), DEVICES[hardware]
    base, train = base_of(config, ON_PAIRS[name], num_devices), config.train
    capacity.check_training_memory(
        base, 11, train.batch_size, config.data.max_tokens, train.num_microbatches, NUM_RESPONSES,
        num_gradients=len(config.rewards.models),
    )  # fmt: skip
    [memory] = estimates
    assert memory.total < 0.75 * device_bytes, memory


@pytest.mark.parametrize("hardware", DEVICES)
def test_the_task_of_reinforcement_is_valid_and_fits_its_hardware(hardware, monkeypatch):
    estimates = []
    monkeypatch.setattr(capacity, "check_memory", lambda memory, *_: estimates.append(memory))
    config, (num_devices, device_bytes) = task("morlhf_llama2_7b", hardware), DEVICES[hardware]
    check_config(config)
    check_source(config.data.source)
    base, policy = base_of(config, LLAMA2_7B, num_devices), config.morlhf
    capacity.check_reinforcement_memory(
        base, 5, policy.num_prompts * policy.num_answers, policy.max_prompt_tokens,
        SamplingConfig(config.generate.max_new_tokens), config.generate.batch_size,
        config.train.batch_size, config.train.num_microbatches,
    )  # fmt: skip
    assert len(estimates) == 2
    for memory in estimates:
        assert memory.total < 0.75 * device_bytes, memory


@pytest.mark.parametrize("name", ON_PAIRS)
def test_a_method_that_learns_from_no_pairs_is_refused(name):
    with pytest.raises(InputError, match="'sft': write METHOD or METHOD,HARDWARE, one of dpo, "):
        task(name, "sft")


@pytest.mark.parametrize(
    ("name", "hardware"), [("assistant", "v5p-8"), ("assistant", "h100"), ("summary", "v4-32")]
)
def test_rewards_in_context_is_valid_as_it_stands_and_fits_its_hardware(
    name, hardware, monkeypatch
):
    estimates = []
    monkeypatch.setattr(capacity, "check_memory", lambda memory, *_: estimates.append(memory))
    config = task("ric_llama2_7b", f"{name},{hardware}")
    num_devices, device_bytes = DEVICES[hardware]
    check_config(config)
    check_source(config.data.source)
    assert all(find_entry(model) for model in config.rewards.models)
    assert config.seed == 8888
    for option, value in RIC.items():
        group, _, option = option.partition(".")
        assert config[group][option] == value, option
    base, train = base_of(config, LLAMA2_7B, num_devices), config.train
    longest = config.data.max_tokens + 32  # with scores
    capacity.check_training_memory(base, 1, train.batch_size, longest, train.num_microbatches)
    prompts = [[0] * (longest - 1)] * 1000
    for step, group, size in (("generate1", config.generate, 1), ("respond", config.evaluate, 34)):
        answerers = [Answerer((0,))] * size
        capacity.check_generation_memory(
            base, [prompts] * size, answerers, SamplingConfig(group.max_new_tokens),
            group.batch_size, step, "",
        )  # fmt: skip
    assert len(estimates) == 3
    for memory in estimates:
        assert memory.total < 0.75 * device_bytes, memory


def test_another_task_of_rewards_in_context_is_named():
    with pytest.raises(InputError, match="'poems,h100': write TASK or TASK,HARDWARE, one of assis"):
        task("ric_llama2_7b", "poems,h100")


@pytest.mark.parametrize("hardware", DEVICES)
def test_the_task_of_mopo_is_the_papers_and_fits_its_hardware(hardware, monkeypatch):
    estimates = []
    monkeypatch.setattr(capacity, "check_memory", lambda memory, *_: estimates.append(memory))
    config, (num_devices, device_bytes) = task("mopo_hh_llama3_8b", hardware), DEVICES[hardware]
    check_config(config)
    stated = {"mopo.tau": 0.08, "mopo.thresholds": "adaptive", "train.num_steps": 10_000,
              "train.batch_size": 8}  # fmt: skip
    for option, value in stated.items():
        group, _, option = option.partition(".")
        assert config[group][option] == value, option
    labels = [wanted.label for wanted in trade_offs(config)]
    assert labels[-1] == "helpful,beta=0.9995" and len(labels) == 5
    base, train = base_of(config, LLAMA3_8B, num_devices), config.train
    capacity.check_training_memory(
        base, len(labels), train.batch_size, config.data.max_tokens, train.num_microbatches
    )
    [memory] = estimates
    assert memory.total < 0.75 * device_bytes, memory
