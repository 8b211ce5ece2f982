"""Writes study.md and the front page's table from what studies measured, so that no number is typed.

    python docs/study_page.py runs/study/paper    # takes the results of a study over into docs/study
    python docs/study_page.py                     # draws plots and writes the pages from docs/study

The pages are templates, ``docs/study/*.jinja2``, which ask for numbers by the methods of ``Numbers``.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import style
from matplotlib.figure import Figure

from gau_alpha.cli.study.definition import Side, Study, read_study
from gau_alpha.cli.study.over_seeds import mean_of
from gau_alpha.cli.study.report import number_shown, perplexity_shown
from gau_alpha.cli.study.results import Results
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import Report, figures

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "study"
PAGE, FRONT = ROOT / "docs" / "study.md", ROOT / "README.md"
BEGIN, END = "<!-- written by docs/study_page.py -->\n", "<!-- end of it -->\n"  # around what is the front page's

FAR = 64
"""The multiple of the training length that claims are about."""

UNITS = {"loss": "loss", "gain": "gain", "attention_entropy": "entropy", "near_share": "near share"}
WANTED: dict[str | None, str] = {"lower": "below 0", "higher": "above 0", None: "no direction"}

SIX = {
    "softmax": ("softmax",),
    "softmax, infoscale": ("softmax", "infoscale"),
    "softmax, rerope_infoscale": ("softmax", "rerope_infoscale"),
    "softmax, windowed": ("softmax", "windowed"),
    "cosscale_16": ("cosscale_16",),
    "cosscale_16, cosscale_infoscale": ("cosscale_16", "cosscale_infoscale"),
}
"""The front page's methods: training and, where it is another than the training's, method."""

SCALES = ("cosscale_8", "cosscale_16", "cosscale_32", "cosscale_16_from_softmax", "cosscale_128_from_softmax")

Lines = Sequence[tuple[str, Side]]
"""Names, and what is shown under each; the length of a side does not count."""


class Numbers:
    """What templates ask for; what was not measured is an error.

    Args:
        study: The study.
        results: What it measured.
    """

    def __init__(self, study: Study, results: Results) -> None:
        self.study = study
        self.results = results

    def side(self, training: str, method: str = "trained", ratio: int = FAR, evaluation: str = "") -> Side:
        """Name what was measured once per seed; by default in the first evaluation of the training."""
        if not evaluation:
            evaluation = next(one.name for one in self.study.evaluations.values() if training in one.trainings)
        return Side(training, method, evaluation, ratio)

    def perplexity(self, *side: Any) -> str:
        """Perplexity with its interval."""
        return self._known(perplexity_shown(self.results.mean(self.side(*side))), side)

    def mean(self, metric: str, *side: Any) -> str:
        """Any metric with half of its interval."""
        return self._known(number_shown(self.results.mean(self.side(*side), metric)), side)

    def difference(self, first: Side, second: Side) -> str:
        """Loss of the first − loss of the second, paired by seed, with half of its interval."""
        differences = self.results.differences(first, second)
        return number_shown(mean_of(differences), "+") if differences else self._known("", (first, second))

    def behind(self, training: str, method: str = "trained") -> str:
        """Loss − that of a window on the same weights, on the same hidden tokens, with half of its interval."""
        return self.difference(self.side(training, method), self.side(training, "windowed"))

    def verdicts(self) -> str:
        """A table of all comparisons."""
        cells = [["comparison", "what is subtracted", "claimed", "difference", "seeds", "p (Holm)", "verdict"]]
        for one in self.results.verdicts:
            named = one.comparison
            first, second = (
                f"{one.training}, {one.method}, {one.length_ratio}×" for one in (named.first, named.second)
            )
            claimed = WANTED[named.expect] if named.margin is None else f"within ±{named.margin}"
            cells.append(
                [
                    named.name,
                    f"{UNITS[named.metric]}: {first} − {second}",
                    claimed,
                    number_shown(one.difference, "+"),
                    "" if one.difference is None else str(one.difference.num_seeds),
                    "" if one.adjusted is None else f"{one.adjusted:.2g}",
                    f"**{one.verdict}**",
                ]
            )
        return _table(cells)

    def table(self, training: str, evaluation: str, metric: str = "loss") -> str:
        """A table of a training: a line per method, a column per length."""
        measured = self.results.lines(self.study.evaluations[evaluation], metric)
        methods = [method for name, method in measured if name == training]
        return self.lines([(name, self.side(training, name, 1, evaluation)) for name in methods], metric)

    def trained(self, names: Sequence[str], metric: str = "loss", infoscale: bool = False) -> str:
        """A table of trainings, each under its own method, or all with InfoScale in the place of their scaling."""
        return self.lines([(name, self.own(name, infoscale)) for name in names], metric, "training")

    def own(self, name: str, infoscale: bool = False) -> Side:
        """A training under its own method, or with InfoScale in the place of its scaling."""
        side = self.side(name)
        methods = self.study.evaluations[side.evaluation].methods
        with_infoscale = next((one for one in ("infoscale", "cosscale_infoscale") if one in methods), "trained")
        return replace(side, method=with_infoscale) if infoscale else side

    def lines(self, lines: Lines, metric: str = "loss", heading: str = "method") -> str:
        """A table of whatever was measured at the same lengths."""
        lengths = self.results.lengths(lines[0][1].evaluation, metric)
        cells = [[heading, *(f"{length:,} ({ratio}×)" for ratio, length in lengths.items())]]
        shown = perplexity_shown if metric == "loss" else number_shown
        for name, side in lines:
            cells.append([name, *(shown(self.results.mean(_at(side, ratio), metric)) for ratio in lengths)])
        return _table(cells)

    def plotted(self, lines: Lines, metric: str = "loss") -> Figure:
        """Draw perplexity against length, or gain against distance, with bands."""
        return figures.overview(Report(list(self._rows(lines, metric))).tables)

    def _rows(self, lines: Lines, metric: str) -> Iterator[ExtrapolationResult]:
        is_copy = metric == "gain"
        for name, side in lines:
            for row in {one["length_ratio"]: one for one in self.results.of(side.evaluation, metric)}.values():
                mean = self.results.mean(_at(side, row["length_ratio"]), metric)
                assert mean is not None, f"{side} has no {metric} at {row['length_ratio']}×"
                ends: dict[str, Any] = {"": mean.value, "_low": mean.low, "_high": mean.high}
                known = {
                    f"gain{end}" if is_copy else f"perplexity{end}": value if is_copy else math.exp(value)
                    for end, value in ends.items()
                }
                yield ExtrapolationResult(
                    name, row["length_ratio"], row["length"], row["protocol"], Status.OK, distance=row["distance"],
                    **known,
                )  # fmt: skip

    @style.context("default")
    def against_length(self, lines: Lines, metric: str, label: str) -> Figure:
        """Draw another metric against length, with bands."""
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        for name, side in lines:
            lengths = self.results.lengths(side.evaluation, metric)
            means = [self.results.mean(_at(side, ratio), metric) for ratio in lengths]
            across = list(lengths.values())
            (line,) = axes.plot(across, [mean.value for mean in means if mean], marker="o", label=name)
            axes.fill_between(
                across,
                [mean.low for mean in means if mean and mean.low is not None],
                [mean.high for mean in means if mean and mean.high is not None],
                alpha=0.15,
                color=line.get_color(),
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(across, [f"{length:,}" for length in across])
        axes.set_xlabel("length (tokens)")
        axes.set_ylabel(label)
        figure.legend(loc="outside right upper")
        return figure

    def _known(self, text: str, what: Any) -> str:
        if not text:
            raise ValueError(f"{what} was not measured.")
        return text


def _at(side: Side, ratio: int) -> Side:
    return replace(side, length_ratio=ratio)


def _table(lines: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([rows[0], "|" + "|".join(["---"] + ["---:"] * (len(lines[0]) - 1)) + "|", *rows[1:]])


def drawn(known: Mapping[str, Numbers]) -> dict[str, Figure]:
    """Draw the plots of the pages.

    Args:
        known: Numbers by the name of their study.

    Returns:
        Figures by the name of their file.
    """
    paper = known["paper"]
    scales = [(name, paper.side(name)) for name in SCALES]
    entropies = [
        (name, paper.side(*name.split(", ")))
        for name in ("softmax", "softmax, infoscale", "cosscale_16", "cosscale_16, cosscale_infoscale")
    ]
    copies = [
        ("softmax", paper.side("softmax", "trained", FAR, "copy")),
        ("softmax, infoscale", paper.side("softmax", "infoscale", FAR, "copy")),
        ("cosscale_16", paper.side("cosscale_16", "trained", FAR, "cosine_copy")),
        ("cosscale_16, cosscale_infoscale", paper.side("cosscale_16", "cosscale_infoscale", FAR, "cosine_copy")),
        ("softmax, windowed", paper.side("softmax", "windowed", FAR, "copy")),
        *((name, paper.side(name)) for name in ("alibi", "nope", "swan")),
    ]
    return {
        "perplexity": paper.plotted(_six(paper)),
        "gain": paper.plotted(copies, "gain"),
        "entropy": paper.against_length(entropies, "attention_entropy", "attention entropy (nats)"),
        "near_share": paper.against_length(scales, "near_share", "share of attention at most 32 tokens away"),
    }


def _six(paper: Numbers) -> Lines:
    return [(name, paper.side(*side)) for name, side in SIX.items()]


def take_over(run: Path) -> Path:
    """Copy what a study leaves: its numbers, what it was made of, with which versions. Paths are cut short.

    Args:
        run: The study's folder.

    Returns:
        The folder below ``docs/study``.
    """
    folder = FOLDER / run.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.parquet").write_bytes((run / "results.parquet").read_bytes())
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    kept = {name: info[name] for name in ("python", "versions", "git")}
    (folder / "versions.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    (folder / "study.yaml").write_bytes((run / "study.yaml").read_bytes())
    configs = []
    for training in sorted(run.glob("trainings/*/")):
        path = min(training.glob("seed_*/config.yaml"))  # they differ in their seeds
        text = path.read_text(encoding="utf-8")
        part = path.parent.relative_to(run).as_posix()
        there = re.search(rf"default_root_dir: (.*)/{re.escape(part)}", text)
        assert there is not None, "a task gives each training its folder"
        configs.append(f"# {part}\n{text.replace(there[1], f'runs/study/{run.name}')}")
    (folder / "configs.yaml").write_text("---\n".join(configs), encoding="utf-8")
    return folder


def studies() -> dict[str, Numbers]:
    """Read the numbers of all studies that were taken over, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*/results.parquet")):
        study = read_study(path.parent / "study.yaml")  # what was named before, whatever the shipped one says now
        found[path.parent.name] = Numbers(study, Results.read(study, path))
    return found


def pages(known: Mapping[str, Numbers]) -> dict[Path, str]:
    """Write the texts of the pages.

    Args:
        known: Numbers by the name of their study.

    Returns:
        Texts by path, the front page's with everything around its table.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    page, front = (
        environment.get_template(f"{name}.md.jinja2").render(known, six=_six(known["paper"]))
        for name in ("study", "front")
    )
    before, _, rest = FRONT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return {PAGE: page, FRONT: f"{before}{BEGIN}{front}{END}{after}"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the pages that tell what studies measured.")
    parser.add_argument("run", type=Path, nargs="?", help="a study's folder, to take its results over first")
    arguments = parser.parse_args()
    if arguments.run is not None:
        print(take_over(arguments.run))
    numbers = studies()
    for name, figure in drawn(numbers).items():
        (FOLDER / f"{name}.png").write_bytes(figures.png(figure))
    for path, text in pages(numbers).items():
        path.write_text(text, encoding="utf-8")
        print(path)
