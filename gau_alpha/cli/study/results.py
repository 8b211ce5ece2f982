"""What a study has measured so far, and what its seeds say of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gau_alpha.cli.study.definition import Comparison, Evaluation, Side, Study
from gau_alpha.cli.study.over_seeds import Mean, holm, mean_of, p_of_difference, p_of_equivalence, p_of_excess
from gau_alpha.cli.study.tasks import Task
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import NAME, Report
from gau_alpha.extrapolation.statistics import flags

SIGNIFICANT = 0.05
"""Familywise error of all comparisons together."""


@dataclass(frozen=True)
class Verdict:
    """What seeds say of a comparison.

    Attributes:
        comparison: The comparison.
        difference: First − second, mean over the seeds that both have; None while there is none.
        p_value: Of the test; None for fewer than two seeds.
        adjusted: The same after Holm's correction over all comparisons.
        verdict: ``confirmed``, ``refuted``, ``undecided``; without an expectation ``lower``, ``higher``, ``undecided``;
            ``not measured`` while numbers are missing; ``other documents`` where both sides have some, of other text.
    """

    comparison: Comparison
    difference: Mean | None
    p_value: float | None
    adjusted: float | None
    verdict: str


class Results:
    """The finished evaluations of a study.

    Args:
        study: The study.
        tasks: Its tasks.
    """

    def __init__(self, study: Study, tasks: Sequence[Task]) -> None:
        self.study = study
        self.missing = [task for task in tasks if not task.is_done]
        self._rows: dict[tuple[str, str, int], list[ExtrapolationResult]] = {}
        self._documents: dict[tuple[str, str, int], dict[str, Any]] = {}
        done = {task.folder: task for task in tasks if task.kind == "evaluation" and task.is_done}
        for task in done.values():
            assert task.parent is not None, "an evaluation is of a training"
            report = Report.read(task.folder / f"{NAME}.json")
            evaluation = task.folder.parent.parent.name
            self._rows[evaluation, task.parent.name, task.seed] = list(report.rows)
            read = report.run.get("documents_sha256")
            self._documents[evaluation, task.parent.name, task.seed] = read if isinstance(read, dict) else {}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All that was measured: the fields of a result behind evaluation, training and seed."""
        return [
            {"evaluation": evaluation, "training": training, "seed": seed}
            | {name: value for name, value in row.as_dict().items() if name != "layers"}
            for (evaluation, training, seed), rows in self._rows.items()
            for row in rows
        ]

    def of(self, evaluation: str, metric: str) -> list[dict[str, Any]]:
        """Those rows of an evaluation that have a metric: its gain is of the protocol ``copy``, all else of the other.

        Args:
            evaluation: Its name.
            metric: A field of a result.
        """
        return [row for row in self.rows if row["evaluation"] == evaluation and _has(row["protocol"], metric)]

    def lengths(self, evaluation: str, metric: str) -> dict[int, int]:
        """Length ratios of an evaluation, ascending, with their lengths in tokens.

        Args:
            evaluation: Its name.
            metric: A field of a result.
        """
        return dict(sorted({row["length_ratio"]: row["length"] for row in self.of(evaluation, metric)}.items()))

    def lines(self, evaluation: Evaluation, metric: str) -> list[tuple[str, str]]:
        """List what was measured in an evaluation: training and method, as the study orders them.

        Args:
            evaluation: The evaluation.
            metric: A field of a result.
        """
        found = dict.fromkeys((row["training"], row["method"]) for row in self.of(evaluation.name, metric))
        methods = dict.fromkeys(method for _, method in found)
        return [(name, method) for name in evaluation.trainings for method in methods if (name, method) in found]

    def by_seed(self, side: Side, metric: str) -> dict[int, float]:
        """Numbers of a metric by seed; seeds without one are left out.

        Args:
            side: Of what.
            metric: A field of a result.
        """
        found: dict[int, float] = {}
        for (evaluation, training, seed), rows in self._rows.items():
            if (evaluation, training) != (side.evaluation, side.training):
                continue
            for row in rows:
                is_it = (row.method, row.length_ratio) == (side.method, side.length_ratio)
                value = getattr(row, metric) if is_it and _has(row.protocol, metric) else None
                if value is not None and row.status is Status.OK:
                    found[seed] = float(value)
        return found

    def mean(self, side: Side, metric: str = "loss") -> Mean | None:
        """Average a metric over seeds; None where there is no number.

        Args:
            side: Of what.
            metric: A field of a result.
        """
        values = self.by_seed(side, metric)
        return mean_of(list(values.values())) if values else None

    def differences(self, first: Side, second: Side, metric: str = "loss") -> list[float]:
        """Differences first − second of the seeds that both have, at one length only if both read the same documents.

        Args:
            first: Of what.
            second: From what.
            metric: A field of a result.
        """
        ours, theirs = self.by_seed(first, metric), self.by_seed(second, metric)
        shared = [seed for seed in ours if seed in theirs]
        return [ours[seed] - theirs[seed] for seed in shared if self._is_paired(first, second, seed, metric)]

    def _is_paired(self, first: Side, second: Side, seed: int, metric: str) -> bool:
        """Say whether two numbers may be subtracted: those of one length have to be of the same documents."""
        if first.length_ratio != second.length_ratio:
            return True  # of which nothing is paired but the seed
        ours, theirs = (
            {protocol: sha256 for protocol, sha256 in known.items() if _has(protocol, metric)}
            for known in (self._documents[side.evaluation, side.training, seed] for side in (first, second))
        )
        return ours == theirs

    def not_worse(self, evaluation: Evaluation, length_ratio: int, metric: str) -> set[tuple[str, str]]:
        """Find the best of a length, and what does not differ from it significantly.

        The best is the lowest mean loss, or highest gain, among what is not flagged; others stay if the 95 % interval
        of the paired difference to it includes 0. With a single seed there is no interval, and the best stands alone.

        Args:
            evaluation: The evaluation.
            length_ratio: Of the length.
            metric: ``loss`` or ``gain``.
        """
        sides = {
            line: Side(*line, evaluation.name, length_ratio)
            for line in self.lines(evaluation, metric)
            if line not in self.flags(evaluation.name)
        }
        means = {line: found for line, side in sides.items() if (found := self.mean(side, metric)) is not None}
        if not means:
            return set()
        best = (max if metric == "gain" else min)(means, key=lambda line: means[line].value)
        equal = {best}
        for line, side in sides.items():
            differences = self.differences(side, sides[best], metric)
            if line != best and len(differences) > 1 and not mean_of(differences).excludes_zero:
                equal.add(line)
        return equal

    def flags(self, evaluation: str) -> dict[tuple[str, str], str]:
        """Return what speaks against quoting a line beside the others, by training and method.

        Args:
            evaluation: Its name.
        """
        found: dict[tuple[str, str], dict[str, None]] = {}
        for row in self.rows:
            if row["evaluation"] == evaluation:
                found.setdefault((row["training"], row["method"]), {}).update(dict.fromkeys(flags(row["note"])))
        return {line: "; ".join(said) for line, said in found.items() if said}

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What seeds say of the comparisons; Holm's correction is over all of them."""
        found = []
        for one in self.study.comparisons:
            differences = self.differences(one.first, one.second, one.metric)
            found.append((one, differences, *_tested(one, differences)))
        # What could not be tested counts as undecided, and still counts.
        adjusted = holm([1.0 if p_value is None else p_value for _, _, p_value, _ in found])
        return [
            Verdict(
                comparison=one,
                difference=mean_of(differences) if differences else None,
                p_value=p_value,
                adjusted=None if p_value is None else p_adjusted,
                verdict=self._verdict(one, differences, said if p_adjusted < SIGNIFICANT else "undecided"),
            )
            for (one, differences, p_value, said), p_adjusted in zip(found, adjusted, strict=True)
        ]

    def _verdict(self, comparison: Comparison, differences: Sequence[float], said: str) -> str:
        if differences:
            return said
        sides = (self.by_seed(side, comparison.metric) for side in (comparison.first, comparison.second))
        return "other documents" if set.intersection(*map(set, sides)) else "not measured"


def _has(protocol: str, metric: str) -> bool:
    return (protocol == "copy") == (metric == "gain")


def _tested(comparison: Comparison, differences: Sequence[float]) -> tuple[float | None, str]:
    """Return the p-value of a comparison, and what it says if that is small."""
    if len(differences) < 2:
        return None, "undecided"
    if comparison.margin is not None:
        inside, outside = (test(differences, comparison.margin) for test in (p_of_equivalence, p_of_excess))
        return (inside, "confirmed") if inside < outside else (outside, "refuted")
    found = "lower" if sum(differences) < 0 else "higher"
    if comparison.expect is not None:
        found = "confirmed" if found == comparison.expect else "refuted"
    return p_of_difference(differences), found
