"""Which method is the best of a length, and which do not differ from it significantly."""

from collections.abc import Sequence
from dataclasses import replace

from gau_alpha.extrapolation.result import MEASURES, ExtrapolationResult, Status
from gau_alpha.extrapolation.statistics import flags, interval, resampled_ratios

_NUM_RESAMPLES = 1000
_SEED = 0


def beside_the_best(rows: Sequence[ExtrapolationResult]) -> list[ExtrapolationResult]:
    """Fill in how far each row is from the best of its protocol and length, of those that nothing speaks against.

    Args:
        rows: Those that know their documents; others stay as they are.
    """
    flagged = {(row.protocol, row.method) for row in rows if flags(row.note)}
    by_column: dict[tuple[str, int], list[ExtrapolationResult]] = {}
    for row in rows:
        if row.status is Status.OK and row.documents is not None:
            by_column.setdefault((row.protocol, row.length), []).append(row)
    best: dict[tuple[str, int], ExtrapolationResult] = {}
    for (protocol, length), column in by_column.items():
        if peers := [row for row in column if (row.protocol, row.method) not in flagged]:
            measure = MEASURES.get(protocol, "loss")
            pick = min if measure == "loss" else max
            best[protocol, length] = pick(peers, key=lambda row, name=measure: getattr(row, name))  # type: ignore[misc]
    return [_filled(row, best.get((row.protocol, row.length))) for row in rows]


def _filled(row: ExtrapolationResult, best: ExtrapolationResult | None) -> ExtrapolationResult:
    mine, its = row.documents, None if best is None else best.documents
    if row.status is not Status.OK or best is None or mine is None or its is None:
        return row
    measure = MEASURES.get(row.protocol, "loss")
    row = replace(row, best_difference=getattr(row, measure) - getattr(best, measure))
    if len(mine.document) < 2 or list(mine.document) != list(its.document):
        return row  # one document gives no interval, and others no pairs
    numerators = mine.summed(measure) - its.summed(measure)  # (D,)
    low, high = interval(resampled_ratios(numerators, mine.positions, _NUM_RESAMPLES, _SEED))
    return replace(row, best_difference_low=low, best_difference_high=high)
