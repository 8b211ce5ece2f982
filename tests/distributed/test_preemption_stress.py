"""A short version of the preemption stress test."""

import pytest
from preemption_stress import drill

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_killed_in_four_stages(tmp_path):
    assert drill(tmp_path, kills=3, terms=1, steps=240) == []
