"""What must hold between the options that methods share, and between them and the rows."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config.engine import check_engine
from paretohqd_jax.config.objectives import objective_names
from paretohqd_jax.config.options import require, value_of
from paretohqd_jax.data.scores import parse_scores
from paretohqd_jax.errors import InputError


def check_alignment(config: ConfigDict, fewest_steps: int) -> None:
    """Checks the options of `ALIGNMENT` against each other and the steps of the shortest stage.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    check_sources(config, "data.source", "model.source")
    check_scores(config)
    check_train(config, fewest_steps)
    check_engine(config)
    for name in ("generate", "evaluate"):
        group = config[name]
        if group.get("num_beams", 1) > 1:
            searches = group.temperature == 0 and config.generate.engine == "jax"
            only = f"1, or more with config.{name}.temperature=0 and config.generate.engine='jax'"
            require(config, f"{name}.num_beams", searches, only)


def check_rows(source: str, num_rows: int, wanted: int, option: str) -> None:
    """Raises InputError for fewer training rows than an option wants."""
    if num_rows < wanted:
        raise InputError(
            f"{source}: {num_rows} rows to train on, without those held out and those of unfit "
            f"length, fewer than {option}={wanted}; give more rows, or lower {option}"
        )


def check_sources(config: ConfigDict, *names: str) -> None:
    """Raises InputError for one of these options that is empty, as all are by default."""
    for name in names:
        if not value_of(config, name):
            raise InputError(f"config.{name} is not set; see the comments in the config file")


def check_scores(config: ConfigDict) -> None:
    """Raises InputError unless the scores that the rows bring along are of objectives."""
    objectives = objective_names(config.rewards.models)
    given = set(parse_scores(config.data.scores))
    require(config, "data.scores", given <= set(objectives), f"some of {', '.join(objectives)}")


def check_train(config: ConfigDict, fewest_steps: int) -> None:
    """Raises InputError for a batch that cannot be parted, or a warm-up longer than a stage."""
    divides = config.train.batch_size % config.train.num_microbatches == 0
    divisor = f"a divisor of config.train.batch_size={config.train.batch_size}"
    require(config, "train.num_microbatches", divides, divisor)
    fits = config.train.warmup_steps < fewest_steps
    require(config, "train.warmup_steps", fits, f"< {fewest_steps}")
