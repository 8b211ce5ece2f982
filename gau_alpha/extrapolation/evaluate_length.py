"""One method at one length: its forward passes, in ever smaller pieces until they fit into memory.

Dimensions: B rows of a batch, T targets of a row, V vocabulary.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, runtime_checkable
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gau_alpha.extrapolation.candidates import Candidate
from gau_alpha.extrapolation.diagnostics import AttentionMeter, Diagnostics, num_columns
from gau_alpha.extrapolation.distributed import Ranks, ShardedForward, is_out_of_memory, shard_batches
from gau_alpha.extrapolation.spans import EvaluationSpans, MaskedExample
from gau_alpha.extrapolation.statistics import DocumentSums

_TARGETS_AT_ONCE = 1024  # rows of the (N, V) log-softmax held at a time

SMALLEST_BLOCK = 16
"""Queries; below, a block's own work costs more memory than its scores."""


class _Outcome(IntEnum):
    """How a batch went; where processes differ, the largest counts."""

    DONE = 0
    OUT_OF_MEMORY = 1
    FAILED = 2


@runtime_checkable
class _Blocks(Interface):
    """A kernel that takes a block of queries at a time."""

    block_size: int


def evaluate_length(
    candidate: Candidate,
    examples: Sequence[MaskedExample],
    length: int,
    spans: EvaluationSpans,
    ranks: Ranks,
    done: Callable[[float], None],
) -> DocumentSums | None:
    """Runs a model under a method over all rows of a length.

    Args:
        candidate: The method on the model, which is as it was afterwards.
        examples: What ``spans`` made for the length.
        length: Tokens of a row.
        spans: Gives the tokens; its options say how large a batch is and whether attention is looked at.
        ranks: The processes; each must call this.
        done: Told of the share that is done, in (0, 1].

    Returns:
        What was measured; None, on all processes alike, if it fits into memory in no way.

    Raises:
        RuntimeError: If a batch failed on another process. What fails on this one is raised as it is.
    """
    model, kernel = candidate.model, candidate.model.kernel
    most_rows = min(max(1, spans.options.tokens_per_batch // length), len(examples))
    largest_block = min(kernel.block_size, length) if isinstance(kernel, _Blocks) else None
    sharded = ShardedForward(model)
    for rows, block_size in smaller_and_smaller(most_rows, largest_block):
        # Training state comes second: the method's own modules must be in evaluation mode too.
        with (
            model.using(candidate.method),
            preserve_training_state(model),
            _block_size(kernel, block_size),
            sharded.watching(),
        ):
            sums = _evaluate_batches(sharded, examples, length, rows, spans, ranks, done)
        if sums is not None:
            return sums
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()
    return None


def _evaluate_batches(
    sharded: ShardedForward,
    examples: Sequence[MaskedExample],
    length: int,
    rows: int,
    spans: EvaluationSpans,
    ranks: Ranks,
    done: Callable[[float], None],
) -> DocumentSums | None:
    """All examples in batches of ``rows``; None, on all processes alike, if memory runs out on any.

    Processes agree after every batch, so none starts a batch that another has given up.
    """
    # Attention is looked at in one example per document, and those make batches of their own: the others are spared the
    # cost, and the last layer's other queries too. Controls, too, make batches of their own: an example and its control
    # then have the same place in batches of one shape, and are computed alike to the last digit.
    watched = (spans.options.entropy or spans.options.distances) and any(one.first for one in examples)
    firsts = [place for place, one in enumerate(examples) if one.first and watched]
    controls = [place for place, one in enumerate(examples) if one.is_control]
    others = [place for place, one in enumerate(examples) if not (one.first and watched) and not one.is_control]
    batches = [
        (group[batch.examples.start : batch.examples.stop], batch.counts)
        for group in (firsts, others, controls)
        for batch in shard_batches(len(group), rows, ranks.rank, ranks.world_size)
    ]
    num_layers = sharded.model.config.num_hidden_layers
    found: list[_Found] = []
    memory = PeakMemory(ranks.device)
    memory.start()
    _synchronise(ranks.device)
    start = time.perf_counter()
    for number, (places, counts) in enumerate(batches, 1):
        failure: Exception | None = None
        outcome = _Outcome.DONE
        meter = None
        if watched and examples[places[0]].first:
            meter = AttentionMeter(num_layers, length, spans.train_length, spans.options.distances)
        sharded.start()
        try:
            some = [examples[place] for place in places]
            loss, correct = _evaluate_batch(sharded, some, length, spans, ranks.device, meter)  # (B, T) each
            if counts:
                found.append(_Found(places, loss, correct, None if meter is None else meter.sums))
        except Exception as error:
            if is_out_of_memory(error):
                outcome = _Outcome.OUT_OF_MEMORY
            else:
                outcome, failure = _Outcome.FAILED, error
        del meter  # it holds memory of the device
        sharded.complete()
        outcome = _Outcome(int(ranks.largest(outcome)[0]))
        if failure is not None:
            raise failure
        if outcome is _Outcome.FAILED:
            raise RuntimeError("The evaluation failed on another process, which says why.")
        if outcome is _Outcome.OUT_OF_MEMORY:
            return None
        done(number / len(batches))
    # Read only now: until here nothing made the host wait for the device.
    loss_and_correct, attention = _read(found, examples, num_layers * num_columns(length) if watched else 0)
    seconds = time.perf_counter() - start
    seconds, peak_memory_bytes = ranks.largest(seconds, memory.read())
    loss_and_correct = ranks.gather_disjoint(loss_and_correct)
    attention = ranks.gather_disjoint(attention)
    return DocumentSums.from_examples(
        loss_and_correct,
        examples,
        Diagnostics.from_sums(attention, len(firsts) * length, num_layers) if watched else None,
        num_tokens=len(examples) * length,
        seconds=seconds,
        peak_memory_bytes=int(peak_memory_bytes) or None,
    )


class _Found(NamedTuple):
    """What a batch gave, still on the device.

    Attributes:
        places: Which examples it held.
        loss: (B, T) nats.
        correct: (B, T) bool.
        attention: (B, K, C) as ``AttentionMeter`` sums, or None.
    """

    places: Sequence[int]
    loss: Tensor
    correct: Tensor
    attention: Tensor | None


def _evaluate_batch(
    sharded: ShardedForward,
    examples: Sequence[MaskedExample],
    length: int,
    spans: EvaluationSpans,
    device: torch.device,
    meter: AttentionMeter | None,
) -> tuple[Tensor, Tensor]:
    """One forward pass: (B, T) losses and (B, T) bool, which predictions are right; T as in the fullest row."""
    input_ids, positions, labels = (
        torch.as_tensor(array).to(device, non_blocking=True) for array in spans.batch(examples, length)
    )
    logits = sharded.model(input_ids, target_positions=positions, observer=meter)  # (B, T, V)
    sharded.check()
    losses, corrects = [], []
    for some_logits, some_labels in zip(
        logits.flatten(0, 1).split(_TARGETS_AT_ONCE), labels.flatten().split(_TARGETS_AT_ONCE), strict=True
    ):
        losses.append(F.cross_entropy(some_logits.float(), some_labels, reduction="none"))
        corrects.append(some_logits.argmax(-1) == some_labels)
    return torch.cat(losses).view(labels.shape), torch.cat(corrects).view(labels.shape)


def _read(found: Sequence[_Found], examples: Sequence[MaskedExample], columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum over the targets of each example: (examples, 2) loss and right predictions, (examples, columns) attention.

    Rows of examples that other processes have evaluated stay zero.
    """
    sums, attention = np.zeros((len(examples), 2)), np.zeros((len(examples), columns))
    for batch in found:
        loss, correct = batch.loss.cpu().double().numpy(), batch.correct.cpu().numpy()  # (B, T)
        for row, place in enumerate(batch.places):
            real = len(examples[place].positions)  # what pads a row to the length of the others is not summed
            sums[place] = loss[row, :real].sum(), correct[row, :real].sum()
        if batch.attention is not None:
            attention[batch.places] = batch.attention.flatten(1).cpu().numpy()
    return sums, attention


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


@contextmanager
def preserve_training_state(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards all is as before, also when the body raises.

    Kept: the train/eval flag of every submodule (a frozen part may be in evaluation mode on its own), the grad mode,
    and the streams of Python's, numpy's and torch's random generators (the CPU's and the model's GPU's).

    A compiled model runs uncompiled: lengths and methods would otherwise each be compiled anew, at a cost of minutes,
    and use up the limit on recompilations that training may come to need.

    ``no_grad`` and not ``inference_mode``: a table that the model caches meanwhile must still serve training.

    Args:
        model: The model under evaluation.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  it is the global stream that is to be kept
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),
        ):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def smaller_and_smaller(rows: int, block_size: int | None) -> Iterator[tuple[int, int | None]]:
    """What to try when memory runs out: fewer rows per batch, then fewer queries per block.

    Args:
        rows: Sequences per batch to begin with.
        block_size: Queries per block to begin with; None if the kernel has no blocks.

    Yields:
        (rows, block_size), as given at first, halved from one to the next.
    """
    yield rows, block_size
    while rows > 1:
        rows //= 2
        yield rows, block_size
    while block_size is not None and block_size > SMALLEST_BLOCK:
        block_size = max(SMALLEST_BLOCK, block_size // 2)
        yield rows, block_size


class PeakMemory:
    """The most memory in use since ``start``.

    CUDA: bytes allocated by torch on the device; its peak statistics begin anew. Linux without CUDA: resident memory of
    the process, whose high-water mark the kernel resets on request (proc_pid_clear_refs(5), value 5); else unknown.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        """Forgets earlier peaks."""
        self._known = True
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu" and sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:  # a container may forbid it; the mark would then tell of earlier work
                self._known = False
        else:
            self._known = False

    def read(self) -> int:
        """Bytes, or 0 where it can't be known."""
        if not self._known:
            return 0
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024
