"""The manifest of a run directory: what is recorded of each finished step."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError

MANIFEST = "manifest.json"
LAYOUT = 2  # of run directories; what wrote another one is another version of this package
RECORDED_PACKAGES = ("paretohqd_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Of the packages that results may depend on."""
    return {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}


def read_manifest(workdir: Path) -> dict[str, dict[str, Any]]:
    """What is recorded of each finished step in a run directory, in the order they finished.

    Raises:
      InputError: the file is damaged, or the directory is that of another version.
    """
    path = workdir / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        layout = manifest.get("layout", 1)
        steps = {name: dict(record) for name, record in manifest.get("steps", {}).items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: damaged ({error}); delete this file to run all steps again"
        ) from error
    if layout != LAYOUT:
        raise InputError(
            f"{workdir}: is a run directory of layout {layout}, made by another version of "
            f"paretohqd_jax, and this one reads layout {LAYOUT}; give another --workdir"
        )
    return steps


def is_current(workdir: Path, manifest: dict[str, dict[str, Any]], step: str) -> bool:
    """Whether what a step left goes with what is there of the steps before it.

    It does not while another run is at work, or has stopped, in the directory.
    """
    made = {record["fingerprint"]: record for record in manifest.values()}

    def goes_together(record: dict[str, Any]) -> bool:
        return all(given in made and goes_together(made[given]) for given in record["inputs"])

    partial = workdir / "partial"
    at_work = partial.is_dir() and any(partial.iterdir())
    return step in manifest and not at_work and goes_together(manifest[step])
