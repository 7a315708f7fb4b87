"""The processes of one job: how they meet, who decides, and how all of them end together."""

from __future__ import annotations

from paretohqd_jax.distributed.joining import NotJoined
from paretohqd_jax.distributed.processes import (
    LOST,
    PAUSED,
    PREEMPTED,
    RESUMES,
    Preempted,
    barrier,
    check_preemption,
    describe,
    fail,
    initialize,
    is_alone,
    is_main_process,
    on_main_process,
    process_id,
    reached_preemption,
    shutdown,
    stop_on_sigterm,
)

__all__ = [
    "LOST",
    "PAUSED",
    "PREEMPTED",
    "RESUMES",
    "NotJoined",
    "Preempted",
    "barrier",
    "check_preemption",
    "describe",
    "fail",
    "initialize",
    "is_alone",
    "is_main_process",
    "on_main_process",
    "process_id",
    "reached_preemption",
    "shutdown",
    "stop_on_sigterm",
]
