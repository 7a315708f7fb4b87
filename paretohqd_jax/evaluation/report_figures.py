"""The pictures of the report, with their captions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paretohqd_jax.evaluation.numbers import percent
from paretohqd_jax.evaluation.plots import draw, model_panels, selection_panels
from paretohqd_jax.pareto import Selection

if TYPE_CHECKING:
    from paretohqd_jax.evaluation.plots import Panel


@dataclass(frozen=True)
class SelectedRows:
    """Rows that models were trained on.

    Attributes:
      preferences: `[num_preferences, num_objectives]`.
      rewards: `[num_rows, num_objectives]` of the rows that were selected from.
      selection: from `paretohqd_jax.pareto.select` on `rewards`.
    """

    preferences: np.ndarray
    rewards: np.ndarray
    selection: Selection


def report_figures(
    evaluation: Mapping[str, Any], cloud: np.ndarray, selected: SelectedRows | None
) -> list[dict[str, Any]]:
    """What was selected, where it was, and what models do: PNGs in base64, and a caption."""
    confidence = percent(evaluation["bootstrap"]["confidence"], 0)
    reached = (
        "Mean rewards on held-out prompts, one point per model, beside it its preference or "
        f"label where there is room. Bars are {confidence} intervals. The scored rows lie behind."
    )
    pictures = [(model_panels(evaluation, cloud), reached)]
    if selected is not None:
        pictures.insert(0, _selection_figure(evaluation["objectives"], selected))
    return [
        {"images": [image(panel) for panel in panels], "caption": text} for panels, text in pictures
    ]


def _selection_figure(objectives: Sequence[str], selected: SelectedRows) -> tuple[list[Panel], str]:
    num_pool = int((np.asarray(selected.selection.ranks) >= 0).sum())
    k = np.shape(selected.selection.row_ids)[1]
    if len(objectives) == 2:
        colour = f"Colour is the weight of {objectives[0]}."
    else:
        colour = "Colour mixes one hue per objective by weight; the axes bear the hues."
    caption = (
        f"Of {len(selected.rewards):,} scored rows, {num_pool:,} in the first non-dominated layers "
        f"form the Pareto pool. Each preference trains on {k} of them: those nearest to its ray "
        f"from the ideal point, unless another rule was set. A row taken by several shows as rings."
        f" {colour}"
    )
    panels = selection_panels(
        objectives, selected.preferences, selected.rewards, selected.selection
    )
    return panels, caption


def image(panel: Panel) -> str:
    """A PNG in base64."""
    return base64.b64encode(draw([panel])).decode()
