"""Eight simulated CPU devices, set before anything touches a JAX backend."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# Many tests compile the same small programs; each is compiled once.
cache = Path(tempfile.gettempdir()) / "paretohqd_jax_test_cache"
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
