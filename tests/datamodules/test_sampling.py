from itertools import chain

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from datamodules.sampling import EpochSampler, FixedSampler


def requests(sampler: EpochSampler) -> list[list[int]]:
    return [request.rows.tolist() for request in sampler]


@pytest.mark.parametrize("num_rows", [1, 2, 7, 24, 25, 29])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("kind", [EpochSampler, FixedSampler])
def test_every_row_once_over_all_ranks(num_rows: int, world: int, kind: type[EpochSampler]):
    ranks = [requests(kind(num_rows, 4, seed=0, num_replicas=world, rank=rank)) for rank in range(world)]
    steps = -(-num_rows // (4 * world))
    assert [len(batches) for batches in ranks] == [steps] * world
    dealt = [row for batches in ranks for batch in batches for row in batch]
    assert sorted(dealt) == list(range(num_rows))
    for step in range(steps):
        sizes = [len(batches[step]) for batches in ranks]
        assert max(sizes) - min(sizes) <= 1  # the last batch is dealt evenly
        assert step == steps - 1 or sizes == [4] * world


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    def global_batches(world: int) -> list[list[int]]:
        samplers = [EpochSampler(50, 12 // world, 0, num_replicas=world, rank=rank) for rank in range(world)]
        return [list(chain(*parts)) for parts in zip(*map(requests, samplers), strict=True)]

    assert global_batches(1) == global_batches(2) == global_batches(3)


def test_order_follows_seed_and_epoch():
    sampler = EpochSampler(100, 10, seed=0, num_replicas=1, rank=0)
    first = requests(sampler)
    assert requests(sampler) == first
    assert requests(EpochSampler(100, 10, seed=1, num_replicas=1, rank=0)) != first
    sampler.set_epoch(1)
    assert requests(sampler) != first
    assert {request.epoch for request in sampler} == {1}
    sampler.set_epoch(0)
    assert requests(sampler) == first


def test_for_the_fixed_sampler_every_epoch_is_the_first():
    sampler = FixedSampler(10, 4, seed=0, num_replicas=1, rank=0)
    sampler.set_epoch(5)
    assert [(request.epoch, request.rows.tolist()) for request in sampler] == [
        (0, [0, 1, 2, 3]),
        (0, [4, 5, 6, 7]),
        (0, [8, 9]),
    ]


def test_resume_is_for_one_iteration_of_one_epoch():
    sampler = EpochSampler(40, 4, seed=0, num_replicas=1, rank=0)
    sampler.set_epoch(3)
    third = requests(sampler)
    sampler.set_epoch(0)
    sampler.resume(epoch=3, first_batch=6)
    sampler.set_epoch(3)  # what Lightning does next
    assert len(sampler) == 10
    assert requests(sampler) == third[6:]
    assert requests(sampler) == third

    sampler.resume(epoch=3, first_batch=6)
    sampler.set_epoch(4)  # the epoch was over after all
    assert len(requests(sampler)) == 10


def test_lightning_will_keep_it():
    sampler = EpochSampler(10, 4, seed=0)
    assert isinstance(sampler, DistributedSampler)
    assert (sampler.num_replicas, sampler.rank) == (1, 0)  # no process group here


def test_bad_rank():
    with pytest.raises(ValueError, match="rank"):
        EpochSampler(10, 4, seed=0, num_replicas=2, rank=2)


def test_large_epochs_are_cheap_to_hold():
    sampler = EpochSampler(1_000_000, 64, seed=0, num_replicas=8, rank=7)
    rows = next(iter(sampler)).rows
    assert isinstance(rows, np.ndarray)
    assert len(sampler) == 1954
