"""Mistakes a user can mend: their exception, and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one line that names the file, row or field and what to do about it.

    The command line prints it without a traceback; any other exception is a defect of ours.
    """


class Paused(Exception):
    """The run cannot go on before the user has done something, which the message tells."""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Asks for the known name that a word comes nearest to, with a blank after it; else "".

    `prefix` is written before the name, and plays no part in what is near.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {prefix}{near[0]}? " if near else ""
