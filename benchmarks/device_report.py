"""Lines of `device.py` as Markdown tables, for docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import budget
import contenders
import numpy as np
import programme
from sizes import SIZES, budget_options

Line = dict[str, Any]


def unfinished(line: Line) -> str:
    """Why a job has no figures, or not all."""
    words = ("failed", "missing", "skipped")
    return next((f"{word}: {line[word]}" for word in words if word in line), "")


def report(lines: list[Line]) -> str:
    """All tables, of each shape apart."""
    blocks = []
    for shape in dict.fromkeys(line["shape"] for line in lines):
        of_shape = [line for line in lines if line["shape"] == shape]
        peaks = next((line for line in of_shape if "product_flops" in line), None)
        devices = sorted({line["device"] for line in of_shape if "device" in line})
        dates = sorted(line["date"] for line in of_shape)
        blocks.append(
            f"## {shape} on {', '.join(devices)}, {dates[0][:16]} to {dates[-1][11:16]}\n\n"
            f"`python benchmarks/device.py --shape={shape}`. {of_shape[-1]['where']}"
        )
        for part, title in programme.PARTS.items():
            of_part = [line for line in of_shape if line["part"] == part]
            good = [line for line in of_part if "counts" in line or not unfinished(line)]
            if of_part:
                blocks.append(f"### {part}: {title}" if len(part) == 1 else f"### {title}")
            if good:
                blocks.append(TABLES[part](good, peaks))
            blocks += [f"{each['job']}: {why}" for each in of_part if (why := unfinished(each))]
            if part == "f" and of_part:
                blocks.append(_projection(shape, of_shape, peaks))
    return "\n\n".join(blocks) + "\n"


def _rates(line: Line) -> list[float]:
    return [line["amount"] / seconds for seconds in line["seconds"]]


def _rate(line: Line) -> float:
    return statistics.median(_rates(line))


def _spread(line: Line) -> str:
    return f"{min(_rates(line)):.4g}–{max(_rates(line)):.4g}"


def _utilisation(line: Line, peaks: Line | None) -> str:
    flops = sum(flops for flops, _ in line["work"])
    seconds = statistics.median(line["seconds"])
    return f"{flops / seconds / peaks['flops']:.1%}" if peaks and flops else "–"


def _roofline(line: Line, peaks: Line | None) -> str:
    """The least seconds, of the larger of arithmetic and memory in each phase, of those taken."""
    if not peaks:
        return "–"
    phases = [max(f / peaks["flops"], b / peaks["bandwidth"]) for f, b in line["work"]]
    return f"{sum(phases) / statistics.median(line['seconds']):.1%}"


def _compiling(line: Line) -> str:
    return f"{max(line['first'] - statistics.median(line['seconds']), 0):.1f}"


def _of(line: Line, reference: Line | None) -> str:
    return f"{_rate(line) / _rate(reference):.2f}" if reference else "–"


def _named(lines: list[Line], name: str) -> Line | None:
    """The job of that name, or of that name with more said about it."""
    return next((line for line in lines if f"{line['job']},".startswith(f"{name},")), None)


def _peaks(lines: list[Line], _: Line | None) -> str:
    header = ["", "TFLOP/s", "GB/s"]
    rows = []
    for line in lines:
        rows.append(["data sheet, or best seen", f"{line['flops'] / 1e12:.4g}",
                     f"{line['bandwidth'] / 1e9:.4g}"])  # fmt: skip
        rows.append(["a product, a copy", f"{line['product_flops'] / 1e12:.4g}",
                     f"{line['copy_bandwidth'] / 1e9:.4g}"])  # fmt: skip
    return contenders.table(header, rows)


def _ran(lines: list[Line], _: Line | None) -> str:
    rows = [[line["job"], *line["counts"].values()] for line in lines]
    return contenders.table(["", "passed", "failed", "skipped"], rows)


def _training(lines: list[Line], peaks: Line | None) -> str:
    one, reference = _named(lines, "one adapter, full"), _named(lines, "PEFT")
    header = ["contender", "tokens per step", "tokens/s", "[min–max]", "of one adapter alone"]
    header += ["of PEFT's", "model FLOP utilisation", "peak memory GB", "of the estimate"]
    header += ["compile s", "first loss"]
    rows = []
    for line in lines:
        estimate = line.get("estimate")
        share = f"{line['memory'] / estimate:.2f}" if estimate else "–"
        rows.append(
            [line["job"], line["amount"], f"{_rate(line):.4g}", _spread(line), _of(line, one),
             _of(line, reference), _utilisation(line, peaks), f"{line['memory'] / 1e9:.2f}",
             share, _compiling(line), f"{line['loss']:.4f}"]
        )  # fmt: skip
    return contenders.table(header, rows)


def _decoding(lines: list[Line], peaks: Line | None) -> str:
    reference = _named(lines, "transformers")
    header = ["contender", "new tokens/s", "[min–max]", "of transformers'", "of the roofline"]
    header += ["model FLOP utilisation", "peak memory GB", "compile s", "first tokens equal"]
    rows = []
    for line in lines:
        equal = "–"
        if reference:
            answers = zip(line["answers"], reference["answers"], strict=False)  # the first ones
            equal = f"{np.mean([np.equal(*both) for both in answers]):.0%}"
        rows.append(
            [line["job"], f"{_rate(line):.4g}", _spread(line), _of(line, reference),
             _roofline(line, peaks), _utilisation(line, peaks), f"{line['memory'] / 1e9:.2f}",
             _compiling(line), equal]
        )  # fmt: skip
    return contenders.table(header, rows)


def _rows_scored(lines: list[Line], peaks: Line | None) -> str:
    reference = _named(lines, "transformers, batch 1")
    header = ["contender", "rows/s", "of batch 1", "model FLOP utilisation", "peak memory GB"]
    rows = [
        [line["job"], f"{_rate(line):.4g}", _of(line, reference), _utilisation(line, peaks),
         f"{line['memory'] / 1e9:.2f}", _compiling(line)]
        for line in lines
    ]  # fmt: skip
    return contenders.table([*header, "compile s"], rows)


def _pareto(lines: list[Line], _: Line | None) -> str:
    header = "task | M | N | data | ours ms [min–max] | compile s | best peer ms | ratio | equal"
    rows = [
        [f"{line['memory'] / 1e9:.2f}", *line["row"].strip("| ").split(" | ")] for line in lines
    ]
    columns = ["peak memory GB", *header.split(" | "), "others ms"]
    return contenders.table(columns, [row + [""] * (len(columns) - len(row)) for row in rows])


def _projection(shape: str, lines: list[Line], peaks: Line | None) -> str:
    """The paper's whole task from what was measured."""
    measured = {
        line["job"]: contenders.Measurement(line["first"], line["seconds"], line["memory"], None)
        for line in lines
        if "seconds" in line
    }
    sizes = SIZES[shape]
    names = {"train": f"{sizes.stacks[1]} adapters, full", "forward": "forward pass, ours",
             "select": "selection"}  # fmt: skip
    decodes = {rows: measured.get(f"3 x {rows} rows") for rows in sizes.prompts}
    decodes = {rows: each for rows, each in decodes.items() if each}
    found = {stage: measured.get(job) for stage, job in names.items()}
    absent = [names[stage] for stage, each in found.items() if not each]
    if absent or not decodes or not peaks:
        return f"No projection yet: {', '.join(absent) or 'decoding or peaks'} not measured."
    options = budget_options(shape)
    return contenders.table(*budget.projection(options, found, decodes, peaks["flops"]))


def _kernels(lines: list[Line], _: Line | None) -> str:
    rows = []
    for line in lines:
        whole = line["kernels"]["all"] or 1.0
        for name, seconds, calls in line["kernels"]["longest"]:
            rows.append([line["job"], f"`{name[:80]}`", calls, f"{seconds * 1e3:.3f}",
                         f"{seconds / whole:.1%}"])  # fmt: skip
    return contenders.table(["job", "kernel", "calls", "ms", "share"], rows)


TABLES: dict[str, Callable[[list[Line], Line | None], str]] = {
    "peaks": _peaks,
    "a": _ran,
    "b": _training,
    "c": _decoding,
    "d": _rows_scored,
    "e": _pareto,
    "f": _rows_scored,
    "g": _kernels,
}
