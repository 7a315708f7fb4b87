"""What a run directory records of its steps, and what can be told from it.

`manifest.json` holds, for each finished step, the fingerprint of what made it, those of its inputs,
its options, seconds, devices and versions; `config.json` holds the options the run was last begun
with.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from paretohqd_jax.config.options import flat
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json

MANIFEST = "manifest.json"
LOCK = ".lock"  # held while a run is at work
LOGS = "logs"  # of training, by the names of the steps
LAYOUT = 2  # of run directories; what wrote another one is another version of this package
RECORDED_PACKAGES = ("paretohqd_jax", "jax", "jaxlib", "flax", "optax", "numpy")

FIELDS = {"fingerprint": str, "inputs": list, "options": dict, "seconds": float, "cost": dict}

Manifest = dict[str, dict[str, Any]]  # the record of each step by its name, in the order of ends


def read_manifest(workdir: Path) -> Manifest:
    """What is recorded of each finished step in a run directory, in the order they finished.

    Raises:
      InputError: the file is damaged, or the directory is that of another version.
    """
    path = workdir / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        layout = manifest.get("layout", 1)
        steps = {name: _checked(record, name) for name, record in manifest.get("steps", {}).items()}
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


def _checked(record: dict[str, Any], name: str) -> dict[str, Any]:
    for field, kind in FIELDS.items():
        if not isinstance(record.get(field), kind):
            raise ValueError(f"the {field} of step {name!r} is {record.get(field)!r}")
    return record


def write_manifest(workdir: Path, manifest: Manifest) -> None:
    """Writes what `read_manifest` reads."""
    write_json(workdir / MANIFEST, {"layout": LAYOUT, "steps": manifest})


def steps_behind(manifest: Manifest, step: str) -> Manifest:
    """The records of a step and of all that it came from; none where one of these was made anew."""
    made = {record["fingerprint"]: name for name, record in manifest.items()}
    found, waiting = {}, [step]
    while waiting:
        name = waiting.pop()
        if name not in manifest:
            return {}
        found[name] = manifest[name]
        waiting += [made.get(given, "") for given in manifest[name]["inputs"]]
    return found


def is_current(workdir: Path, manifest: Manifest, step: str) -> bool:
    """Whether what a step left goes with what is there of the steps before it.

    It does not while another run is at work, or has stopped, in the directory.
    """
    partial = workdir / "partial"
    at_work = partial.is_dir() and any(partial.iterdir())
    return not at_work and bool(steps_behind(manifest, step))


def what_changed(record: dict[str, Any], options: dict[str, Any]) -> str:
    """Why a step with these options, that left this record, has to run again, in words."""
    if not record:
        return "not done yet"
    old, new = flat(record["options"]), flat(options)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    changes = (f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
    return "; ".join(changes) or "a step before it changed"


def versions() -> dict[str, str]:
    """Of the packages that results may depend on."""
    return {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}


def first_day(workdir: Path) -> str:
    """The day that the run in `workdir` began, by its record, or today, as 2026-01-31."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        if recorded := json.loads((workdir / "config.json").read_text())["data"]["date"]:
            return recorded
    return datetime.date.today().isoformat()
