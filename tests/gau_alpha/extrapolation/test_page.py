"""A page with many methods: families, colours, names beside lines, switches, the best and what is as good."""

import math
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from gau_alpha import AttentionMethod
from gau_alpha.attention.presets import resolve_method
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import Report
from gau_alpha.extrapolation.report.series import families, relative_luminance, spread, styles
from gau_alpha.extrapolation.result import DocumentFigures
from gau_alpha.extrapolation.statistics import resampled_ratios

NAMES = [
    "trained",
    "yarn",
    "infoscale",
    "windowed",
    "logn",
    "rerope_infoscale",
    "streaming_llm",
    "entmax15",
    "modernbert",
]
DESCRIBED = {name: resolve_method(name, AttentionMethod(), 64).describe() for name in [*NAMES, "cosscale"]}


def figures_of(loss, control=None):
    count = len(loss)
    whole = np.full(count, 10.0)
    control = np.full(count, math.nan) if control is None else np.array(control) * 10
    return DocumentFigures(np.arange(count), whole, whole, np.array(loss) * 10.0, np.zeros(count), control)


def row(method, losses, ratio=1, protocol="mlm", controls=None, **more):
    documents = figures_of(losses, controls)
    loss = float(np.mean(losses))
    gain = None if controls is None else float(np.mean(np.array(controls) - losses))
    values = {"loss": loss, "perplexity": math.exp(loss), "gain": gain, "num_documents": len(losses), **more}
    return ExtrapolationResult(method, ratio, 64 * ratio, protocol, Status.OK, documents=documents, **values)


def test_families_are_told_by_the_axis_that_differs():
    assert families(NAMES, DESCRIBED) == {
        "as the first": ["trained"],
        "temperatures": ["infoscale", "logn"],
        "positions": ["yarn", "rerope_infoscale"],
        "fewer keys": ["windowed", "streaming_llm"],
        "normalizers": ["entmax15"],
        "layers in turns": ["modernbert"],
    }


@pytest.mark.parametrize("described", [None, 5, {}, {"trained": 3}, {**DESCRIBED, "yarn": ["x"]}])
def test_what_is_not_described_is_one_family(described):
    assert families(NAMES, described) == {"": NAMES}


@pytest.mark.parametrize("sizes", [[1], [7], [8], [1, 12, 20, 9], [60]])
def test_no_colour_is_given_twice(sizes):
    grouped = {f"f{place}": [f"{place}-{number}" for number in range(size)] for place, size in enumerate(sizes)}
    look = styles(grouped)
    assert len(look) == sum(sizes)
    assert len({one["color"] for one in look.values()}) == sum(sizes)
    assert len({one["gid"] for one in look.values()}) == sum(sizes)


@pytest.mark.parametrize("sizes", [[8], [1, 12, 20, 9], [60]])
def test_names_in_their_colours_can_be_read_on_white(sizes):
    assert relative_luminance(to_rgb("#808080")) == pytest.approx(0.2159, abs=1e-4)
    assert relative_luminance(to_rgb("#ffff00")) == pytest.approx(0.9278, abs=1e-4)
    grouped = {f"f{place}": [f"{place}-{number}" for number in range(size)] for place, size in enumerate(sizes)}
    brightest = max(relative_luminance(to_rgb(one["color"])) for one in styles(grouped).values())
    assert 1.05 / (brightest + 0.05) > 3, "WCAG's contrast of large text and of parts of a picture"


def test_names_keep_their_distance_and_move_as_little_as_need_be():
    assert spread([0.5, 0.1, 0.9], 0.1) == pytest.approx([0.5, 0.1, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([0.0, 0.0, 0.9], 0.1) == pytest.approx([0.0, 0.1, 0.9]), "no name below the axes"
    generator = np.random.default_rng(0)
    for _ in range(20):
        heights = generator.random(12)
        moved = np.array(spread(list(heights), 0.05))
        assert (moved.argsort(kind="stable") == heights.argsort(kind="stable")).all()
        assert (np.diff(np.sort(moved)) >= 0.05 - 1e-9).all()
        assert moved.min() >= -1e-9
        assert moved.max() <= 1 + 1e-9


@pytest.fixture
def report():
    generator = np.random.default_rng(0)
    common = generator.normal(0, 1, 40)
    rows = []
    for place, name in enumerate(NAMES):
        noise = generator.normal(0, 0.01, 40)
        shift = 0.0 if place < 2 else 0.1 * place
        rows.append(row(name, 3 + common + shift + noise - noise.mean() + (0.001 if place == 1 else 0)))
        rows.append(row(name, 3 + common + noise + 0.01 * place, 2))
    for ratio in (1, 2):
        rows.append(row("cosscale", 2 + common, ratio, note="similarity overridden"))
    return Report(sorted(rows, key=lambda row: row.length), {"methods": DESCRIBED})


def test_the_best_and_what_is_as_good_are_marked(report):
    (table,) = report.tables
    by_name = {row.method: row for row in report.rows if row.length == 64}
    assert by_name["trained"].best_difference == 0
    assert table.is_best(by_name["trained"])
    assert [name for name in NAMES if table.is_as_good(by_name[name])] == ["trained", "yarn"]
    page = report.html()
    first = page[page.index("<h2>Perplexity") : page.index("<svg")]
    assert first.count("class='best'") == 2
    assert "Underlined: not significantly worse" in page
    cell = re.search(r"<td>yarn</td><td><span class='(\w+)'>", first)
    assert cell is not None
    assert cell.group(1) == "tie"
    assert re.search(r"<td>infoscale</td><td>\d", first), "neither"


def test_distances_from_the_best_are_paired(report):
    by_name = {row.method: row for row in report.rows if row.length == 64}
    one, best = by_name["infoscale"], by_name["trained"]
    paired = resampled_ratios(one.documents.loss - best.documents.loss, one.documents.positions, 1000, 0)
    low, high = np.quantile(paired, [0.025, 0.975])
    assert (one.best_difference_low, one.best_difference_high) == pytest.approx((low, high), abs=1e-12)
    assert one.best_difference == pytest.approx(one.loss - best.loss, abs=1e-12)
    flagged = by_name["cosscale"]
    assert flagged.best_difference_high < 0, "lower than the best, which it can't be: something speaks against it"
    assert not report.tables[0].is_as_good(flagged)


def test_under_a_probe_the_highest_gain_is_the_best():
    common = np.linspace(0, 1, 12)
    rows = [
        row(name, common, protocol="copy", controls=common + gain, distance=32)
        for name, gain in (("a", 1.0), ("b", 2.0))
    ]
    differences = {row.method: row.best_difference for row in Report(rows).rows}
    assert differences == pytest.approx({"a": -1.0, "b": 0.0})


def test_rows_that_were_read_keep_their_marks(report, tmp_path):
    report.write(tmp_path)
    again = Report.read(tmp_path / "extrapolation.json")
    assert list(again.rows) == list(report.rows)
    assert again.html() == report.html()


def test_every_method_has_a_switch_that_hides_what_is_of_it(report):
    page = report.html()
    boxes = re.findall(r"<input type='checkbox' id='([\w-]+)' checked>", page)
    assert len(boxes) == len(set(boxes)) == len(NAMES) + 1 + 7
    style = page[page.index("<style>") : page.index("</style>")]
    for box in boxes:
        assert f"body:has(#{box}:not(:checked))" in style
    svg = page[page.index("<svg") : page.index("</svg>")]
    for number in range(len(NAMES)):
        assert page.count(f"<tr class=series{number}>") >= 2
        assert svg.count(f'class="series{number}"') >= 3, "a line, where it leads, and its name"
    assert 'id="series' not in page
    assert "<script" not in page
    headings = re.findall(r"<tr class='family'><th colspan='3'>([^<]+)</th>", page)
    assert headings[:7] == list(families([*NAMES, "cosscale"], DESCRIBED))


def test_names_stand_beside_their_lines_in_their_colours(report):
    (axes,) = report.figure().axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    texts = {text.get_text().removesuffix(" †"): text for text in axes.texts if text.get_gid()}
    assert set(texts) == set(lines) == {*NAMES, "cosscale"}
    assert all(to_hex(texts[name].get_color()) == to_hex(lines[name].get_color()) for name in NAMES)
    by_height = sorted(NAMES, key=lambda name: texts[name].get_position()[1])
    by_value = sorted(NAMES, key=lambda name: lines[name].get_ydata()[-1])
    assert by_height == by_value
