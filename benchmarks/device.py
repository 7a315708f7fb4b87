"""Everything to be measured on an accelerator, by one command in a time of its own.

    python benchmarks/device.py --shape=toy --seconds=120          # a try, on a CPU
    python benchmarks/device.py --out=h100                         # Llama-2-7B's shape, 9 minutes
    python benchmarks/device.py --out=h100 --parts=b,c             # training and decoding alone
    python benchmarks/device.py --out=h100 --report > tables.md    # what there is, as tables

Parts are those of `programme.PARTS`. Each of their jobs has a process and the device to itself, and
a limit of its own; what it finds is a line of JSON in OUT/results.jsonl the moment it is known, and
what it prints is in OUT/log.txt. A job that fails or takes too long leaves its last words, and the
next one begins. The same command again goes on with what is not measured yet; one folder is for one
device. Nothing is fetched. The status is 1 if a job failed or there was no time for it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contenders
import measurements
import programme
from device_report import report, unfinished
from sizes import SIZES

MOMENT = 5  # seconds to end in
PEERS = ("torch", "transformers", "peft")  # that may be missing
CACHE = Path(tempfile.gettempdir()) / "paretohqd_jax_device_cache"
ENVIRONMENT = {
    # JAX takes three quarters of a GPU by default; processes follow each other.
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "HF_HUB_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
}


def parts_of(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(programme.PARTS):
        raise argparse.ArgumentTypeError(f"{unknown.pop()!r} is none of {list(programme.PARTS)}")
    return names


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SIZES, default="llama2-7b")
    parser.add_argument("--seconds", type=contenders.count, default=540, help="for all together")
    parser.add_argument("--out", type=Path, default=Path("runs/device"), help="folder for results")
    parser.add_argument("--parts", type=parts_of, default=[*programme.PARTS], help="such as b,c")
    parser.add_argument("--report", action="store_true", help="measure nothing, print the tables")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # one of them, in this process
    return parser.parse_args(arguments)


def read_lines(out: Path) -> list[dict[str, Any]]:
    """The latest figures of each job and case, and why a job's latest process did not finish."""
    path = out / "results.jsonl"
    latest = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a process was killed as it wrote
            line = json.loads(text)
            job = line["shape"], line["job"]
            latest.pop((*job, "unfinished"), None)
            what = "unfinished" if unfinished(line) else f"{line['part']} {line.get('case')}"
            latest.pop((*job, what), None)
            latest[*job, what] = line
    return [*latest.values()]


def write_line(out: Path, line: dict[str, Any]) -> None:
    with open(out / "results.jsonl", "a+") as file:
        file.seek(0)
        cut_short = file.read()[-1:] not in ("", "\n")
        file.write("\n" * cut_short + json.dumps(line) + "\n")


def run_job(options: argparse.Namespace) -> None:
    """Measures one job in this process."""
    [job] = [job for job in programme.jobs(options.shape) if job.name == options.job]
    base = {"shape": options.shape, "part": job.part, "job": job.name}
    try:
        for found in job.run():
            write_line(options.out, base | {"device": device_name()} | stamp() | found)
    except ImportError as error:
        if error.name not in PEERS:
            raise
        missing = f"{error.name} is not installed"
        write_line(options.out, base | stamp() | {"missing": missing})


def device_name() -> str:
    """That of the chip this process used."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    import jax

    return jax.devices()[0].device_kind


def stamp() -> dict[str, str]:
    now = datetime.datetime.now().isoformat(timespec="seconds")
    return {"date": now, "where": contenders.environment(0, contenders.PACKAGES)}


def run(job: programme.Job, options: argparse.Namespace, seconds: float) -> str:
    """Gives a job its process; the reason why it failed, if it did."""
    command = [sys.executable, __file__, f"--job={job.name}", f"--shape={options.shape}"]
    package = f"{measurements.ROOT}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": package, **job.environment}
    with open(options.out / "log.txt", "a+", errors="replace") as log:
        log.write(f"\n== {job.part} {job.name}\n")
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            [*command, f"--out={options.out}"], env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = f"killed after {seconds:.0f} s"
        finally:  # whatever it started ends with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(begin)
        words = [line for line in log.read().splitlines() if line.strip()]
    return f"status {status}: " + " / ".join(words[-3:])[-600:] if status else ""


def left_to_do(options: argparse.Namespace) -> Iterator[programme.Job]:
    lines = [line for line in read_lines(options.out) if line["shape"] == options.shape]
    done = {line["job"] for line in lines} - {line["job"] for line in lines if unfinished(line)}
    tried = {line["job"] for line in lines if "failed" in line}  # again, when all else is done
    for job in sorted(programme.jobs(options.shape), key=lambda job: job.name in tried):
        wanted = job.part in options.parts or ("g" in options.parts and job.profiled)
        if wanted and job.name not in done:
            yield job


def main(arguments: list[str] | None = None) -> int:
    begin = time.monotonic()
    options = parse(arguments)
    if options.report:
        print(report(read_lines(options.out)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    if options.job:
        run_job(options)
        return 0
    status = 0
    for job in left_to_do(options):
        left = options.seconds - (time.monotonic() - begin) - MOMENT
        began = time.monotonic()
        if left < job.seconds:
            why = f"there were {max(left, 0):.0f} s left, it takes about {job.seconds}"
            outcome = {"skipped": why}
        else:
            failed = run(job, options, min(job.patience * job.seconds, left))
            outcome = {"failed": failed} if failed else {}
        if outcome:
            line = {"shape": options.shape, "part": job.part, "job": job.name}
            write_line(options.out, line | stamp() | outcome)
        said = next(iter(outcome.values()), "done")
        print(f"{job.part} {job.name}: {time.monotonic() - began:.0f} s: {said}", flush=True)
        status |= bool(outcome)
    (options.out / "report.md").write_text(report(read_lines(options.out)))
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its job ends with it
    raise SystemExit(main())
