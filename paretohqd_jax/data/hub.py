"""Tables by way of the `datasets` library: a folder it saved, a folder of files, a name on the hub.

No code of a data set is ever run and nothing is unpickled: of the library's readers only those of
plain tables are used.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from paretohqd_jax.data.rows import FORMATS, TEXTS, format_of, plain_texts, read_files
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    import datasets

READERS = ("arrow", "csv", "json", "parquet")
SAVED = ("dataset_dict.json", "state.json")  # what datasets' save_to_disk leaves
# What a card may say of how its files are to be read, and what is nothing special.
OPTIONS = (("field", (None,)), ("sep", (None, ",")))
IGNORED = ("config.json", "dataset_info.json", "dataset_infos.json")  # of the library itself

logger = logging.getLogger(__name__)


def is_hub_name(source: str) -> bool:
    """Whether `source` has the form "organisation/name" or "organisation/name/folder"."""
    parts = source.split("/")
    return len(parts) > 1 and all(re.fullmatch(r"[\w-][\w.-]*", part) for part in parts)


def read_dataset(
    source: str, split: str = "train", revision: str = "", texts: Sequence[str] = TEXTS
) -> pa.Table:
    """One split of a data set as a table.

    Args:
      source: a local directory, or "organisation/name" on the hub, with "/folder" for a part.
      split: its name, or a slice as in datasets: "train[:1000]", "train+test".
      revision: of a hub name, a commit or tag; "" takes the newest and says which that was.
      texts: of a csv, as of `read_table`.

    Raises:
      InputError: there is no such data set or split, or it cannot be read as plain tables.
    """
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if any((Path(source) / name).is_file() for name in SAVED):
            table = _saved(Path(source), split)
        elif Path(source).is_dir():
            table = _folder(source, split, texts)
        else:
            table = _hub(source, split, revision, texts)
        table = plain_texts(table)
    except InputError:
        raise
    except (HfHubHTTPError, datasets.exceptions.DatasetsError, pa.ArrowException, OSError,
            KeyError, RuntimeError, TypeError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        place = source if Path(source).is_dir() else f"{source} (no folder here, so on the hub)"
        raise InputError(f"{place}: split {split!r} cannot be read: {reason}") from error
    if table.num_rows == 0:
        raise InputError(f"{source}: split {split!r} has no rows")
    return table.replace_schema_metadata()


def _saved(folder: Path, split: str) -> pa.Table:
    """Of what `save_to_disk` left; a data set of no split counts as "train"."""
    if (folder / "dataset_dict.json").is_file():
        folders = {
            name: folder / name
            for name in json.loads((folder / "dataset_dict.json").read_text())["splits"]
        }
    else:
        folders = {_state(folder)["_split"] or "train": folder}
    wanted = [split] if split in folders else _split_names(split)
    unknown = [name for name in wanted if name not in folders]
    if unknown:
        raise InputError(f"{folder}: no split {unknown[0]!r}; there are {', '.join(folders)}")
    return _rows_of_split({name: _saved_rows(folders[name]) for name in wanted}, split)


def _saved_rows(folder: Path) -> pa.Table:
    import datasets

    if not _state(folder)["_data_files"]:  # which the library does not read
        return pa.table({})
    return datasets.load_from_disk(str(folder)).with_format("arrow")[:]


def _state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text())


def _folder(source: str, split: str, texts: Sequence[str]) -> pa.Table:
    """A folder of files, their splits as the datasets library finds them in its names."""
    builder = _builder(source, None, None)
    files = {name: list(map(Path, paths)) for name, paths in builder.config.data_files.items()}
    _check_complete(Path(source), files)
    return _read_split(builder, source, split, texts)


def _read_split(
    builder: datasets.DatasetBuilder, source: str, split: str, texts: Sequence[str]
) -> pa.Table:
    """A split of the builder's files, read as single files are, or else by the library.

    The library takes texts that look like dates for dates.
    """
    files = builder.config.data_files
    names = [Path(path) for paths in files.values() for path in paths]
    ours = all(path.name.endswith(FORMATS) for path in names)
    if not ours or any(
        getattr(builder.config, option, None) not in plain for option, plain in OPTIONS
    ):
        formats = sorted({format_of(path) for path in names})
        if len(formats) > 1:
            raise InputError(f"{source}: holds {', '.join(formats)}; give files of one format")
        builder.download_and_prepare()
        return builder.as_dataset(split=split).with_format("arrow")[:]
    wanted = _split_names(split)
    empty = pa.table({})
    return _rows_of_split(
        {
            name: read_files(list(map(_fetched, paths)), texts) if name in wanted else empty
            for name, paths in files.items()
        },
        split,
    )


def _fetched(path: str) -> Path:
    """The local file of one that may lie on the hub, as "hf://datasets/organisation/name@...".

    What is there is kept by the hub's own cache.
    """
    if not path.startswith("hf://"):
        return Path(path)
    import huggingface_hub

    place = huggingface_hub.HfFileSystem().resolve_path(path)
    return Path(
        huggingface_hub.hf_hub_download(
            place.repo_id, place.path_in_repo, repo_type=place.repo_type, revision=place.revision
        )
    )


def _check_complete(folder: Path, files: dict[str, list[Path]]) -> None:
    """Raises InputError if `files` lack one with rows: a file of another format, or of no split."""
    readme = folder / "README.md"
    if readme.is_file() and "data_files:" in readme.read_text("utf-8", "replace"):
        return  # which names those to be read
    read = {path.resolve() for paths in files.values() for path in paths}
    left = [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.name.endswith((*FORMATS, ".arrow", ".tsv", ".ndjson"))
        and path.resolve() not in read
        and path.name not in IGNORED
        and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
    ]
    if left:
        raise InputError(
            f"{folder}: {', '.join(map(str, left[:3]))} would not be read beside "
            f"{min(read).name}: give files of one format, all or none with a split in their names"
        )


def _split_names(split: str) -> list[str]:
    return [part.partition("[")[0].strip() for part in split.split("+")]


def _rows_of_split(splits: Mapping[str, pa.Table], split: str) -> pa.Table:
    """The rows of `splits` that a split or slices such as "train[:10]+test" name."""
    import datasets

    if split in splits:  # also one that was saved as "train+test"
        return splits[split]
    lengths = {name: table.num_rows for name, table in splits.items()}
    slices = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    tables = [splits[s.splitname].slice(s.from_, max(s.to - s.from_, 0)) for s in slices]
    return pa.concat_tables(tables, promote_options="permissive")


def _hub(source: str, split: str, revision: str, texts: Sequence[str]) -> pa.Table:
    name, folder = re.fullmatch(r"([^/]+/[^/]+)/?(.*)", source).groups()
    builder = _builder(name, folder or None, revision or None)
    if not revision:
        logger.warning(
            "%s: no revision is pinned and data sets change; for the same rows again set "
            "config.data.revision=%s", source, builder.hash,
        )  # fmt: skip
    return _read_split(builder, source, split, texts)


def _builder(name: str, folder: str | None, revision: str | None) -> datasets.DatasetBuilder:
    import datasets

    builder = datasets.load_dataset_builder(name, data_dir=folder, revision=revision)
    reader = type(builder).__module__.rsplit(".", 1)[-1]
    if reader not in READERS:
        raise InputError(f"{name}: holds {reader}; only {', '.join(READERS)} are read")
    return builder
