"""Directories of the datasets library; a name on the hub goes through the same code."""

from __future__ import annotations

import gzip
import io
import json
import logging
import pickle
import tarfile
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest

from paretohqd_jax.data.hub import is_hub_name, read_dataset
from paretohqd_jax.data.sources import check_source, load_rows
from paretohqd_jax.errors import InputError

ROWS = [{"question": f"q{i}", "answer": f"a{i}", "id": i} for i in range(4)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """As repositories on the hub are laid out: one folder per part, a file per split."""
    part = tmp_path / "folder" / "part"
    part.mkdir(parents=True)
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        with gzip.open(part / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return part


def test_a_folder_of_files_has_splits(folder):
    assert read_dataset(str(folder)).to_pylist() == ROWS
    assert read_dataset(str(folder), "test").to_pylist() == ROWS[:1]
    assert read_dataset("folder/part", "train[:2]+test").num_rows == 3


def test_a_saved_data_set_or_several_splits(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    saved.select([2, 0]).save_to_disk("one")  # a selection is kept as indices
    assert read_dataset("one").to_pylist() == [ROWS[2], ROWS[0]]
    datasets.DatasetDict({"train": saved, "test": saved.select([3])}).save_to_disk("two")
    assert read_dataset("two", "test").to_pylist() == ROWS[3:]
    with pytest.raises(InputError, match="two: no split 'dev'; there are train, test"):
        read_dataset("two", "dev")


def test_slices_of_what_was_saved_and_splits_that_are_not_there(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk("one")
    assert read_dataset("one", "train[3:]+train[:1]").to_pylist() == [ROWS[3], ROWS[0]]
    with pytest.raises(InputError, match="one: no split 'test'; there are train"):
        read_dataset("one", "test")
    datasets.Dataset.from_list(ROWS, split="test").save_to_disk("named")
    assert read_dataset("named", "test").to_pylist() == ROWS
    with pytest.raises(InputError, match="named: no split 'train'; there are test"):
        read_dataset("named")


def test_what_has_no_rows_is_an_error(folder, tmp_path):
    empty = datasets.Dataset.from_list(ROWS).select([])
    empty.save_to_disk("empty")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": empty}).save_to_disk(
        "half"
    )
    assert read_dataset("half").num_rows == 4
    for source, split in (("empty", "train"), ("half", "test"), (str(folder), "train[9:]")):
        with pytest.raises(InputError, match="has no rows"):
            read_dataset(source, split)


def files(folder, **contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_text(content)
    return str(folder)


CSV, JSONL = "prompt,a\n007,1\n", '{"prompt": "2024-01-01", "a": 2.5}\n'


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a_csv": CSV, "b_jsonl": JSONL}, "a.csv would not be read beside b.jsonl"),
        ({"train_csv": CSV, "more_csv": CSV}, "more.csv would not be read beside train.csv"),
        ({"a_csv": CSV, "b_tsv": CSV}, "holds .csv, .tsv; give files of one format"),
        ({"train_csv": CSV, "test_jsonl": JSONL}, "Couldn't infer the same data file format"),
        ({"a_jsonl": JSONL, "b_jsonl": '{"a": "x"}'}, "in row 1: 'a' is 'x'"),
        ({"a_jsonl": JSONL, "b_jsonl": "{"}, "b.jsonl: cannot be read as jsonl: in row 0"),
    ],
)
def test_a_folder_is_read_as_a_whole_or_not_at_all(tmp_path, contents, message):
    with pytest.raises(InputError, match=message):
        read_dataset(files(tmp_path / "files", **contents))


def test_texts_of_a_folder_stay_texts(tmp_path):
    source = files(tmp_path / "json", a_json=f"[{JSONL}]", b_jsonl=JSONL.replace("2.5", "1"))
    assert read_dataset(source).to_pylist() == [
        {"prompt": "2024-01-01", "a": 2.5}, {"prompt": "2024-01-01", "a": 1.0}
    ]  # fmt: skip
    source = files(tmp_path / "csv", a_csv=CSV, b_csv=CSV.replace("007", "NA"))
    assert read_dataset(source)["prompt"].to_pylist() == ["007", "NA"]


def test_a_readme_may_name_the_files_to_be_read(tmp_path):
    readme = "---\nconfigs:\n- config_name: default\n  data_files: a.csv\n---\n"
    source = files(tmp_path / "files", a_csv=CSV, b_jsonl=JSONL, README_md=readme)
    assert read_dataset(source).num_rows == 1


def test_columns_get_our_names_and_rows_are_counted(folder):
    rows = load_rows(str(folder), columns="prompt=question, response=answer")
    assert rows.slice(3).to_pylist() == [{"prompt": "q3", "response": "a3", "source_row": 3}]


def test_a_name_on_the_hub_is_opened_at_its_revision_in_its_folder(folder, monkeypatch, caplog):
    opened = []

    def builder(name, data_dir, revision):
        opened.append((name, data_dir, revision))
        return original(str(folder))

    original = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    read_dataset("Anthropic/hh-rlhf/harmless-base", revision="09be8c5")
    assert "no revision" not in caplog.text
    with caplog.at_level(logging.WARNING):
        assert read_dataset("org/name").num_rows == 4
    assert opened == [("Anthropic/hh-rlhf", "harmless-base", "09be8c5"), ("org/name", None, None)]
    assert "org/name: no revision is pinned" in caplog.text


def test_files_on_the_hub_are_read_as_those_in_a_folder(tmp_path, monkeypatch):
    source = files(tmp_path / "files", train_jsonl=JSONL)
    builder = datasets.load_dataset_builder(source)
    place = "hf://datasets/org/name@09be8c5/train.jsonl"
    builder.config.data_files = {"train": [place]}
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    spread = SimpleNamespace(
        repo_id="org/name", path_in_repo="train.jsonl", repo_type="dataset", revision="09be8c5"
    )
    monkeypatch.setattr(
        huggingface_hub.HfFileSystem, "resolve_path", lambda _, path: {place: spread}[path]
    )
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download",
        lambda name, file, repo_type, revision: {
            ("org/name", "train.jsonl", "dataset", "09be8c5"): f"{source}/train.jsonl"
        }[name, file, repo_type, revision],
    )  # fmt: skip
    rows = read_dataset("org/name", revision="09be8c5").to_pylist()
    assert rows == [{"prompt": "2024-01-01", "a": 2.5}]


def test_a_card_may_say_how_files_are_separated(tmp_path):
    readme = "---\nconfigs:\n- config_name: default\n  data_files: a.csv\n  sep: ';'\n---\n"
    source = files(tmp_path / "files", a_csv=CSV.replace(",", ";"), README_md=readme)
    assert read_dataset(source).column_names == ["prompt", "a"]


def test_code_is_not_run_and_nothing_unpickled(tmp_path):
    for name in ("script", "pickle", "tar", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('ran')")
    bomb = pickle.dumps({"prompt": ["p"]})
    (tmp_path / "pickle" / "train.pkl").write_bytes(bomb)
    with tarfile.open(tmp_path / "tar" / "train.tar", "w") as tar:
        member = tarfile.TarInfo("0.pkl")
        member.size = len(bomb)
        tar.addfile(member, io.BytesIO(bomb))
    for name, reason in (
        ("script", "scripts are no longer supported"), ("pickle", "No .*data files"),
        ("tar", "holds webdataset; only arrow, csv, json, parquet"), ("empty", "any data files"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=reason) as error:
            read_dataset(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["nobody/nothing", "nobody/nothing/folder"])
def test_a_name_that_cannot_be_reached(source):
    with pytest.raises(
        InputError, match=f"{source} .no folder here, so on the hub.: split 'train' cannot be"
    ):
        load_rows(source)


def test_an_unknown_split_is_named(folder):
    with pytest.raises(InputError, match="split 'dev' cannot be read: Unknown split"):
        read_dataset(str(folder), "dev")


def test_names_of_the_hub(folder):
    assert is_hub_name("org/name") and is_hub_name("org/name.v1/a/b_c")
    assert not any(map(is_hub_name, ("name", "/org/name", "./org/name", "org//name", "a b/c")))
    for source in ("quickstart", "a.b:rows", "org/name", str(folder)):
        check_source(source)
    for source in ("rows/missing.parquet", "name", "/no/such/folder", "../x"):
        with pytest.raises(InputError, match="no such file or directory"):
            check_source(source)
