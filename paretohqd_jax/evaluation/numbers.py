"""Numbers as readers see them."""

from __future__ import annotations


def number(value: float, digits: int = 2) -> str:
    """With a real minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.replace("-", "")


def percent(share: float, digits: int = 1) -> str:
    """A share, or a change of one, as a percentage."""
    return f"{number(100 * share, digits)}\u202f%"
