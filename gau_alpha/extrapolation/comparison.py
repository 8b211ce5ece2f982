"""One evaluation: the order of measurements, and the rows made of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gau_alpha.extrapolation.contenders import Contender
from gau_alpha.extrapolation.ledger import Ledger
from gau_alpha.extrapolation.measurement import Measurement
from gau_alpha.extrapolation.passes import Passes
from gau_alpha.extrapolation.ranks import Ranks
from gau_alpha.extrapolation.rows import Row, Status
from gau_alpha.extrapolation.statistics import notes

if TYPE_CHECKING:
    from gau_alpha.extrapolation.engine import ExtrapolationEngine

Progress = Callable[[float, float, str], None]
"""Called as ``progress(done, total, description)`` after every batch; the unit is a cost, proportional to time."""


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
        engine: "ExtrapolationEngine",
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
