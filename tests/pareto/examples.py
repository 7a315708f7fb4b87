"""Worked example A of the specification: fifteen rows, two objectives."""

from __future__ import annotations

import numpy as np

SET_A = np.array(
    [
        (0, 10),
        (2, 9),
        (5, 7),
        (7, 4),
        (9, 1),
        (10, 0),
        (1, 8),
        (4, 6),
        (6, 3),
        (8, 0.5),
        (3, 5),
        (5, 2),
        (5, 7),
        (2, 2),
        (0, 0),
    ]
)
PREFERENCES_A = np.array([(1, 0), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0, 1)])
SELECTED_A = [[5, 4, 9, 3], [9, 4, 3, 8], [2, 7, 12, 3], [6, 1, 2, 12], [0, 1, 6, 2]]
