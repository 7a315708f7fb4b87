"""Offline multi-objective alignment of language models in JAX."""
