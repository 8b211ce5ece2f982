"""One process of several that evaluate together; started by ``test_extrapolation.py``, prints what it got as JSON."""

import json
import sys

import numpy as np
import torch
import torch.distributed as dist

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import ExtrapolationEngine
from gau_alpha.scaling import InfoScale
from gau_alpha.vocabulary import Vocabulary

SCENARIOS = ("plain", "out-of-memory-on-rank-1", "error-on-rank-1")


class Noting(GAUAlphaForMaskedLM):
    """Notes the lengths it was called with, and fails where the scenario says."""

    def __init__(self, config, fails):
        super().__init__(config)
        self.lengths = []
        self.fails = fails

    def forward(self, input_ids, **kwargs):
        self.lengths.append(input_ids.shape[1])
        self.fails(self.lengths)
        return super().forward(input_ids, **kwargs)


def main(rank: int, world_size: int, store: str, scenario: str) -> None:
    assert scenario in SCENARIOS
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)

    def fails(lengths):
        if rank == 1 and lengths[-1] == 32 and lengths.count(32) >= 3:
            if scenario == "out-of-memory-on-rank-1":
                raise torch.OutOfMemoryError("CUDA out of memory")
            if scenario == "error-on-rank-1":
                raise KeyError("broken")

    torch.manual_seed(0)
    config = GAUAlphaConfig(
        40, hidden_size=16, intermediate_size=24, attention_key_size=8, num_hidden_layers=2, initializer_range=0.5
    )
    model = Noting(config, fails)
    sizes = (20, 33, 8, 64, 17, 9, 30) if scenario == "plain" else [100] * 12
    documents = [np.random.default_rng(seed).integers(2, 40, size=size) for seed, size in enumerate(sizes)]
    engine = ExtrapolationEngine(
        documents, Vocabulary(40, 1, 0), 8, length_ratios=[1, 4, 8, 16] if scenario == "plain" else [1, 2, 4, 8],
        tokens_per_batch=40 if scenario == "plain" else 64, num_resamples=100,
    )  # fmt: skip
    methods = {"own": model.method}
    if scenario == "plain":
        methods["infoscale"] = AttentionMethod(scaling=InfoScale(8))
    said = {}
    try:
        rows = [row.as_dict() for row in engine.rows(model, methods)]
        for row in rows:
            for name in ("seconds", "tokens_per_second", "peak_memory_bytes"):
                row.pop(name)
        said["rows"] = rows
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
    said["calls"] = model.lengths
    print(json.dumps(said))
    if world_size > 1:
        dist.destroy_process_group()


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
