"""The prompts by which a model reviews and rewrites its own answers (SIPO, arXiv 2502.14354).

They are text files: those in `assets/` or a user's own. The authors' are not stored anywhere that
we could read; these have the same form, one example and then the case at hand.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from collections.abc import Mapping
from pathlib import Path

from paretohqd_jax.errors import InputError

NEXT_EXAMPLE = "Question:"  # where a model goes on with an example of its own
FIELDS = {
    "sipo_review": ("prompt", "response"),
    "sipo_rewrite": ("prompt", "response", "review"),
    "sipo_rewrite_alone": ("prompt", "response"),
}


def read_refinement_prompt(name: str, path: str, option: str) -> str:
    """The text of a user's file, or where `path` is empty, of the package's file `name`.

    Args:
      name: in FIELDS.
      path: of a file in UTF-8, or "".
      option: for messages.

    Raises:
      InputError: the file cannot be read, has not each field once, in braces, or another one.
    """
    if not path:
        assets = importlib.resources.files("paretohqd_jax.data") / "assets"
        return (assets / f"{name}.txt").read_text("utf-8").rstrip("\n")
    try:
        text = Path(os.path.expanduser(path)).read_text("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option}={path!r}: cannot be read ({error}); give a text file") from None
    found = re.findall(r"\{(\w+)\}", text)
    for field in sorted({*FIELDS[name], *found}):
        wanted = int(field in FIELDS[name])
        if found.count(field) != wanted:
            raise InputError(
                f"{option}={path!r}: has {{{field}}} {found.count(field)} times; it must have "
                f"{', '.join(f'{{{each}}}' for each in FIELDS[name])} once each, and no other field"
            )
    return text


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields, in braces, filled in; braces in what is filled in stay."""
    return re.sub(r"\{(prompt|response|review)\}", lambda field: values[field[1]], template)


def cut(text: str) -> str:
    """What a model wrote before it went on with an example of its own."""
    return text.partition(NEXT_EXAMPLE)[0].strip()
