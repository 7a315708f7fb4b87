"""Duals of MOPO: a primary objective is maximised while secondary ones stay above thresholds.

Agnihotri, Jain, Ramachandran and Wen, arXiv 2505.10892. No code of it is published; where the paper
is silent, the docstrings say what was chosen here.
"""
