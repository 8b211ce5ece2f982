"""What is measured: documents, lengths, hidden positions and resamples.

Dimensions: D documents, L tokens of a stretch.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.extrapolation.batches import Pass
from gau_alpha.extrapolation.contenders import Contender
from gau_alpha.extrapolation.data import EvaluationData
from gau_alpha.extrapolation.ledger import Ledger
from gau_alpha.extrapolation.measurement import Measurement
from gau_alpha.extrapolation.passes import Passes
from gau_alpha.extrapolation.protocols import MaskedTokens, Protocol
from gau_alpha.extrapolation.ranks import Ranks
from gau_alpha.extrapolation.rows import Row, Status
from gau_alpha.extrapolation.statistics import Statistics, notes
from gau_alpha.extrapolation.stretches import Stretches
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.vocabulary import Vocabulary

Progress = Callable[[float, float, str], None]
"""Called as ``progress(done, total, description)`` after every batch; the unit is a cost, proportional to time."""


class ExtrapolationEngine:
    """Measures how well models work at multiples of their training length.

    Documents, lengths, hidden positions and resamples are fixed here, once; ``rows`` and ``compare`` then measure any
    models and methods on them. So every comparison between rows of a length is a paired one.

    With ``torch.distributed`` initialised every process must make the same calls; each gets all rows.

    Args:
        documents: Indexable of 1-D integer arrays with a length, whole documents in a fixed order.
        vocabulary: The ids of their tokenizer.
        train_length: Tokens per training row.
        length_ratios: Evaluated lengths as multiples of ``train_length``; measured in ascending order.
        protocol: Which positions are hidden; ``MaskedTokens()`` (15 %) if None.
        windows: Where in a document the evaluated stretch lies, see ``Stretches``.
        short_documents: What happens to documents shorter than a length, see ``Stretches``.
        max_documents: At each length only the first so many documents that are long enough; all if None.
        max_tokens: At each length only so many documents that their passes read no more tokens; all if None.
        tokens_per_batch: Rows are batched up to this many tokens; a longer row is a batch of its own.
        entropy: Whether to measure attention entropy.
        distances: Whether to measure how far attention reaches.
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of the hidden positions, the stretches and the resamples.
        left_out: Places of documents that take no part, such as those a method was calibrated on.

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
        windows: str = "first",
        short_documents: str = "skip",
        max_documents: int | None = None,
        max_tokens: int | None = None,
        tokens_per_batch: int = 16384,
        entropy: bool = True,
        distances: bool = True,
        num_resamples: int = 1000,
        seed: int = 0,
        left_out: Collection[int] = (),
    ) -> None:
        if not length_ratios or min(length_ratios) < 1:
            raise ValueError(f"length_ratios={list(length_ratios)} must be one or more whole numbers of at least 1.")
        counts = {
            "train_length": train_length,
            "tokens_per_batch": tokens_per_batch,
            "num_resamples": num_resamples,
            "max_documents": 1 if max_documents is None else max_documents,
            "max_tokens": 1 if max_tokens is None else max_tokens,
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
        self.tokens_per_batch = tokens_per_batch
        self.entropy = entropy
        self.distances = distances
        self.seed = seed
        self.left_out = tuple(sorted(left_out))
        self.statistics = Statistics(num_resamples, seed)
        self.stretches = Stretches(
            documents,
            [ratio * train_length for ratio in self.length_ratios],
            self.protocol,
            windows=windows,
            short_documents=short_documents,
            max_documents=max_documents,
            max_tokens=max_tokens,
            seed=seed,
            left_out=self.left_out,
        )

    @classmethod
    def for_data(cls, data: EvaluationData, **options: Any) -> Self:
        """Builds an engine for the evaluation documents of a data module.

        Args:
            data: The data module; any of ``datamodules`` will do.
            **options: Arguments of the constructor beyond the first three.

        Raises:
            ValueError: As the constructor.
        """
        return cls(data.evaluation_documents(), data.vocabulary, data.train_length, **options)

    def describe(self) -> dict[str, Any]:
        """Plain data that, with the same documents, says how to measure again."""
        return {
            "train_length": self.train_length,
            "length_ratios": list(self.length_ratios),
            "protocol": self.protocol.describe(),
            "windows": self.stretches.windows,
            "short_documents": self.stretches.short_documents,
            "max_documents": self.stretches.max_documents,
            "max_tokens": self.stretches.max_tokens,
            "tokens_per_batch": self.tokens_per_batch,
            "entropy": self.entropy,
            "distances": self.distances,
            "num_resamples": self.statistics.num_resamples,
            "seed": self.seed,
            "left_out": list(self.left_out),
        }

    def rows(
        self, model: GAUAlphaForMaskedLM, methods: Mapping[str, AttentionMethod], progress: Progress | None = None
    ) -> Iterator[Row]:
        """Measures methods on one model; the first is the baseline. See ``compare``.

        Args:
            model: The model, on its device. It is as before whenever a row is handed out.
            methods: By name. A ``train_length`` that is left open is filled in.
            progress: Told of every batch.

        Returns:
            One row per (length, method), lengths ascending, methods in their order.

        Raises:
            ValueError: If there is no method, one was built for another ``train_length``, or the model has another
                vocabulary than the documents.
        """
        if not methods:
            raise ValueError("methods is empty: name at least one.")
        contenders = [Contender(name, model, method.bound(self.train_length)) for name, method in methods.items()]
        return self.compare(contenders, progress=progress)

    def compare(
        self,
        contenders: Sequence[Contender],
        baseline: str | None = None,
        progress: Progress | None = None,
        ledger: Ledger | None = None,
        time_budget: float | None = None,
    ) -> Iterator[Row]:
        """Measures contenders, length by length; each row is yielded as soon as it is known.

        The models are as before whenever a row is handed out, and after an error.

        Args:
            contenders: What to compare. Autocast is the caller's.
            baseline: Name of the contender that all others are compared with; the first if None. It is measured, and
                its rows come, before the others'.
            progress: Told of every batch.
            ledger: On the first process: where finished measurements are kept and found again.
            time_budget: Seconds; what would not be done by then, judged by what was done before, is not begun.

        Returns:
            One row per (length, contender), lengths ascending, contenders in their order.

        Raises:
            ValueError: If there is no contender, two have a name, the baseline is none of them, or a model has another
                vocabulary than the documents.
        """
        names = [contender.name for contender in contenders]
        if not names:
            raise ValueError("There is nothing to compare: name at least one method.")
        if len(set(names)) < len(names):
            raise ValueError(f"Names of contenders must differ, got {', '.join(names)}.")
        if baseline is not None and baseline not in names:
            raise ValueError(f"baseline={baseline!r} is not evaluated; choose one of: {', '.join(names)}.")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"time_budget={time_budget} must be positive: seconds.")
        for contender in contenders:
            if contender.model.config.vocab_size != self.vocabulary.size:
                raise ValueError(
                    f"The model has {contender.model.config.vocab_size} tokens (vocab_size), the documents' vocabulary "
                    f"{self.vocabulary.size}: they do not belong together."
                )
        ordered = sorted(contenders, key=lambda contender: contender.name != (baseline or names[0]))
        return Comparison(self, ordered, progress, ledger, time_budget).rows()

    def passes(self, length: int) -> list[Pass]:
        """All passes at a length, the same for every method, in document order."""
        stretches = self.stretches
        target_length, offset = stretches.target_stretch(length)
        passes = []
        for document in map(int, stretches.selected(length)):
            tokens = stretches.tokens(document, target_length)
            hidden = self.protocol.targets(tokens, document, self.seed, self.vocabulary.special_ids)
            for number, positions in enumerate(hidden.positions):
                stratum = None if hidden.stratum is None else int(hidden.stratum[number])
                size = 0 if stratum is None or hidden.stratum_sizes is None else int(hidden.stratum_sizes[stratum])
                passes.append(Pass(document, positions + offset, number == 0, stratum, size))
        return passes

    def batched(self, length: int) -> Passes:
        """The passes at a length, ready to be run."""
        return Passes(
            self.passes(length),
            length,
            self.stretches,
            self.vocabulary.mask_id,
            self.tokens_per_batch,
            self.train_length,
            self.entropy,
            self.distances,
        )

    def cost(self, model: GAUAlphaForMaskedLM, length: int) -> float:
        """Work of one contender at one length, in multiply-adds, give or take what all have alike.

        Per token and layer a unit's projections take 3·hidden·intermediate, its scores and values (key size +
        intermediate)·length.

        Args:
            model: The model.
            length: Tokens of a stretch.
        """
        config = model.config
        per_token = 3.0 * config.hidden_size * config.intermediate_size
        per_token += (config.attention_key_size + config.intermediate_size) * length
        target_length, _ = self.stretches.target_stretch(length)
        num_passes = len(self.stretches.selected(length)) * self.protocol.num_passes(target_length)
        return num_passes * length * per_token * config.num_hidden_layers


class Comparison:
    """One evaluation: the arguments of ``ExtrapolationEngine.compare`` and how far it has come.

    Args:
        engine: Says what is measured.
        contenders: What is compared; the first is the baseline.
        progress: Told of every batch.
        ledger: On the first process: where finished measurements are kept and found again.
        time_budget: Seconds; what would not be done by then is not begun.
    """

    def __init__(
        self,
        engine: ExtrapolationEngine,
        contenders: Sequence[Contender],
        progress: Progress | None,
        ledger: Ledger | None,
        time_budget: float | None,
    ) -> None:
        self.engine = engine
        self.contenders = contenders
        self.progress = progress
        self.ledger = ledger
        self.time_budget = time_budget
        self.start = time.monotonic()
        self.ranks = Ranks(next(contenders[0].model.parameters()).device)
        self.total_cost = sum(
            engine.cost(contender.model, ratio * engine.train_length)
            for ratio in engine.length_ratios
            for contender in contenders
        )
        self.done_cost = 0.0
        self.measured_cost = 0.0  # of what this process has measured itself, in
        self.measured_seconds = 0.0  # so many seconds

    def rows(self) -> Iterator[Row]:
        """Measures, length by length.

        Yields:
            One row per (length, contender), lengths ascending.
        """
        known = self.ranks.from_first(None if self.ledger is None else self.ledger.known()) or {}
        out_of_memory: set[str] = set()
        for ratio in self.engine.length_ratios:
            length = ratio * self.engine.train_length
            passes = self.engine.batched(length)
            baseline: Measurement | None = None
            for place, contender in enumerate(self.contenders):
                name = contender.name
                measurement: Measurement | None = None
                if not passes.passes:
                    status = Status.NO_DOCUMENTS
                elif name in out_of_memory:
                    # What fails at a length fails at any longer one: one row at a time, the smallest block.
                    status = Status.OUT_OF_MEMORY
                else:
                    if (name, length) in known:
                        measurement, status = known[name, length], Status.OK
                    elif self._out_of_time(contender, length):
                        status = Status.OUT_OF_TIME
                    else:
                        measurement, status = self._measure(contender, passes, f"{name} × {ratio}"), Status.OK
                    if status is Status.OK and measurement is None:
                        out_of_memory.add(name)
                        status = Status.OUT_OF_MEMORY
                self.done_cost += self.engine.cost(contender.model, length)
                self._report(0.0, f"{name} × {ratio}")
                if place == 0:
                    baseline = measurement
                yield self._row(contender, ratio, status, measurement, None if place == 0 else baseline)

    def _report(self, cost: float, description: str) -> None:
        if self.progress is not None:
            self.progress(self.done_cost + cost, self.total_cost, description)

    def _measure(self, contender: Contender, passes: Passes, description: str) -> Measurement | None:
        cost = self.engine.cost(contender.model, passes.length)
        start = time.monotonic()
        measurement = passes.measure(
            contender.model, contender.method, self.ranks, lambda share: self._report(share * cost, description)
        )
        self.measured_seconds += time.monotonic() - start
        self.measured_cost += cost
        if self.ledger is not None:
            self.ledger.add(contender.name, passes.length, measurement)
        return measurement

    def _out_of_time(self, contender: Contender, length: int) -> bool:
        """Whether a measurement would end after the budget, at the speed so far; all processes agree."""
        if self.time_budget is None:
            return False
        end = time.monotonic() - self.start
        if self.measured_cost:
            end += self.engine.cost(contender.model, length) * self.measured_seconds / self.measured_cost
        return self.ranks.largest(end)[0] > self.time_budget

    def _row(
        self,
        contender: Contender,
        ratio: int,
        status: Status,
        measurement: Measurement | None,
        baseline: Measurement | None,
    ) -> Row:
        length = ratio * self.engine.train_length
        stretches = self.engine.stretches
        known: dict[str, Any] = {
            "method": contender.name,
            "length_ratio": ratio,
            "length": length,
            "protocol": self.engine.protocol.name,
            "group": contender.group,
            "windows": stretches.windows,
            "kernel": contender.model.kernel.name,
            "num_short_documents": stretches.num_short(length),
        }
        if measurement is None:
            return Row(**known, status=status)
        sums = measurement.sums
        num_documents = len(sums.targets)
        known |= {
            "num_targets": int(sums.targets.sum()),
            "num_positions": int(sums.positions.sum()),
            "num_documents": num_documents,
            "num_repeated_documents": stretches.num_repeated(length),
            "seconds": measurement.seconds,
            "tokens_per_second": measurement.num_tokens / measurement.seconds,
            "peak_memory_bytes": measurement.peak_memory_bytes,
            "note": "; ".join(notes(contender, num_documents)),
        }
        if not np.isfinite(sums.loss).all():
            return Row(**known, status=Status.NOT_FINITE)
        known |= self.engine.statistics.of(measurement)
        if baseline is not None and np.isfinite(baseline.sums.loss).all():
            known |= {"baseline": self.contenders[0].name, **self.engine.statistics.difference(sums, baseline.sums)}
        return Row(**known, status=Status.OK)
