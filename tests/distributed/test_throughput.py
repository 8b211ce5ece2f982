"""Two processes that differ in speed and padding are logged as one machine."""

import pytest
from process_harness import heard, start_scripts

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.training.flops import ModelFlops


@pytest.mark.slow
def test_rates_of_two_processes(tmp_path):
    first, second = heard(start_scripts("throughput_worker.py", tmp_path))
    assert second["rows"] == first["rows"], "all processes know the same"
    row = ModelFlops(GAUAlphaForMaskedLM(GAUAlphaConfig(30, 16, 24, 8, 2))).of_row(8, 8)
    flops = 3 * (2 * row + 2 * 4 * 16 * 30)  # of a process's batch: two rows, two targets in each
    for found, batches in zip(first["rows"], (1, 2), strict=True):
        seconds = batches * (2 + 2)  # of the slower one
        assert found == {
            "throughput/tokens_per_second": pytest.approx(batches * (16 + 10) / seconds),
            "throughput/model_flops_per_second": pytest.approx(2 * batches * flops / seconds),
            "throughput/mfu": pytest.approx(2 * batches * flops / seconds / 2e6),
            "throughput/padding_share": pytest.approx(6 / 32),
            "throughput/data_loading_share": pytest.approx(2 / 4),
        }
