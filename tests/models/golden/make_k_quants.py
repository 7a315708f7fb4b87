"""Makes k_quants.npz: random blocks of GGUF's K-quants, and their values by ggml's own C functions.

    pip install --no-deps ctransformers==0.2.27
    python tests/models/golden/make_k_quants.py

The formats are as they were when that library was built; it exports what llama.cpp calls.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent
BLOCK = 256  # values
# Bytes of a block, and where its float16 scales are.
KINDS = {"Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,))}
NUM_BLOCKS = 8


class Parameters(ctypes.Structure):
    """struct ggml_init_params"""

    _fields_ = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


def main() -> None:
    package = Path(importlib.util.find_spec("ctransformers").origin).parent
    ggml = ctypes.CDLL(str(package / "lib" / "avx2" / "libctransformers.so"))
    ggml.ggml_init.argtypes = [Parameters]
    ggml.ggml_init.restype = ctypes.c_void_p
    ggml.ggml_init(Parameters(1 << 20, None, False))  # makes its table of float16
    random, stored = np.random.default_rng(0), {}
    for kind, (size, places) in KINDS.items():
        blocks = random.integers(0, 256, (NUM_BLOCKS, size), np.uint8)
        for place in places:
            scales = random.normal(0, 0.01, (NUM_BLOCKS, 1)).astype(np.float16)
            blocks[:, place : place + 2] = scales.view(np.uint8)
        values = np.zeros(NUM_BLOCKS * BLOCK, np.float32)
        dequantize = getattr(ggml, f"dequantize_row_{kind[:2].lower()}_K")
        dequantize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        dequantize.restype = None
        dequantize(blocks.ctypes.data, values.ctypes.data, values.size)
        print(kind, values[:4], np.abs(values).max())
        stored |= {f"{kind}_blocks": blocks, f"{kind}_values": values.reshape(NUM_BLOCKS, BLOCK)}
    np.savez_compressed(GOLDEN / "k_quants.npz", **stored)


if __name__ == "__main__":
    main()
