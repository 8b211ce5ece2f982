"""One process of several that evaluate together; started by ``test_processes.py``, prints what it got as JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import Candidate, EvaluationOptions, ExtrapolationEngine, ResultCache, SingleMask
from gau_alpha.extrapolation.protocols import CopyProbe
from gau_alpha.scaling import InfoScale
from gau_alpha.training.fsdp import shard
from gau_alpha.vocabulary import Vocabulary

PLAIN = ("plain", "single-mask", "single-mask sampled", "copy", "resumed")
PROTOCOLS = {"single-mask": SingleMask(), "single-mask sampled": SingleMask(5), "copy": CopyProbe(8, 4, 2)}
WEIGHTS = "3, 50 and 400 targets"
SHARDED = ", sharded"
"""Ends a scenario in which the weights are dealt over the processes, as FSDP2 does it."""
# Fails where → ranks that fail, and in which batch of 32 tokens (the engine then tries smaller ones).
FAILURES = {
    "all ranks, first batch": ((0, 1), 1),
    "rank 1, first batch": ((1,), 1),
    "rank 1, third batch": ((1,), 3),
    "all ranks, third batch": ((0, 1), 3),
}


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
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    sharded = scenario.endswith(SHARDED)
    scenario = scenario.removesuffix(SHARDED)
    plain = scenario in PLAIN

    def fails(lengths):
        if scenario == "error on rank 1" and rank == 1 and lengths[-1] == 32 and lengths.count(32) >= 3:
            raise KeyError("broken")
        if scenario in FAILURES:
            ranks, batch = FAILURES[scenario]
            if rank in ranks and lengths[-1] == 32 and lengths.count(32) >= batch:
                raise torch.OutOfMemoryError("CUDA out of memory")

    torch.manual_seed(0)
    config = GAUAlphaConfig(40, 16, 24, 8, 2, initializer_range=0.5)
    model = Noting(config, fails)
    if sharded:
        shard(model, init_device_mesh("cpu", (world_size,), mesh_dim_names=("data_parallel",)))
    sizes = (20, 33, 8, 64, 17, 9, 30) if plain else [100] * 12
    documents = [np.random.default_rng(seed).integers(2, 40, size=size) for seed, size in enumerate(sizes)]
    ratios = [1, 4, 8, 16] if plain else [1, 2, 4, 8]
    if scenario == WEIGHTS:
        documents = [np.full(2700, 2) for _ in range(3)]
        for document, ordinary in zip(documents, (20, 333, 2667), strict=True):
            document[:ordinary] = np.random.default_rng(ordinary).integers(3, 40, size=ordinary)
        documents[0] = np.append(documents[0], [2] * 2700)  # alone at twice the length
        ratios = [1, 2]
    engine = ExtrapolationEngine(
        documents, Vocabulary(40, 1, 0, (2,)), 2700 if scenario == WEIGHTS else 8,
        EvaluationOptions(length_ratios=ratios, tokens_per_batch=40 if plain else 64, num_resamples=100),
        protocol=PROTOCOLS.get(scenario),
    )  # fmt: skip
    candidates = [Candidate("own", model, model.method)]
    if plain:
        candidates.append(Candidate("infoscale", model, AttentionMethod(scaling=InfoScale(8))))
    folder = Path(store).parent / f"unfinished{world_size}"
    said = {}
    try:
        if scenario == "resumed":
            first = engine.compare(candidates, cache=ResultCache(folder, {}) if rank == 0 else None)
            for _ in range(3):
                next(first)
            model.lengths.clear()
        cache = ResultCache(folder, {}) if rank == 0 and scenario == "resumed" else None
        rows = [row.as_dict() for row in engine.compare(candidates, cache=cache)]
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
# The way out of Python, where torch's C++ threads are torn down, now and then aborts a process that is done.
sys.stdout.flush()
os._exit(0)
