"""Contenders run in processes of their own and leave a measurement or the reason why not."""

from __future__ import annotations

import os
import re
from argparse import Namespace

import contenders


def counting(options):
    rounds = iter(range(options.most))
    return lambda: options.start + next(rounds)


def without_library(options):
    raise ImportError("no such module", name="torch")


def mistaken(options):
    return lambda: [][1]


def killed(options):
    return lambda: os._exit(1)


def test_each_contender_leaves_a_measurement_or_a_reason(capsys):
    makes = {f.__name__: f for f in (counting, without_library, mistaken, killed)}
    found = contenders.measure(makes, Namespace(threads=1, start=7, most=5), rounds=2)
    counted = found.pop("counting")
    assert counted.result == 7
    assert len(counted.seconds) == 2
    assert counted.first > 0
    assert counted.median > 0
    assert counted.memory > 1e6
    told = capsys.readouterr().err
    assert len(re.findall(r"^counting: [\d.]+ s$", told, re.MULTILINE)) == 3
    assert "\nkilled: the process died (out of memory?)\n" in told
    assert found == {
        "without_library": "torch is not installed",
        "mistaken": "IndexError: list index out of range",
        "killed": "the process died (out of memory?)",
    }


def test_one_alone_times_every_round():
    options = Namespace(threads=1, start=7, most=3)
    found = contenders.measure({"counting": counting}, options, rounds=2, alone=True)
    assert len(found["counting"].seconds) == 2


def test_the_table_is_markdown():
    assert contenders.table(["a", "b"], [[1, 2.5]]) == "| a | b |\n| --- | --- |\n| 1 | 2.5 |"
