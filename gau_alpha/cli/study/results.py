"""What a study has measured so far, and what its seeds say of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gau_alpha.cli.study.definition import Comparison, Evaluation, Side, Study
from gau_alpha.cli.study.over_seeds import Mean, holm, mean_of, p_of_difference, p_of_equivalence, p_of_excess
from gau_alpha.cli.study.tasks import Task
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import NAME, Report
from gau_alpha.extrapolation.statistics import flags

SIGNIFICANT = 0.05
"""Familywise error of all comparisons together."""

_CHOOSES = ("protocol", "span_position", "short_documents", "seed", "train_length")
"""What, of an evaluation's settings, decides which spans and targets of a document are measured at a length."""


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
    """What a study has measured.

    Args:
        study: The study.
        rows: A row per evaluation, training, seed, method and length: those three, the fields of a result, and
            ``documents_sha256``, a fingerprint of what was read.
        missing: The tasks that are left.
    """

    def __init__(self, study: Study, rows: Sequence[dict[str, Any]], missing: Sequence[Task] = ()) -> None:
        self.study = study
        self.rows = rows
        self.missing = missing

    @classmethod
    def of_tasks(cls, study: Study, tasks: Sequence[Task]) -> "Results":
        """Read the finished evaluations of a study.

        Args:
            study: The study.
            tasks: Its tasks.
        """
        rows: list[dict[str, Any]] = []
        for task in tasks:
            if task.kind != "evaluation" or not task.is_done:
                continue
            assert task.parent is not None, "an evaluation is of a training"
            report = Report.read(task.folder / f"{NAME}.json")
            known = {"evaluation": task.folder.parent.parent.name, "training": task.parent.name, "seed": task.seed}
            for row in report.rows:
                values = known | row.as_dict()
                del values["layers"]
                rows.append(values | {"documents_sha256": _fingerprint(row, report.run)})
        return cls(study, rows, [task for task in tasks if not task.is_done])

    @classmethod
    def read(cls, study: Study, path: Path) -> "Results":
        """Read the ``results.parquet`` of a study's report.

        Args:
            study: The study.
            path: The file.
        """
        import pyarrow.parquet as pq

        return cls(study, pq.read_table(path).to_pylist())

    def of(self, evaluation: str, metric: str) -> list[dict[str, Any]]:
        """Those rows of an evaluation that have a metric: its gain is of the protocol ``copy``, all else of the other.

        Args:
            evaluation: Its name.
            metric: A field of a result.
        """
        return [row for row in self.rows if row["evaluation"] == evaluation and _has(row["protocol"], metric)]

    def lengths(self, evaluation: str, metric: str, training: str | None = None) -> dict[int, int]:
        """Length ratios of an evaluation, ascending, with their lengths in tokens, which trainings may not share.

        Args:
            evaluation: Its name.
            metric: A field of a result.
            training: Whose; the last one's if None.
        """
        rows = (row for row in self.of(evaluation, metric) if training in (None, row["training"]))
        return dict(sorted({row["length_ratio"]: row["length"] for row in rows}.items()))

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
        return {row["seed"]: float(row[metric]) for row in self._rows_of(side, metric)}

    def _rows_of(self, side: Side, metric: str) -> Iterator[dict[str, Any]]:
        for row in self.of(side.evaluation, metric):
            is_it = (row["training"], row["method"], row["length_ratio"]) == (
                side.training, side.method, side.length_ratio,
            )  # fmt: skip
            if is_it and row["status"] == Status.OK and row[metric] is not None:
                yield row

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
        ours, theirs = ({row["seed"]: row for row in self._rows_of(side, metric)} for side in (first, second))
        shared = [seed for seed in ours if seed in theirs]
        return [
            ours[seed][metric] - theirs[seed][metric]
            for seed in shared
            # of two lengths nothing is paired but the seed
            if first.length_ratio != second.length_ratio
            or ours[seed]["documents_sha256"] == theirs[seed]["documents_sha256"]
        ]

    def not_worse(self, evaluation: Evaluation, length_ratio: int, metric: str) -> set[tuple[str, str]]:
        """Find the best of a length, and what does not differ from it significantly.

        The best is the lowest mean loss, or highest gain, among what is not flagged; others stay if the 95 % interval
        of the paired difference to it includes 0. With a single seed there is no interval, and the best stands alone.
        Where not all read the same documents there is no best.

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
        if not self.are_paired(evaluation, length_ratio, metric):
            return set()
        best = (max if metric == "gain" else min)(means, key=lambda line: means[line].value)
        equal = {best}
        for line, side in sides.items():
            differences = self.differences(side, sides[best], metric)
            if line != best and len(differences) > 1 and not mean_of(differences).excludes_zero:
                equal.add(line)
        return equal

    def are_paired(self, evaluation: Evaluation, length_ratio: int, metric: str) -> bool:
        """Whether all that was measured at a length with a seed was so on the same text.

        Args:
            evaluation: The evaluation.
            length_ratio: Of the length.
            metric: A field of a result.
        """
        rows = [row for row in self.of(evaluation.name, metric) if row["length_ratio"] == length_ratio]
        read = {(row["seed"], row["documents_sha256"]) for row in rows if row["status"] == Status.OK}
        return len(read) == len({seed for seed, _ in read})

    def gaps(self, evaluation: Evaluation, metric: str) -> Iterator[str]:
        """Say which seeds of finished evaluations have no number, and why: means are over the others.

        Args:
            evaluation: The evaluation.
            metric: A field of a result.
        """
        for ratio in self.lengths(evaluation.name, metric):
            rows = [row for row in self.of(evaluation.name, metric) if row["length_ratio"] == ratio]
            for status in dict.fromkeys(row["status"] for row in rows if row["status"] != Status.OK):
                lacking: dict[str, list[str]] = {}
                for row in rows:
                    if row["status"] == status:
                        lacking.setdefault(f"{row['training']}: {row['method']}", []).append(str(row["seed"]))
                lines = "; ".join(f"{line}, seed {', '.join(seeds)}" for line, seeds in lacking.items())
                is_all = sum(map(len, lacking.values())) == len(rows)
                yield f"Without a number at {ratio}×, {status}: {'all' if is_all else lines}."

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


def _fingerprint(row: ExtrapolationResult, run: Mapping[str, Any]) -> str | None:
    """Return SHA-256 of the documents that a row was measured on, and of what decides which tokens of them."""
    documents, settings = (
        known.get(row.protocol) if isinstance(known := run.get(name), dict) else None
        for name in ("documents_sha256", "evaluations")
    )
    if documents is None:
        return None
    settings = settings if isinstance(settings, dict) else {}
    chosen = {name: settings.get(name) for name in _CHOOSES}
    if settings.get("span_position") == "aligned":  # the longest and the shortest length say where
        chosen["length_ratios"] = settings.get("length_ratios")
    # of all documents, a length has the first so many that are long enough
    content = json.dumps([documents, chosen, row.num_documents], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


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
