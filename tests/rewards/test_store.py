"""What is kept of scores: found by whoever shares the store, and never taken for another's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paretohqd_jax.errors import InputError
from paretohqd_jax.rewards import registry
from paretohqd_jax.rewards import store as module
from paretohqd_jax.rewards.identity import content_digest, model_identity
from paretohqd_jax.rewards.registry import find_entry
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.rewards.store import Scores, check_store, folder_of

PROMPTS, RESPONSES = ["a", "b", "a"], ["x", "x", "y z"]


def folder(store, name="s"):
    return folder_of(store, name, {"function": name})


def keep(store, rewards, name="s", texts=(PROMPTS, RESPONSES)):
    scores = Scores([folder(store, name)], *texts)
    scores.add(0, list(range(len(rewards))), rewards, [reward > 1 for reward in rewards])
    scores.write()


def kept(store, name="s", texts=(PROMPTS, RESPONSES)):
    return Scores([folder(store, name)], *texts).rewards[:, 0].tolist()


def test_scores_are_kept_by_scorer_prompt_and_response(tmp_path):
    exact = float(np.float32(1 / 3))
    keep(tmp_path, [exact, 2.0])
    scores = Scores([folder(tmp_path), None, folder(tmp_path, "t")], PROMPTS, RESPONSES)
    np.testing.assert_array_equal(scores.rewards[:, 0], [exact, 2.0, np.nan])
    assert scores.is_cut[:, 0].tolist() == [False, True, False]
    assert np.isnan(scores.rewards[:, 1:]).all()
    told = json.loads((folder(tmp_path).path / "scorer.json").read_text())
    assert told == {"name": "s", "function": "s", "format": 1}
    assert kept(tmp_path, texts=(["b"], ["x"])) == [2.0]
    assert np.isnan(kept(tmp_path, texts=(["x"], ["b"])))


def test_of_two_scores_of_a_text_the_first_counts(tmp_path):
    texts = (PROMPTS, RESPONSES)
    both = [Scores([folder(tmp_path)], *texts) for _ in range(2)]
    for scores, reward in zip(both, (1.0, 9.0), strict=True):  # two runs that know of no other
        scores.add(0, [0], [reward], [False])
        scores.write()
    assert kept(tmp_path)[0] == 1.0
    assert len(list(folder(tmp_path).path.glob("*.safetensors"))) == 2


def test_what_is_added_is_in_a_file_seconds_later(tmp_path, monkeypatch):
    clock = iter([0.0, 4.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    scores = Scores([folder(tmp_path)], PROMPTS, RESPONSES)
    scores.add(0, [0], [1.0], [False])
    assert not tmp_path.joinpath(folder(tmp_path).path).exists()
    scores.add(0, [1], [2.0], [False])
    [file] = folder(tmp_path).path.glob("*.safetensors")
    assert load_file(file)["rewards"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file, other: file.write_bytes(file.read_bytes()[:-1]), "damaged ("),
        (lambda file, other: file.write_bytes(b""), "damaged ("),
        (lambda file, other: save_file({"rewards": np.zeros(2)}, file), "damaged ("),
        (lambda file, other: _forge(file), "damaged, its checksum is another"),
        (lambda file, other: shutil.copy(other, file), "of another scorer, "),
    ],
    ids=["cut off", "empty", "of another kind", "changed", "of another scorer"],
)
def test_a_file_that_is_damaged_or_foreign_is_named_and_set_aside(
    tmp_path, caplog, spoil, reason
):  # fmt: skip
    keep(tmp_path, [1.0, 2.0])
    keep(tmp_path, [7.0, 8.0], "other")
    keep(tmp_path, [5.0], texts=(["c"], ["z"]))
    file, whole = sorted(folder(tmp_path).path.glob("*.safetensors"))
    [other] = folder(tmp_path, "other").path.glob("*.safetensors")
    spoil(file, other)
    assert np.isnan(kept(tmp_path)).all() and kept(tmp_path, texts=(["c"], ["z"])) == [5.0]
    [record] = caplog.records
    assert record.getMessage().startswith(f"{file}: ") and reason in record.getMessage()
    assert "set aside as" in record.getMessage() and "\n" not in record.getMessage()
    assert not file.exists() and file.with_suffix(".damaged").exists() and whole.exists()


def test_a_file_that_another_run_is_writing_is_left_alone(tmp_path, caplog):
    keep(tmp_path, [1.0, 2.0])
    unfinished = folder(tmp_path).path / ".tmp-0.safetensors"  # as `files.atomic_path` has it
    unfinished.touch()
    assert kept(tmp_path)[:2] == [1.0, 2.0]
    assert unfinished.exists() and not caplog.records


def _forge(file):
    columns = load_file(file)
    metadata = {"scorer": file.parent.name, "sha256": "0" * 64}
    save_file(columns | {"rewards": columns["rewards"] + 1}, file, metadata)


def test_a_model_is_told_by_its_bytes_and_how_it_reads(gpt2, tmp_path, monkeypatch):
    memory = tmp_path / "weights"

    def identity(name, **changes):
        options = {"backend": "jax", "dtype": "float32"} | changes
        return model_identity(find_entry(name), memory=memory, **options)

    known = identity(f"helpful@{gpt2}")
    copy = shutil.copytree(gpt2, tmp_path / "copy")
    assert identity(f"helpful@{copy}") == known == identity(f"harmless@{gpt2}")
    assert identity(f"deberta@{gpt2}") != known != identity(f"helpful@{gpt2}", dtype="bfloat16")
    assert content_digest("random:toy", memory) == "random:toy"
    packaged = Path(registry.__file__)
    in_package = content_digest(f"package:paretohqd_jax/rewards/{packaged.name}", memory)
    assert in_package == content_digest(str(packaged), memory)
    (copy / ".cache").mkdir()
    (copy / ".cache" / "lock").touch()
    with monkeypatch.context() as patch:  # no byte is read twice
        patch.setattr("hashlib.file_digest", None)
        assert identity(f"helpful@{copy}") == known
    record = next(memory.glob("*.json"))
    record.write_text("{")
    assert identity(f"helpful@{gpt2}") == identity(f"helpful@{copy}") == known
    (copy / "vocabulary.txt").write_text("a")
    assert identity(f"helpful@{copy}") != known


def test_another_order_and_one_scorer_more_score_what_is_new(tmp_path, caplog):
    caplog.set_level("INFO", "paretohqd_jax")
    first = score(PROMPTS, RESPONSES, ["brief", "words"], store=tmp_path)
    caplog.clear()
    texts = ([*PROMPTS, "c"], [*RESPONSES, "good"])
    second = score(*texts, ["words", "positivity", "n=brief"], store=tmp_path)
    np.testing.assert_array_equal(second[:3, [2, 0]], first)
    for name, known in (("words", 3), ("positivity", 0), ("brief", 3)):
        counts = f"{name}: of 4 different rows {known} from the store, {4 - known} scored; kept in "
        assert counts in caplog.text


def test_a_store_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/in: no scores can be kept there .*another folder"):
        check_store(tmp_path / "file" / "in")
    check_store(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "a check leaves nothing"
