"""Merged checkpoints are what transformers reads."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from export_adapter import LORA, MERGED, golden_adapter
from safetensors.numpy import load_file

from paretohqd_jax.files import write_json
from paretohqd_jax.models import merging
from paretohqd_jax.models.huggingface import parse_config
from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.merging import export_merged
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.models.tokenizer import eos_token_ids, load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY, load_config, load_pretrained

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "merged.npz")


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The directory of checkpoints that transformers read when the golden file was made."""
    directory = tmp_path_factory.mktemp("merged")
    for name, source in MERGED.items():
        adapter = golden_adapter(load_config(source))
        export_merged(directory / name, source, adapter, LORA, "float32", 40_000)
    return directory


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, variables, tokens):
    hidden, _ = model.apply(variables, tokens[None])
    return compute_logits(hidden, output_embedding(variables["params"], model.config))[0]


def adapted_logits(name, tokens):
    """What our own base model and adapter say."""
    config, params = load_pretrained(MERGED[name])
    variables = {"params": params, "lora": golden_adapter(config)}
    return logits_of(Llama(config, LORA), variables, tokens)


@pytest.mark.parametrize("name", MERGED)
def test_transformers_read_our_logits_from_what_is_written(merged, golden, name):
    assert (merged / name / "config.json").read_text() == str(golden[f"{name}_config"])
    config, params = load_pretrained(str(merged / name))
    read_again = logits_of(Llama(config), {"params": params}, golden["tokens"])[::4]
    np.testing.assert_allclose(read_again, golden[name], rtol=0, atol=1e-4)
    ours = adapted_logits(name, golden["tokens"])[::4]
    np.testing.assert_allclose(ours, golden[name], rtol=0, atol=1e-4)
    base = logits_of(Llama(config), {"params": load_pretrained(MERGED[name])[1]}, golden["tokens"])
    assert np.abs(base[::4] - golden[name]).max() > 1.0


def test_the_files_are_those_that_transformers_writes(merged):
    """`untied` was written by transformers, in files of the same size."""
    ours, theirs = merged / "untied", GOLDEN / "untied"
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    index, expected = (
        json.loads((path / "model.safetensors.index.json").read_text()) for path in (ours, theirs)
    )
    assert index["weight_map"].keys() == expected["weight_map"].keys()
    assert index["metadata"]["total_size"] == expected["metadata"]["total_size"]
    assert json.loads((ours / "config.json").read_text()) == json.loads(
        (theirs / "config.json").read_text()
    )
    modes = {path.stat().st_mode for path in ours.iterdir()}
    assert len(modes) == 1, "safetensors are as readable as the rest"


def test_only_adapted_tensors_change(tmp_path):
    source = str(GOLDEN / "tied")  # bfloat16, as transformers 4 wrote it
    export_merged(tmp_path / "new", source, golden_adapter(load_config(source)), LORA, "bfloat16")
    base = load_file(GOLDEN / "tied" / "model.safetensors")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    changed = {name for name in base if not np.array_equal(tensors[name], base[name])}
    assert tensors.keys() == base.keys() and {str(t.dtype) for t in tensors.values()} == {
        "bfloat16"
    }
    assert {name.split(".")[4] for name in changed} == {*LORA.targets}
    assert len(changed) == 2 * len(LORA.targets)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["untied", "qwen2", "qwen3"])
def test_configurations_of_models_that_came_without(name):
    config = load_config(str(GOLDEN / name))
    assert parse_config(Path("config.json"), merging.config_values(config)) == config


def test_the_tokenizer_comes_along(merged):
    ours, theirs = load_tokenizer(RANDOM_TOY), load_tokenizer(str(merged / "toy"))
    text = "wörter <eos> 12"
    assert theirs(text).input_ids == ours(text).input_ids
    assert theirs.chat_template == ours.chat_template
    assert eos_token_ids(theirs, str(merged / "toy")) == eos_token_ids(ours, RANDOM_TOY) == (256,)


def test_another_chat_template_is_the_only_one(tmp_path):
    base = shutil.copytree(GOLDEN / "tied", tmp_path / "base")
    tokenizer = load_tokenizer(RANDOM_TOY)
    tokenizer.save_pretrained(base)
    (base / "chat_template.jinja").unlink()  # as older versions wrote it
    path = base / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | {"chat_template": tokenizer.chat_template})
    adapter = golden_adapter(load_config(str(base)))
    for name, given in (("same", None), ("other", "{{ messages[0].content }}?")):
        export_merged(tmp_path / name, str(base), adapter, LORA, "float32", chat_template=given)
        written = load_tokenizer(str(tmp_path / name)).chat_template
        assert written == (given or tokenizer.chat_template)
    assert "chat_template" not in (tmp_path / "other" / "tokenizer_config.json").read_text()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(merging, "write_tensors", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        source = MERGED["untied"]
        export_merged(
            tmp_path / "new", source, golden_adapter(load_config(source)), LORA, "float32"
        )
    assert not list(tmp_path.iterdir())


# transformers and PEFT themselves, where they are installed with PyTorch; above are their answers.


def reference_logits(model, tokens):
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor(tokens.astype(int))[None]).logits[0].float().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", MERGED)
def test_transformers_gives_our_logits(merged, golden, name):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(merged / name)
    assert model.dtype == torch.float32
    theirs = reference_logits(model, golden["tokens"])
    ours = adapted_logits(name, golden["tokens"])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_peft_gives_our_logits(golden, tmp_path):
    pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    config = load_config(MERGED["untied"])
    export_peft(tmp_path / "adapter", golden_adapter(config), LORA, config, MERGED["untied"])
    model = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    theirs = reference_logits(model, golden["tokens"])
    ours = adapted_logits("untied", golden["tokens"])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(MERGED["untied"])
    assert np.abs(theirs - reference_logits(base, golden["tokens"])).max() > 1.0
