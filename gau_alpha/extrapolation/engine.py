"""What is measured: documents, lengths, masked positions and resamples; and the results, length by length."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Self

import numpy as np

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.extrapolation.candidates import Candidate
from gau_alpha.extrapolation.distributed import Ranks
from gau_alpha.extrapolation.evaluate_length import evaluate_length
from gau_alpha.extrapolation.options import EvaluationOptions
from gau_alpha.extrapolation.protocols import CopyProbe, Protocol, build_protocol
from gau_alpha.extrapolation.result import ExtrapolationResult, Status
from gau_alpha.extrapolation.result_cache import ResultCache
from gau_alpha.extrapolation.spans import EvaluationData, EvaluationSpans
from gau_alpha.extrapolation.statistics import DocumentSums, Statistics, notes
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.untrusted.limits import require_whole
from gau_alpha.vocabulary import Vocabulary

Progress = Callable[[float, float, str], None]
"""Called as ``progress(done, total, description)`` after every batch; the unit is a cost, proportional to time."""


class ExtrapolationEngine:
    """Measures how well models work at multiples of their training length.

    Documents, lengths, masked positions and resamples are fixed here, once; ``evaluate`` and ``compare`` then measure
    any models and methods on them. So every comparison between results of a length is a paired one.

    With ``torch.distributed`` initialised every process must make the same calls; each gets all results.

    Args:
        documents: Indexable of 1-D integer arrays with a length, whole documents in a fixed order.
        vocabulary: The ids of their tokenizer.
        train_length: Tokens per training row.
        options: Which lengths, which part of which documents, the protocol, and more; the defaults if None.
        protocol: A masking protocol of your own, in the place of the one that ``options`` names.
        left_out: Places of documents that take no part, such as those a method was calibrated on.

    Raises:
        ValueError: If ``train_length`` is below 1, or no document is long enough for any of the lengths.
    """

    def __init__(
        self,
        documents: Sequence[np.ndarray],
        vocabulary: Vocabulary,
        train_length: int,
        options: EvaluationOptions | None = None,
        *,
        protocol: Protocol | None = None,
        left_out: Collection[int] = (),
    ) -> None:
        require_whole("train_length", train_length)
        self.train_length = train_length
        self.options = options = options or EvaluationOptions()
        self.protocol = protocol or build_protocol(options.protocol, options.positions_per_document, train_length)
        self.left_out = tuple(sorted(left_out))
        self.statistics = Statistics(options.num_resamples, options.seed)
        self.spans = EvaluationSpans(documents, vocabulary, train_length, options, self.protocol, self.left_out)

    @classmethod
    def for_data(cls, data: EvaluationData, options: EvaluationOptions | None = None, **changes: Any) -> Self:
        """Builds an engine for the evaluation documents of a data module.

        Args:
            data: The data module; any of ``datamodules`` will do.
            options: As for the constructor.
            **changes: Fields of ``EvaluationOptions`` that are to differ from ``options``.

        Raises:
            ValueError: As the constructor, and as ``EvaluationOptions``.
        """
        options = replace(options or EvaluationOptions(), **changes)
        return cls(data.evaluation_documents(), data.vocabulary, data.train_length, options)

    @classmethod
    def for_texts(
        cls,
        texts: Any,
        tokenizer: Any,
        train_length: int,
        options: EvaluationOptions | None = None,
        *,
        column: str = "text",
        **changes: Any,
    ) -> Self:
        """Builds an engine for texts that one has at hand.

        Args:
            texts: A list of strings, or a ``datasets.Dataset`` or pandas ``DataFrame`` with a column of texts. A row is
                a document.
            tokenizer: That of the model, as ``gau_alpha.load`` gives it.
            train_length: Tokens per training row.
            options: As for the constructor.
            column: Of the texts, where there are columns.
            **changes: Fields of ``EvaluationOptions`` that are to differ from ``options``.

        Raises:
            ValueError: If there is no such column, something in it is no text, or as the constructor and
                ``EvaluationOptions``.
        """
        names = getattr(texts, "column_names", getattr(texts, "columns", None))
        if names is not None:
            if column not in list(names):
                raise ValueError(f"There is no column {column!r}; there are {', '.join(map(str, names))}. Name one.")
            texts = texts[column]
        if isinstance(texts, str):
            raise ValueError("texts is one string; give a list of strings, one per document.")
        whole = list(texts)
        if wrong := next((one for one in whole if not isinstance(one, str)), None):
            raise ValueError(f"Every text must be a string, got {wrong!r:.60}.")
        options = replace(options or EvaluationOptions(), **changes)
        return cls(tokenizer.encode_batch(whole), tokenizer.vocabulary, train_length, options)

    def document_losses(
        self, model: GAUAlphaForMaskedLM, method: AttentionMethod | None = None, length_ratio: int = 1
    ) -> list[dict[str, Any]]:
        """Measures each document by itself at one length, at the targets of ``evaluate``.

        Args:
            model: The model, on its device; it is as before afterwards.
            method: What to measure it under; default: the method that it has.
            length_ratio: One of those that the options name.

        Returns:
            For each document, in their order: ``document``, its place; ``loss`` in nats per target; ``accuracy``;
            ``num_targets``. Under a protocol that samples positions, loss and accuracy are estimates.

        Raises:
            ValueError: If the engine does not measure that length, no document is long enough, or it does not fit into
                memory.
        """
        length = length_ratio * self.train_length
        if length not in self.spans.lengths:
            raise ValueError(f"length_ratio={length_ratio} is none of the options' {list(self.options.ratios)}.")
        examples = self.spans.examples(length)
        if not examples:
            raise ValueError(f"No document has {length} tokens.")
        candidate = Candidate("document_losses", model, (method or model.method).with_train_length(self.train_length))
        ranks = Ranks(next(model.parameters()).device)
        sums = evaluate_length(candidate, examples, length, self.spans, ranks, lambda share: None)
        if sums is None:
            raise ValueError(f"Rows of {length} tokens do not fit into memory, whatever the batch.")
        places = dict.fromkeys(one.document for one in examples)
        columns = zip(places, sums.loss / sums.positions, sums.correct / sums.positions, sums.targets, strict=True)
        return [
            {"document": place, "loss": float(loss), "accuracy": float(accuracy), "num_targets": int(count)}
            for place, loss, accuracy, count in columns
        ]

    def describe(self) -> dict[str, Any]:
        """Plain data that, with the same documents, says how to measure again."""
        options = asdict(self.options) | {"length_ratios": list(self.options.ratios)}
        del options["positions_per_document"], options["ratios"]  # which protocol and length_ratios say
        return {
            "train_length": self.train_length,
            **options,
            "protocol": self.protocol.describe(),
            "left_out": list(self.left_out),
        }

    def evaluate(
        self, model: GAUAlphaForMaskedLM, methods: Mapping[str, AttentionMethod], progress: Progress | None = None
    ) -> Iterator[ExtrapolationResult]:
        """Measures methods on one model; the first is the baseline. See ``compare``.

        Args:
            model: The model, on its device. It is as before whenever a result is handed out.
            methods: By name. A ``train_length`` that is left open is filled in.
            progress: Told of every batch.

        Returns:
            One result per (length, method), lengths ascending, methods in their order.

        Raises:
            ValueError: If there is no method, one was built for another ``train_length``, or the model has another
                vocabulary than the documents.
        """
        if not methods:
            raise ValueError("methods is empty: name at least one.")
        candidates = [
            Candidate(name, model, method.with_train_length(self.train_length)) for name, method in methods.items()
        ]
        return self.compare(candidates, progress=progress)

    def compare(
        self,
        candidates: Sequence[Candidate],
        baseline: str | None = None,
        progress: Progress | None = None,
        cache: ResultCache | None = None,
        time_budget: float | None = None,
    ) -> Iterator[ExtrapolationResult]:
        """Measures candidates, length by length; each result is yielded as soon as it is known.

        The models are as before whenever a result is handed out, and after an error.

        Args:
            candidates: What to compare. Autocast is the caller's.
            baseline: Name of the candidate that all others are compared with; the first if None. It is measured, and
                its results come, before the others'.
            progress: Told of every batch.
            cache: On rank 0: where finished measurements are kept and found again.
            time_budget: Seconds; what would not be done by then, judged by what was done before, is not begun.

        Returns:
            One result per (length, candidate), lengths ascending, candidates in their order.

        Raises:
            ValueError: If there is no candidate, two have a name, the baseline is none of them, or a model has another
                vocabulary than the documents.
        """
        names = [candidate.name for candidate in candidates]
        if not names:
            raise ValueError("There is nothing to compare: name at least one method.")
        if len(set(names)) < len(names):
            raise ValueError(f"Names of candidates must differ, got {', '.join(names)}.")
        if baseline is not None and baseline not in names:
            raise ValueError(f"baseline={baseline!r} is not evaluated; choose one of: {', '.join(names)}.")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"time_budget={time_budget} must be positive: seconds.")
        for candidate in candidates:
            if candidate.model.config.vocab_size != self.spans.vocabulary.size:
                raise ValueError(
                    f"The model has {candidate.model.config.vocab_size} tokens (vocab_size), the documents' vocabulary "
                    f"{self.spans.vocabulary.size}: they do not belong together."
                )
        ordered = sorted(candidates, key=lambda candidate: candidate.name != (baseline or names[0]))
        return self._results(ordered, progress, cache, time_budget)

    def _results(
        self,
        candidates: Sequence[Candidate],
        progress: Progress | None,
        cache: ResultCache | None,
        time_budget: float | None,
    ) -> Iterator[ExtrapolationResult]:
        """See ``compare``; the first candidate is the baseline."""
        ranks = Ranks(next(candidates[0].model.parameters()).device)
        total = sum(self._cost(one.model, length) for length in self.spans.lengths for one in candidates)
        clock = _Clock(ranks, progress, total, time_budget)
        known = ranks.from_first(None if cache is None else cache.known()) or {}
        out_of_memory: set[str] = set()
        for length in self.spans.lengths:
            examples = self.spans.examples(length)
            documents = np.array(list(dict.fromkeys(one.document for one in examples)), np.int64)  # (D,)
            baseline: DocumentSums | None = None
            for candidate in candidates:
                name, cost = candidate.name, self._cost(candidate.model, length)
                description = f"{name} × {length // self.train_length}"
                sums: DocumentSums | None = None
                status = Status.OK
                if not examples:
                    status = Status.NO_DOCUMENTS
                elif name in out_of_memory:
                    # What fails at a length fails at any longer one: one row at a time, the smallest block.
                    status = Status.OUT_OF_MEMORY
                elif (self.protocol.name, name, length) in known:
                    sums = known[self.protocol.name, name, length]
                elif clock.would_be_late(cost):
                    status = Status.OUT_OF_TIME
                else:
                    with clock.measuring(cost, description) as done:
                        sums = evaluate_length(candidate, examples, length, self.spans, ranks, done)
                    if cache is not None:
                        cache.add(self.protocol.name, name, length, sums)
                if status is Status.OK and sums is None:
                    out_of_memory.add(name)
                    status = Status.OUT_OF_MEMORY
                clock.advance(cost, description)
                if candidate is candidates[0]:
                    baseline = sums
                    yield self._result(candidate, length, status, documents, sums)
                else:
                    yield self._result(candidate, length, status, documents, sums, candidates[0].name, baseline)

    def _result(
        self,
        candidate: Candidate,
        length: int,
        status: Status,
        documents: np.ndarray,
        sums: DocumentSums | None,
        baseline_name: str = "",
        baseline: DocumentSums | None = None,
    ) -> ExtrapolationResult:
        known: dict[str, Any] = {
            "method": candidate.name,
            "length_ratio": length // self.train_length,
            "length": length,
            "protocol": self.protocol.name,
            "distance": self.protocol.distance(length) if isinstance(self.protocol, CopyProbe) else None,
            "group": candidate.group,
            "span_position": self.options.span_position,
            "kernel": candidate.model.kernel.name,
            "num_short_documents": self.spans.num_short(length),
        }
        if sums is None:
            return ExtrapolationResult(**known, status=status)
        num_documents = len(sums.targets)
        known |= {
            "num_targets": int(sums.targets.sum()),
            "num_positions": int(sums.positions.sum()),
            "num_documents": num_documents,
            "num_repeated_documents": self.spans.num_repeated(length),
            "seconds": sums.seconds,
            "tokens_per_second": sums.num_tokens / sums.seconds,
            "peak_memory_bytes": sums.peak_memory_bytes,
            "note": "; ".join(notes(candidate, num_documents)),
            "documents": sums.figures(documents),
        }
        if not sums.is_finite:
            return ExtrapolationResult(**known, status=Status.NOT_FINITE)
        known |= self.statistics.of(sums)
        if baseline is not None and baseline.is_finite:
            known |= {"baseline": baseline_name, **self.statistics.difference(sums, baseline)}
        return ExtrapolationResult(**known, status=Status.OK)

    def _cost(self, model: GAUAlphaForMaskedLM, length: int) -> float:
        """Work of one candidate at one length, in multiply-adds, give or take what all have alike.

        Per token and layer a unit's projections take 3·hidden·intermediate, its scores and values (key size +
        intermediate)·length.
        """
        config = model.config
        per_token = 3.0 * config.hidden_size * config.intermediate_size
        per_token += (config.attention_key_size + config.intermediate_size) * length
        return self.spans.num_tokens(length) * per_token * config.num_hidden_layers


class _Clock:
    """How far an evaluation has come, in costs, and whether there is time for more.

    Args:
        ranks: The processes.
        progress: Told of every batch.
        total: Cost of all.
        time_budget: Seconds.
    """

    def __init__(self, ranks: Ranks, progress: Progress | None, total: float, time_budget: float | None) -> None:
        self.ranks = ranks
        self.progress = progress
        self.total = total
        self.time_budget = time_budget
        self.start = time.monotonic()
        self.done = 0.0
        self.measured_cost = 0.0  # of what this process has measured itself, in
        self.measured_seconds = 0.0  # so many seconds

    def would_be_late(self, cost: float) -> bool:
        """Whether a measurement would end after the budget, at the speed so far; all processes agree."""
        if self.time_budget is None:
            return False
        end = time.monotonic() - self.start
        if self.measured_cost:
            end += cost * self.measured_seconds / self.measured_cost
        return self.ranks.largest(end)[0] > self.time_budget

    @contextmanager
    def measuring(self, cost: float, description: str) -> Iterator[Callable[[float], None]]:
        """Time a measurement; yields what is to be told of the share that is done."""
        start = time.monotonic()
        yield lambda share: self.advance(0.0, description, share * cost)
        self.measured_seconds += time.monotonic() - start
        self.measured_cost += cost

    def advance(self, cost: float, description: str, under_way: float = 0.0) -> None:
        """Tell of what is done."""
        self.done += cost
        if self.progress is not None:
            self.progress(self.done + under_way, self.total, description)
