"""What is measured, in which order, and what happens when memory runs out.

Dimensions: B rows of a batch, L tokens of a row, N targets of a batch, V vocabulary, P passes, S sums per pass.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, runtime_checkable
from typing import Protocol as Interface

import numpy as np
import torch
from torch.nn import functional as F

from gau_alpha.extrapolation.batches import Dealt, Pass, deal, rows_per_batch
from gau_alpha.extrapolation.entropy import EntropyMeter
from gau_alpha.extrapolation.intervals import interval, resampled_ratios
from gau_alpha.extrapolation.isolation import undisturbed
from gau_alpha.extrapolation.memory import PeakMemory, is_out_of_memory, smaller_and_smaller
from gau_alpha.extrapolation.protocols import MaskedTokens, Protocol
from gau_alpha.extrapolation.ranks import Ranks
from gau_alpha.extrapolation.rows import Row, Status
from gau_alpha.extrapolation.sums import NUM_SUMS, DocumentSums
from gau_alpha.method import AttentionMethod
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.vocabulary import Vocabulary

Progress = Callable[[float, float, str], None]
"""Called as ``progress(done, total, description)`` after every batch; the unit is a cost, proportional to time."""

FEW_DOCUMENTS = 10  # with fewer, a bootstrap interval is narrower than it should be
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


@dataclass(frozen=True)
class _Measurement:
    """One method at one length."""

    sums: DocumentSums
    num_tokens: int
    seconds: float
    peak_memory_bytes: int | None


class ExtrapolationEngine:
    """Measures how well a model works at multiples of its training length.

    Documents, lengths, hidden positions and resamples are fixed here, once; ``rows`` then measures any model and
    methods on them. So every comparison between rows of a length is a paired one.

    At each length the documents that are long enough are cut to their first tokens; shorter ones are left out and
    counted. With ``torch.distributed`` initialised every process must make the same calls; each gets all rows.

    Args:
        documents: Indexable of 1-D integer arrays with a length, whole documents in a fixed order.
        vocabulary: The ids of their tokenizer.
        train_length: Tokens per training row.
        length_ratios: Evaluated lengths as multiples of ``train_length``; measured in ascending order.
        protocol: Which positions are hidden; ``MaskedTokens()`` (15 %) if None.
        max_documents: At each length only the first so many that are long enough; all if None.
        tokens_per_batch: Rows are batched up to this many tokens; a longer row is a batch of its own.
        entropy: Whether to measure attention entropy, which needs the attention weights.
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of the hidden positions and the resamples.

    Raises:
        ValueError: If a number is out of its range, or no document is long enough for any of the lengths.
    """

    def __init__(
        self,
        documents: Sequence[np.ndarray],
        vocabulary: Vocabulary,
        train_length: int,
        *,
        length_ratios: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
        protocol: Protocol | None = None,
        max_documents: int | None = None,
        tokens_per_batch: int = 16384,
        entropy: bool = True,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        if not length_ratios or min(length_ratios) < 1:
            raise ValueError(f"length_ratios={list(length_ratios)} must be one or more whole numbers of at least 1.")
        counts = {
            "train_length": train_length,
            "tokens_per_batch": tokens_per_batch,
            "num_resamples": num_resamples,
            "max_documents": 1 if max_documents is None else max_documents,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count} must be at least 1.")
        if seed < 0:
            raise ValueError(f"seed={seed} must not be negative.")
        self.documents = documents
        self.vocabulary = vocabulary
        self.train_length = train_length
        self.length_ratios = tuple(sorted(set(length_ratios)))
        self.protocol = MaskedTokens() if protocol is None else protocol
        self.max_documents = max_documents
        self.tokens_per_batch = tokens_per_batch
        self.entropy = entropy
        self.num_resamples = num_resamples
        self.seed = seed
        self._num_tokens = np.array([len(documents[index]) for index in range(len(documents))], np.int64)
        longest = self._num_tokens.max(initial=0)
        if longest < self.length_ratios[0] * train_length:
            raise ValueError(
                f"No document is long enough for any of the lengths asked for: the longest of {len(documents)} has "
                f"{longest} tokens, the shortest length is {self.length_ratios[0]} × train_length={train_length} = "
                f"{self.length_ratios[0] * train_length}. Ask for smaller length_ratios or give longer documents."
            )

    def describe(self) -> dict[str, Any]:
        """Plain data that, with the same documents, says how to measure again."""
        return {
            "train_length": self.train_length,
            "length_ratios": list(self.length_ratios),
            "protocol": self.protocol.describe(),
            "max_documents": self.max_documents,
            "tokens_per_batch": self.tokens_per_batch,
            "entropy": self.entropy,
            "num_resamples": self.num_resamples,
            "seed": self.seed,
        }

    def rows(
        self, model: GAUAlphaForMaskedLM, methods: Mapping[str, AttentionMethod], progress: Progress | None = None
    ) -> Iterator[Row]:
        """Measures methods on a model, length by length; each row is yielded as soon as it is known.

        The model is as before whenever a row is handed out, and after an error.

        Args:
            model: The model, on its device. Autocast is the caller's.
            methods: Name → method. The first is the baseline of paired differences.
            progress: Told of every batch.

        Returns:
            One row per (length, method), lengths ascending, methods in their order.

        Raises:
            ValueError: If there is no method, or the model has another vocabulary than the documents.
        """
        if not methods:
            raise ValueError("methods is empty: name at least one.")
        if model.config.vocab_size != self.vocabulary.size:
            raise ValueError(
                f"The model has {model.config.vocab_size} tokens (vocab_size), the documents' vocabulary "
                f"{self.vocabulary.size}: they do not belong together."
            )
        return _Run(self, model, methods, progress).rows()

    def selected(self, length: int) -> np.ndarray:
        """(D,) places of the documents measured at ``length`` tokens, ascending."""
        return np.flatnonzero(self._num_tokens >= length)[: self.max_documents]

    def num_short_documents(self, length: int) -> int:
        """How many documents have fewer than ``length`` tokens."""
        return int((self._num_tokens < length).sum())

    def passes(self, length: int) -> list[Pass]:
        """All passes at a length, the same for every method, in document order."""
        return [
            Pass(int(document), positions)
            for document in self.selected(length)
            for positions in self.protocol.targets(
                self.documents[document][:length], int(document), self.seed, self.vocabulary.special_ids
            )
        ]

    def batch(self, passes: Sequence[Pass], length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Builds the model's input.

        Args:
            passes: One per row.
            length: Tokens per row.

        Returns:
            ``input_ids`` (B, L) with hidden positions replaced by the mask token, ``target_index`` (N,) flat places of
            the targets in B·L, row by row, and ``labels`` (N,) the hidden tokens. All int64.
        """
        input_ids = np.stack([np.asarray(self.documents[one.document][:length], np.int64) for one in passes])  # (B, L)
        target_index = np.concatenate([row * length + one.positions for row, one in enumerate(passes)])  # (N,)
        flat = input_ids.reshape(-1)  # (B·L,), a view
        labels = flat[target_index]  # (N,), a copy
        flat[target_index] = self.vocabulary.mask_id
        return input_ids, target_index, labels


class _Run:
    """One evaluation of one model: the arguments of ``ExtrapolationEngine.rows`` and how far it has come."""

    def __init__(
        self,
        engine: ExtrapolationEngine,
        model: GAUAlphaForMaskedLM,
        methods: Mapping[str, AttentionMethod],
        progress: Progress | None,
    ) -> None:
        self.engine = engine
        self.model = model
        self.methods = methods
        self.progress = progress
        self.device = next(model.parameters()).device
        self.ranks = Ranks(self.device)
        self.costs = {ratio: self._cost(ratio * engine.train_length) for ratio in engine.length_ratios}
        self.total_cost = sum(self.costs.values()) * len(methods)
        self.done_cost = 0.0

    def rows(self) -> Iterator[Row]:
        out_of_memory: set[str] = set()
        for ratio in self.engine.length_ratios:
            length = ratio * self.engine.train_length
            passes = self.engine.passes(length)
            baseline: _Measurement | None = None
            for place, (name, method) in enumerate(self.methods.items()):
                description = f"{name} × {ratio}"
                measurement: _Measurement | None = None
                # What fails at a length fails at any longer one: one row at a time, the smallest block.
                if passes and name not in out_of_memory:
                    measurement = self._measure(method, passes, length, description)
                    if measurement is None:
                        out_of_memory.add(name)
                self.done_cost += self.costs[ratio]
                self._report(0.0, description)
                if place == 0:
                    baseline = measurement
                yield self._row(name, ratio, measurement, None if place == 0 else baseline, bool(passes))

    def _cost(self, length: int) -> float:
        """Work of one method at one length, in products of a query with a key.

        Per token a unit's projections cost as much as the scores and values of about three hidden sizes of keys
        (6·hidden·intermediate multiplications against 2·(intermediate + key size) per key).
        """
        num_passes = len(self.engine.selected(length)) * self.engine.protocol.num_passes(length)
        return num_passes * length * (3.0 * self.model.config.hidden_size + length)

    def _report(self, cost: float, description: str) -> None:
        if self.progress is not None:
            self.progress(self.done_cost + cost, self.total_cost, description)

    def _measure(
        self, method: AttentionMethod, passes: list[Pass], length: int, description: str
    ) -> _Measurement | None:
        """All passes of a method at a length, in ever smaller pieces until they fit; None if they never do."""
        most_rows = rows_per_batch(self.engine.tokens_per_batch, length, len(passes))
        kernel = self.model.kernel
        largest_block = min(kernel.block_size, length) if isinstance(kernel, _Blocks) else None
        for rows, block_size in smaller_and_smaller(most_rows, largest_block):
            # Undisturbed comes second: the method's own modules must be in evaluation mode too.
            with self.model.using(method), undisturbed(self.model), _block_size(kernel, block_size):
                measurement = self._attempt(passes, length, rows, description)
            if measurement is not None:
                return measurement
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return None

    def _attempt(self, passes: list[Pass], length: int, rows: int, description: str) -> _Measurement | None:
        """All passes in batches of ``rows``; None, on all processes alike, if memory runs out on any.

        Processes agree after every batch, so none starts a batch that another has given up.
        """
        dealt = deal(len(passes), rows, self.ranks.rank, self.ranks.world_size)
        sums = np.zeros((len(passes), NUM_SUMS))  # (P, S), rows of other processes stay zero
        memory = PeakMemory(self.device)
        memory.start()
        self._synchronise()
        start = time.perf_counter()
        for number, batch in enumerate(dealt, 1):
            if self._batch_outcome(batch, passes, length, sums) is _Outcome.OUT_OF_MEMORY:
                return None
            self._report(self.costs[length // self.engine.train_length] * number / len(dealt), description)
        self._synchronise()
        seconds = time.perf_counter() - start
        seconds, peak_memory_bytes = self.ranks.largest(seconds, memory.read())
        documents = np.array([one.document for one in passes])  # (P,)
        return _Measurement(
            sums=DocumentSums.from_passes(self.ranks.gather_disjoint(sums), documents),
            num_tokens=len(passes) * length,
            seconds=seconds,
            peak_memory_bytes=int(peak_memory_bytes) or None,
        )

    def _batch_outcome(self, batch: Dealt, passes: list[Pass], length: int, sums: np.ndarray) -> _Outcome:
        """Runs a batch, writes its sums into their places and learns how the others fared with theirs."""
        failure: Exception | None = None
        outcome = _Outcome.DONE
        try:
            of_batch = self._sums([passes[index] for index in batch.passes], length)  # (B, S)
            if batch.counts:
                sums[batch.passes.start : batch.passes.stop] = of_batch
        except Exception as error:
            if is_out_of_memory(error):
                outcome = _Outcome.OUT_OF_MEMORY
            else:
                outcome, failure = _Outcome.FAILED, error
        outcome = _Outcome(int(self.ranks.largest(outcome)[0]))
        if failure is not None:
            raise failure
        if outcome is _Outcome.FAILED:
            raise RuntimeError("The evaluation failed on another process, which says why.")
        return outcome

    def _sums(self, passes: Sequence[Pass], length: int) -> np.ndarray:
        """One forward pass.

        Returns:
            (B, S) float64, see ``DocumentSums``.
        """
        input_ids, target_index, labels = (
            torch.as_tensor(array, device=self.device) for array in self.engine.batch(passes, length)
        )
        meter = EntropyMeter() if self.engine.entropy else None
        logits = self.model(input_ids, target_index=target_index, observer=meter)  # (N, V)
        losses, corrects = [], []
        for some_logits, some_labels in zip(
            logits.split(_TARGETS_AT_ONCE), labels.split(_TARGETS_AT_ONCE), strict=True
        ):
            losses.append(F.cross_entropy(some_logits.float(), some_labels, reduction="none"))
            corrects.append(some_logits.argmax(-1) == some_labels)
        loss = torch.cat(losses).double().cpu().numpy()  # (N,)
        correct = torch.cat(corrects).double().cpu().numpy()  # (N,)
        ends = np.cumsum([len(one.positions) for one in passes])[:-1]
        sums = np.zeros((len(passes), NUM_SUMS))
        sums[:, 0] = [row.sum() for row in np.split(loss, ends)]
        sums[:, 1] = [row.sum() for row in np.split(correct, ends)]
        sums[:, 2] = [len(one.positions) for one in passes]
        if meter is not None and meter.sums is not None:
            sums[:, 3] = meter.sums.cpu().numpy()
            sums[:, 4] = meter.terms
        return sums

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _row(
        self, name: str, ratio: int, measurement: _Measurement | None, baseline: _Measurement | None, any_pass: bool
    ) -> Row:
        length = ratio * self.engine.train_length
        known: dict[str, Any] = {
            "method": name,
            "length_ratio": ratio,
            "length": length,
            "protocol": self.engine.protocol.name,
            "num_short_documents": self.engine.num_short_documents(length),
        }
        if measurement is None:
            return Row(**known, status=Status.OUT_OF_MEMORY if any_pass else Status.NO_DOCUMENTS)
        sums = measurement.sums
        num_documents = len(sums.targets)
        known |= {
            "num_targets": int(sums.targets.sum()),
            "num_documents": num_documents,
            "seconds": measurement.seconds,
            "tokens_per_second": measurement.num_tokens / measurement.seconds,
            "peak_memory_bytes": measurement.peak_memory_bytes,
            "note": "; ".join(self._notes(self.methods[name], num_documents)),
        }
        if not np.isfinite(sums.loss).all():
            return Row(**known, status=Status.NOT_FINITE)
        loss = float(sums.loss.sum() / sums.targets.sum())
        known |= {
            "status": Status.OK,
            "loss": loss,
            "perplexity": _exp(loss),
            "accuracy": float(sums.correct.sum() / sums.targets.sum()),
        }
        if self.engine.entropy:
            known["attention_entropy"] = float(sums.entropy.sum() / sums.entropy_terms.sum())
        known |= self._intervals(sums)
        if baseline is not None and np.isfinite(baseline.sums.loss).all():
            known |= self._difference(sums, baseline.sums)
        return Row(**known)

    def _intervals(self, sums: DocumentSums) -> dict[str, float]:
        """Intervals of a row's numbers; none for a single document, which says nothing of others."""
        if len(sums.targets) < 2:
            return {}
        loss_low, loss_high = interval(self._resampled(sums.loss, sums.targets))
        accuracy_low, accuracy_high = interval(self._resampled(sums.correct, sums.targets))
        return {
            "loss_low": loss_low,
            "loss_high": loss_high,
            "perplexity_low": _exp(loss_low),
            "perplexity_high": _exp(loss_high),
            "accuracy_low": accuracy_low,
            "accuracy_high": accuracy_high,
        }

    def _difference(self, sums: DocumentSums, baseline: DocumentSums) -> dict[str, Any]:
        """Loss minus the baseline's: the targets are the same, so documents' losses may be subtracted."""
        gained = sums.loss - baseline.loss  # (D,)
        known: dict[str, Any] = {
            "baseline": next(iter(self.methods)),
            "loss_difference": float(gained.sum() / sums.targets.sum()),
        }
        if len(gained) > 1:
            low, high = interval(self._resampled(gained, sums.targets))
            known |= {"loss_difference_low": low, "loss_difference_high": high}
        return known

    def _resampled(self, numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
        return resampled_ratios(numerators, denominators, self.engine.num_resamples, self.engine.seed)

    def _notes(self, method: AttentionMethod, num_documents: int) -> Iterator[str]:
        trained, evaluated = self.model.method.describe()["similarity"], method.describe()["similarity"]
        if trained != evaluated:
            yield "similarity overridden: the weights were trained for another one"
        if num_documents == 1:
            yield "1 document: no interval"
        elif num_documents < FEW_DOCUMENTS:
            yield f"only {num_documents} documents: intervals are too narrow"


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


def _exp(loss: float) -> float:
    """exp(loss), infinite where a float can't hold it."""
    return math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else math.inf
