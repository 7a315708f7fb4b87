"""Tables by way of the `datasets` library: a folder it saved, a folder of files, a name on the hub.

No code of a data set is ever run and nothing is unpickled: of the library's readers only those of
plain tables are used.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    import datasets

READERS = ("arrow", "csv", "json", "parquet")
SAVED = ("dataset_dict.json", "state.json")  # what datasets' save_to_disk leaves

logger = logging.getLogger(__name__)


def is_hub_name(source: str) -> bool:
    """Whether `source` has the form "organisation/name" or "organisation/name/folder"."""
    parts = source.split("/")
    return len(parts) > 1 and all(re.fullmatch(r"[\w-][\w.-]*", part) for part in parts)


def read_dataset(source: str, split: str = "train", revision: str = "") -> pa.Table:
    """One split of a data set as a table.

    Args:
      source: a local directory, or "organisation/name" on the hub, with "/folder" for a part.
      split: its name, or a slice as in datasets: "train[:1000]", "train+test".
      revision: of a hub name, a commit or tag; "" takes the newest and says which that was.

    Raises:
      InputError: there is no such data set or split, or it cannot be read as plain tables.
    """
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = _open(source, split, revision)
        return found.with_format("arrow")[:].replace_schema_metadata()
    except InputError:
        raise
    except (HfHubHTTPError, datasets.exceptions.DatasetsError, pa.ArrowException, OSError,
            KeyError, RuntimeError, TypeError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        place = source if Path(source).is_dir() else f"{source} (no folder here, so on the hub)"
        raise InputError(f"{place}: split {split!r} cannot be read: {reason}") from error


def _open(source: str, split: str, revision: str) -> datasets.Dataset:
    import datasets

    if any((Path(source) / name).is_file() for name in SAVED):
        saved = datasets.load_from_disk(source)
        if isinstance(saved, datasets.Dataset):
            return saved
        if split not in saved:
            raise InputError(f"{source}: no split {split!r}; there are {', '.join(saved)}")
        return saved[split]
    name, folder = source, None
    if not Path(source).is_dir():
        name, folder = re.fullmatch(r"([^/]+/[^/]+)/?(.*)", source).groups()
    builder = datasets.load_dataset_builder(
        name, data_dir=folder or None, revision=revision or None
    )
    reader = type(builder).__module__.rsplit(".", 1)[-1]
    if reader not in READERS:
        raise InputError(f"{source}: holds {reader}; only {', '.join(READERS)} are read")
    if not Path(source).is_dir() and not revision:
        logger.warning(
            "%s: no revision is pinned and data sets change; for the same rows again set "
            "config.data.revision=%s", source, builder.hash,
        )  # fmt: skip
    builder.download_and_prepare()
    return builder.as_dataset(split=split)
