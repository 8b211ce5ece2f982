"""The forward passes of one method at one length, in ever smaller pieces until they fit into memory.

Dimensions: B rows of a batch, L tokens of a row, T targets of a row, V vocabulary, P passes, K layers, C diagnostics.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol as Interface
from typing import runtime_checkable

import numpy as np
import torch
from torch.nn import functional as F

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.extrapolation.batches import Dealt, Pass, deal, rows_per_batch
from gau_alpha.extrapolation.diagnostics import AttentionMeter, Diagnostics, num_bins
from gau_alpha.extrapolation.isolation import undisturbed
from gau_alpha.extrapolation.lockstep import Lockstep
from gau_alpha.extrapolation.measurement import Measurement
from gau_alpha.extrapolation.memory import PeakMemory, is_out_of_memory, smaller_and_smaller
from gau_alpha.extrapolation.ranks import Ranks
from gau_alpha.extrapolation.stretches import Stretches
from gau_alpha.extrapolation.sums import NUM_SUMS, DocumentSums
from gau_alpha.model import GAUAlphaForMaskedLM

_TARGETS_AT_ONCE = 1024  # rows of the (N, V) log-softmax held at a time


class _Outcome(IntEnum):
    """How a batch went; where processes differ, the largest counts."""

    DONE = 0
    OUT_OF_MEMORY = 1
    FAILED = 2


@runtime_checkable
class _Blocks(Interface):
    """A kernel that takes a block of queries at a time."""

    block_size: int


class Passes:
    """All passes at a length, the same for every method.

    Args:
        passes: In document order, those of a document one after the other.
        length: Tokens per row.
        stretches: Gives the tokens of a document.
        mask_id: Stands in for hidden tokens.
        tokens_per_batch: Rows are batched up to so many tokens.
        train_length: How near "near" is, see ``AttentionMeter``.
        entropy: Whether to measure attention entropy.
        distances: Whether to measure how far attention reaches.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        length: int,
        stretches: Stretches,
        mask_id: int,
        tokens_per_batch: int,
        train_length: int,
        entropy: bool,
        distances: bool,
    ) -> None:
        self.passes = passes
        self.length = length
        self.stretches = stretches
        self.mask_id = mask_id
        self.tokens_per_batch = tokens_per_batch
        self.train_length = train_length
        self.watched = entropy or distances
        self.distances = distances
        # Attention is looked at in one pass per document, and those make batches of their own: the others are spared
        # the cost, and the last layer's other queries too.
        watched = [place for place, one in enumerate(passes) if one.first and self.watched]
        others = [place for place, one in enumerate(passes) if not (one.first and self.watched)]
        self.groups = [group for group in (watched, others) if group]

    def measure(
        self, model: GAUAlphaForMaskedLM, method: AttentionMethod, ranks: Ranks, done: Callable[[float], None]
    ) -> Measurement | None:
        """Runs a model under a method.

        Args:
            model: The model; as it was afterwards.
            method: What to measure it under.
            ranks: The processes; each must call this.
            done: Told of the share that is done, in (0, 1].

        Returns:
            What was measured; None, on all processes alike, if it fits into memory in no way.
        """
        most_rows = rows_per_batch(self.tokens_per_batch, self.length, len(self.passes))
        kernel = model.kernel
        largest_block = min(kernel.block_size, self.length) if isinstance(kernel, _Blocks) else None
        lockstep = Lockstep(model)
        for rows, block_size in smaller_and_smaller(most_rows, largest_block):
            # Undisturbed comes second: the method's own modules must be in evaluation mode too.
            with model.using(method), undisturbed(model), _block_size(kernel, block_size), lockstep.watching():
                measurement = self._attempt(lockstep, rows, ranks, done)
            if measurement is not None:
                return measurement
            if ranks.device.type == "cuda":
                torch.cuda.empty_cache()
        return None

    def batch(self, passes: Sequence[Pass]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Builds the model's input.

        Args:
            passes: One per row.

        Returns:
            ``input_ids`` (B, L) with hidden positions replaced by the mask token, ``positions`` (B, T) of the targets,
            rows with fewer than T repeating their first, and ``labels`` (B, T) the hidden tokens. All int64.
        """
        input_ids = np.stack([self.stretches.tokens(one.document, self.length) for one in passes])  # (B, L)
        most = max(len(one.positions) for one in passes)
        positions = np.stack(
            [np.pad(one.positions, (0, most - len(one.positions)), constant_values=one.positions[0]) for one in passes]
        )  # (B, T)
        labels = np.take_along_axis(input_ids, positions, axis=1)  # (B, T), a copy
        np.put_along_axis(input_ids, positions, self.mask_id, axis=1)
        return input_ids, positions, labels

    def _attempt(
        self, lockstep: Lockstep, rows: int, ranks: Ranks, done: Callable[[float], None]
    ) -> Measurement | None:
        """All passes in batches of ``rows``; None, on all processes alike, if memory runs out on any.

        Processes agree after every batch, so none starts a batch that another has given up.
        """
        num_layers = lockstep.model.config.num_hidden_layers
        columns = num_layers * (2 + num_bins(self.length)) if self.watched else 0
        sums = np.zeros((len(self.passes), NUM_SUMS + columns))  # rows of other processes stay zero
        batches = [
            (group, dealt) for group in self.groups for dealt in deal(len(group), rows, ranks.rank, ranks.world_size)
        ]
        memory = PeakMemory(ranks.device)
        memory.start()
        _synchronise(ranks.device)
        start = time.perf_counter()
        for number, (group, dealt) in enumerate(batches, 1):
            places = group[dealt.passes.start : dealt.passes.stop]
            if self._outcome(lockstep, places, dealt, sums, ranks) is _Outcome.OUT_OF_MEMORY:
                return None
            done(number / len(batches))
        _synchronise(ranks.device)
        seconds = time.perf_counter() - start
        seconds, peak_memory_bytes = ranks.largest(seconds, memory.read())
        sums = ranks.gather_disjoint(sums)
        firsts = sum(one.first for one in self.passes)
        return Measurement(
            sums=DocumentSums.from_passes(sums[:, :NUM_SUMS], self.passes),
            diagnostics=Diagnostics.from_sums(sums[:, NUM_SUMS:], firsts * self.length, num_layers)
            if self.watched
            else None,
            num_tokens=len(self.passes) * self.length,
            seconds=seconds,
            peak_memory_bytes=int(peak_memory_bytes) or None,
        )

    def _outcome(self, lockstep: Lockstep, places: list[int], dealt: Dealt, sums: np.ndarray, ranks: Ranks) -> _Outcome:
        """Runs a batch, writes its sums into their places and learns how the others fared with theirs."""
        failure: Exception | None = None
        outcome = _Outcome.DONE
        lockstep.start()
        try:
            of_batch = self._sums(lockstep, [self.passes[place] for place in places], sums.shape[1], ranks.device)
            if dealt.counts:
                sums[places] = of_batch
        except Exception as error:
            if is_out_of_memory(error):
                outcome = _Outcome.OUT_OF_MEMORY
            else:
                outcome, failure = _Outcome.FAILED, error
        lockstep.complete()
        outcome = _Outcome(int(ranks.largest(outcome)[0]))
        if failure is not None:
            raise failure
        if outcome is _Outcome.FAILED:
            raise RuntimeError("The evaluation failed on another process, which says why.")
        return outcome

    def _sums(self, lockstep: Lockstep, passes: Sequence[Pass], columns: int, device: torch.device) -> np.ndarray:
        """One forward pass.

        Returns:
            (B, ``columns``) float64: loss and right predictions, then what the meter saw, layer by layer.
        """
        input_ids, positions, labels = (torch.as_tensor(array, device=device) for array in self.batch(passes))
        meter = None
        if self.watched and passes[0].first:
            num_layers = lockstep.model.config.num_hidden_layers
            meter = AttentionMeter(num_layers, self.length, self.train_length, self.distances)
        logits = lockstep.run(input_ids, target_positions=positions, observer=meter).flatten(0, 1)  # (B · T, V)
        losses, corrects = [], []
        for some_logits, some_labels in zip(
            logits.split(_TARGETS_AT_ONCE), labels.flatten().split(_TARGETS_AT_ONCE), strict=True
        ):
            losses.append(F.cross_entropy(some_logits.float(), some_labels, reduction="none"))
            corrects.append(some_logits.argmax(-1) == some_labels)
        loss = torch.cat(losses).double().view(labels.shape).cpu().numpy()  # (B, T)
        correct = torch.cat(corrects).double().view(labels.shape).cpu().numpy()  # (B, T)
        sums = np.zeros((len(passes), columns))
        for row, one in enumerate(passes):  # what pads a row is not summed
            sums[row, 0] = loss[row, : len(one.positions)].sum()
            sums[row, 1] = correct[row, : len(one.positions)].sum()
        if meter is not None and meter.sums is not None:
            sums[:, NUM_SUMS:] = meter.sums.flatten(1).cpu().numpy()
        return sums


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _block_size(kernel: object, block_size: int | None) -> Iterator[None]:
    """Another block size for a while; nothing to do for a kernel without blocks."""
    if not isinstance(kernel, _Blocks) or block_size is None:
        yield
        return
    before = kernel.block_size
    kernel.block_size = block_size
    try:
        yield
    finally:
        kernel.block_size = before
