"""The options that say who decodes: this package, or a serving engine outside."""

from __future__ import annotations

import contextlib
import shlex

from ml_collections import ConfigDict

from paretohqd_jax.config.options import OURS, Option, Valid, one_of, require


def _is_command(text: str) -> bool:
    """Whether a text has the words of a command, one of them the script or with the folder.

    The script stands for several words, so it cannot be a part of one.
    """
    with contextlib.suppress(ValueError):
        words = shlex.split(text)
        if any("{script}" in word and word != "{script}" for word in words):
            return False
        return not text or any("{script}" in w or "{folder}" in w for w in words[1:])
    return False


ENGINE = {
    "engine": Option(
        "jax",
        one_of("jax", "external"),
        OURS,
        'Who decodes, for the evaluation too: "external" is a serving engine such as vLLM; the run '
        "stops and tells you the command that starts it.",
    ),
    "engine_command": Option(
        "",
        Valid("'' or a command with {script}, as a word, or {folder} in it", _is_command),
        OURS,
        'The command, for the run to start it itself: "PYTHON {script}" with the Python of vLLM\'s '
        "environment, or your own engine's, with {folder}, that of requests and answers.",
    ),
}


def check_engine(config: ConfigDict) -> None:
    """Raises InputError for a command that nobody would run."""
    used = config.generate.engine == "external" or not config.generate.engine_command
    require(config, "generate.engine_command", used, "it with config.generate.engine='external'")
