"""What a report says of its making, the same however often the run is resumed."""

from __future__ import annotations

import datetime
import json
import re

from paretohqd_jax import provenance


def test_the_command_leaves_out_where_and_which_part():
    words = ["--config=a.py", "--workdir", "here", "--config.data.source=x y", "--stage=score"]
    command = provenance.command_of_run(words)
    assert command == "paretohqd --config=a.py '--config.data.source=x y' --workdir=DIR"
    assert provenance.command_of_run([*words[:1], "--workdir=there", words[3]]) == command


def test_the_day_is_that_on_which_the_run_began(tmp_path):
    today = datetime.date.today().isoformat()
    assert provenance.day_begun(tmp_path) == today
    for recorded in ("{", "[]", "{}", '{"date": "yesterday"}'):
        (tmp_path / provenance.FILE).write_text(recorded)
        assert provenance.day_begun(tmp_path) == today
    (tmp_path / provenance.FILE).write_text(json.dumps({"date": "2024-02-03"}))
    assert provenance.day_begun(tmp_path) == "2024-02-03"


def test_version_and_commit():
    pattern = r"\d+\.\d+\S*( \(commit [0-9a-f]{7,40}(-dirty)?\))?"
    assert re.fullmatch(pattern, provenance.version_and_commit())
