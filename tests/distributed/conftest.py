from __future__ import annotations

import pytest
from jobs import free_port


@pytest.fixture
def port():
    return free_port()
