"""Batches of all lanes in turn, on all ranks in step, and how a run goes on in the middle of an epoch."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from datamodules.arguments import require_at_least, require_kind, shown
from datamodules.dataset import MLMBatch
from datamodules.sampling import loader_options
from datamodules.streaming.lanes import LaneBatch, Lanes, Place, Turn, UnreadableText, turns

_KEPT = 4  # states, more than there are batches in hand


class TurnSampler(DistributedSampler[Any]):
    """Asks the lanes of this rank in turn, until the loader has seen that all are through.

    A subclass of DistributedSampler because Lightning replaces any other sampler when there are several ranks, and
    tells this one the epoch.

    Args:
        num_lanes: Lanes per rank.
    """

    def __init__(self, num_lanes: int) -> None:
        in_group = dist.is_available() and dist.is_initialized()
        world, rank = (dist.get_world_size(), dist.get_rank()) if in_group else (1, 0)
        super().__init__(range(1), world, rank)  # type: ignore[arg-type]
        self.num_lanes = num_lanes
        self.places = [Place()] * num_lanes
        self.first = 0
        self.first_step = 0

    def __len__(self) -> int:
        """Refuse: how long a stream is shows when it ends."""
        raise TypeError("a stream has no length")

    def __iter__(self) -> Iterator[Turn]:
        """Yield turns without end."""
        return turns(self.epoch, self.rank, self.num_replicas, self.places, self.first, self.first_step)


class FixedTurnSampler(TurnSampler, SequentialSampler):  # type: ignore[misc]  # one by name only
    """The same turns in every epoch. A SequentialSampler, too, because Lightning replaces any other to overfit."""

    def set_epoch(self, epoch: int) -> None:
        """Stay at the first epoch."""


class StreamLoader(DataLoader[Any]):
    """A DataLoader over lanes. Its position is the place of every lane of every rank, so it needs no reading again.

    A turn in which no rank has a batch is passed over; one in which some have none gives those a row of padding. The
    epoch is over when no lane of any rank has anything left. Ranks tell each other the places after every turn, a few
    numbers.

    Args:
        lanes: Answers turns.
        lanes_per_rank: Lanes per rank.
        batches_in_hand: Says how many batches have left the loader but were not trained on; Lightning fetches ahead.
        num_workers: Worker processes.
        pin_memory: Whether batches are put in page-locked memory.
        is_fixed: Whether every epoch begins like the first, to overfit to its first batches.
        patience: Seconds to wait for a worker's batch.
    """

    def __init__(
        self,
        lanes: Lanes,
        lanes_per_rank: int,
        batches_in_hand: Callable[[], int],
        num_workers: int = 0,
        pin_memory: bool = False,
        is_fixed: bool = False,
        patience: int = 3600,
    ) -> None:
        self._turns = (FixedTurnSampler if is_fixed else TurnSampler)(lanes_per_rank)
        options = loader_options(num_workers, pin_memory)
        # The library's threads of the parent are not in a forked worker, which would wait for them without end.
        options |= {"worker_init_fn": encode_in_one_thread, "timeout": patience} if num_workers else {}
        super().__init__(lanes, sampler=self._turns, **options)
        self._is_fixed = is_fixed
        self._patience = patience
        self._batches_in_hand = batches_in_hand
        self._saved: dict[str, Any] | None = None
        self._first_step = 0
        self._states: dict[int, dict[str, Any]] = {}
        self._identity = {
            "ranks": self._turns.num_replicas,
            "lanes": lanes_per_rank,
            "batch_size": lanes.stream.batch_size,
            "window": lanes.stream.window,
            "seed": lanes.stream.seed,
            "split_seed": lanes.stream.split.seed,
            "validation_fraction": lanes.stream.split.fraction,
        }

    def __iter__(self) -> Iterator[MLMBatch]:  # type: ignore[override]
        """Yield the batches of an epoch, or what a loaded position leaves of it."""
        epoch = self._turns.epoch
        saved, self._saved = (None if self._is_fixed else self._saved), None
        if saved is not None and saved["epoch"] == epoch:
            self._first_step = saved["first_step"]
            is_over = True
            for batch in self._epoch(epoch, saved["batches"], saved["turn"], saved["places"]):
                is_over = False
                yield batch
            if not is_over:
                return
            # That a batch is the last one shows only when the next is asked for: the epoch was over after all.
            epoch += 1
        elif saved is not None:
            self._first_step = saved["first_step"] + saved["batches"]
        yield from self._epoch(epoch, 0, 0, [[[]] * self._turns.num_lanes] * self._turns.num_replicas)

    def _epoch(self, epoch: int, batches: int, turn: int, begun: list[list[list[int]]]) -> Iterator[MLMBatch]:
        """Yield the batches of an epoch from where it was begun: (ranks, lanes) places, empty for the beginning."""
        world, rank = self._turns.num_replicas, self._turns.rank
        places = [[_place(place) for place in lanes] for lanes in begun]
        self._turns.epoch = epoch
        self._turns.places = list(places[rank])
        self._turns.first, self._turns.first_step = turn, self._first_step
        self._states = {batches: self._state(epoch, batches, turn, places)}
        idle = 0
        for answer in self._answers():
            lane = turn % self._turns.num_lanes
            turn += 1
            behind = _on_all_ranks(torch.tensor(_summary(answer)), world)  # (world, 5)
            if isinstance(answer, UnreadableText):
                raise answer
            if behind[:, 4].any():
                raise UnreadableText(f"Rank {int(behind[:, 4].argmax())} can't read its text: see its message.")
            for one, (window, batch, is_end, *_) in zip(places, behind.tolist(), strict=True):
                one[lane] = Place(window, batch, bool(is_end))
            if not behind[:, 3].any():
                idle += 1
                if idle == self._turns.num_lanes:
                    break
                continue
            idle = 0
            batches += 1
            self._states[batches] = self._state(epoch, batches, turn, places)
            self._states.pop(batches - _KEPT, None)
            yield answer["batch"]
        self._first_step += batches

    def _answers(self) -> Iterator[LaneBatch | UnreadableText]:
        """Yield the answers to all turns.

        Raises:
            ValueError: If a worker gives none in time.
        """
        answers = super().__iter__()
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except RuntimeError as error:
                if "timed out" not in str(error):
                    raise
                raise ValueError(
                    f"No worker has made a batch in {self._patience} seconds. If the source is that slow, or the run "
                    "resumes far behind the beginning of a large corpus, raise data.init_args.worker_timeout; else set "
                    "num_workers to 0 to see what it waits for."
                ) from error
            yield answer

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the last batch that was trained on, and what it must be true of."""
        if not self._states:
            return self._saved or self._state(
                self._turns.epoch, 0, 0, [[Place()] * self._turns.num_lanes for _ in range(self._turns.num_replicas)]
            )
        return self._states[max(self._states) - self._batches_in_hand()]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: If the position lies in a stream that is cut another way, or is none.
        """
        require_kind(dict, position=state_dict)
        for name in ("epoch", "batches", "turn", "first_step"):
            require_at_least(0, **{f"position[{name!r}]": state_dict.get(name)})
        for name, now in self._identity.items():
            if state_dict.get(name) != now and state_dict["batches"]:
                raise ValueError(
                    f"The checkpoint was written inside an epoch of a stream with {name}="
                    f"{shown(state_dict.get(name))}, but this run has {now}, so the rest of that epoch is not defined. "
                    f"Use the same {name}."
                )
        if state_dict["batches"]:
            self._check_places(state_dict.get("places"))
        self._saved = state_dict
        # Lightning fetches the first batch of a resumed run before it tells the sampler which epoch it is.
        self._turns.epoch = state_dict["epoch"]
        self._states = {}

    def _check_places(self, places: Any) -> None:
        """Refuse what is not three numbers, or none, for each lane of each rank."""
        require_kind(list, **{"position['places']": places})
        lanes = [lane for rank in places if isinstance(rank, list) for lane in rank]
        if len(places) != self._turns.num_replicas or len(lanes) != self._turns.num_lanes * len(places):
            raise ValueError(f"position['places'] must hold {self._turns.num_lanes} lanes for each of the ranks.")
        for number, lane in enumerate(lanes):
            if not isinstance(lane, list | tuple) or len(lane) not in (0, 3):
                raise ValueError(f"position['places'], lane {number}: {shown(lane)} is no place in a stream.")
            require_at_least(0, **{f"position['places'], lane {number}": one for one in lane})

    def _state(self, epoch: int, batches: int, turn: int, places: list[list[Place]]) -> dict[str, Any]:
        kept = [[[int(number) for number in place] for place in lanes] for lanes in places]
        return {
            "epoch": epoch,
            "batches": batches,
            "turn": turn,
            "first_step": self._first_step,
            "places": kept,
            **self._identity,
        }


def encode_in_one_thread(worker: int) -> None:
    """Keep a worker's tokenizer from threads: workers share the processors anyway.

    Args:
        worker: Its number.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _on_all_ranks(numbers: torch.Tensor, world: int) -> torch.Tensor:
    """Gather (n,) numbers of every rank: (world, n)."""
    if world == 1:
        return numbers[None]
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    gathered = [torch.empty_like(numbers, device=device) for _ in range(world)]
    dist.all_gather(gathered, numbers.to(device))
    return torch.stack(gathered).cpu()


def _summary(answer: LaneBatch | UnreadableText) -> list[int]:
    """Sum up for other ranks: window, batch, whether the lane is at its end, has a row, can't be read."""
    if isinstance(answer, UnreadableText):
        return [0, 0, True, False, True]
    # A lane that had ended before this turn has given padding.
    return [*answer["place"].tolist(), bool((answer["batch"]["sample_ids"] >= 0).any()), False]


def _place(numbers: list[int]) -> Place:
    if not numbers:
        return Place()
    window, batch, is_end = numbers
    return Place(window, batch, bool(is_end))
