"""Eight simulated CPU devices, set before anything touches a JAX backend.

With JAX_PLATFORMS=cuda,cpu (or tpu) in the environment tests run on one accelerator, but for those
marked `cpu`.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

ON_CPU = os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu"
if not ON_CPU:  # which the processes that tests start share
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# Tests compile much and compute little: code that is not optimised is ready in a tenth of the time.
# The processes that tests start take the flags over.
QUICK_TO_COMPILE = ["--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):  # later ones have no choice of emitters
    QUICK_TO_COMPILE.append("--xla_cpu_use_fusion_emitters=false")
if ON_CPU:
    os.environ.setdefault("XLA_FLAGS", " ".join(QUICK_TO_COMPILE))
else:  # whose products of float32 are of narrower numbers by default
    jax.config.update("jax_default_matmul_precision", "highest")

# A job in a shell's background ignores interrupts, and so would the processes that tests interrupt;
# a shell script cannot even handle what was ignored when it began.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

# The same examples in every run, at whatever speed: a failure is one of the change at hand.
settings.register_profile(
    "same_examples", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same_examples")

jax.config.update("jax_num_cpu_devices", 8)
# Many tests compile the same small programs; each is compiled once.
cache = Path(tempfile.gettempdir()) / "paretohqd_jax_test_cache"
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# Long files begin first, so that parallel workers end together.
LONG_FILES = (
    "test_whole_runs.py", "test_meshes.py", "test_paretohqd.py", "test_commands.py",
    "test_reward_model_method.py", "test_callers.py", "test_dominance.py", "test_memory.py",
    "test_loop.py", "test_step.py", "test_placement.py", "test_compare.py",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_handlers_left() -> Iterator[None]:
    """The command line logs to the standard error of its test, which is closed by the next."""
    yield
    ours = logging.getLogger("paretohqd_jax")
    ours.handlers.clear()
    ours.propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not ON_CPU:
        items[:] = [item for item in items if not item.get_closest_marker("cpu")]
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
