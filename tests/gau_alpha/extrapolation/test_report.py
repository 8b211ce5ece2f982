"""What is printed and written says what was measured, and says so when something was not."""

import csv
import io
import json
import math
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from rich.console import Console

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import Report, figures
from gau_alpha.extrapolation.report.cells import decimals
from gau_alpha.extrapolation.run import progress_bar


def row(method="softmax", ratio=1, loss=1.0, **kwargs) -> ExtrapolationResult:
    values = {
        "loss": loss,
        "loss_low": loss - 0.1,
        "loss_high": loss + 0.1,
        "perplexity": math.exp(loss),
        "perplexity_low": math.exp(loss - 0.1),
        "perplexity_high": math.exp(loss + 0.1),
        "accuracy": 0.5,
        "accuracy_low": 0.4,
        "accuracy_high": 0.6,
        "attention_entropy": 2.5,
        "num_targets": 1234,
        "num_documents": 12,
        "seconds": 0.5,
        "tokens_per_second": 2000.0,
        "peak_memory_bytes": 300_000_000,
    }
    return ExtrapolationResult(method, ratio, 64 * ratio, "mlm", **({"status": Status.OK} | values | kwargs))


def failed(method, ratio, status) -> ExtrapolationResult:
    return ExtrapolationResult(method, ratio, 64 * ratio, "mlm", status, num_short_documents=3)


@pytest.fixture
def report() -> Report:
    names = {"softmax": 0.9, "cosscale_infoscale": 0.1, "streaming_llm_infoscale": 0.02}
    rows = [
        row(name, ratio, 1.2 + growth * math.log2(ratio), num_documents=40 - ratio // 2)
        for ratio in (1, 2, 4, 8, 16, 32)
        for name, growth in names.items()
    ]
    rows += [
        failed("softmax", 64, Status.OUT_OF_MEMORY),
        failed("cosscale_infoscale", 64, Status.NOT_FINITE),
        failed("streaming_llm_infoscale", 64, Status.NO_DOCUMENTS),
    ]
    return Report(rows, {"seed": 1, "strange": [math.nan, {"deep": math.inf}], "text": "GAU-α"})


def test_all_files_are_written_whole(report, tmp_path):
    folder = tmp_path / "new" / "folder"
    paths = report.write(folder)
    names = [f"extrapolation.{suffix}" for suffix in ("json", "csv", "md", "png", "html")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names), "no temporary file stays"
    report.write(folder)  # again, over the first


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.json", lambda path: path.write_bytes(b"old"))

    def fail(*args):
        raise OSError("disk")

    monkeypatch.setattr("gau_alpha.checkpoints.atomic_write.os.replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_atomic(path, lambda path: path.write_bytes(b"new"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_survive_whatever_a_plot_does(report, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "png", lambda figure: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(tmp_path, latex=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".md", ".tex"}
    assert list(Report.read(tmp_path / "extrapolation.json").rows) == list(report.rows)


def test_json_has_the_promised_fields_and_never_nan(report):
    content = json.loads(report.json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(content) == ["rows", "run"]
    promised = (
        "method length_ratio length protocol status loss perplexity accuracy accuracy_low accuracy_high "
        "attention_entropy num_targets num_documents num_repeated_documents seconds tokens_per_second peak_memory_bytes"
    )
    assert set(promised.split()) <= set(content["rows"][0])
    assert content["rows"][0]["status"] == "ok"
    assert content["rows"][-1]["loss"] is None
    assert content["run"] == {"seed": 1, "strange": [None, {"deep": None}], "text": "GAU-α"}
    overflown = Report([row(perplexity=math.inf)])
    assert json.loads(overflown.json())["rows"][0]["perplexity"] is None


def test_json_is_read_back_as_it_was(report, tmp_path):
    report.write(tmp_path)
    again = Report.read(tmp_path / "extrapolation.json")
    assert list(again.rows) == list(report.rows)
    assert again.json() == report.json()


@pytest.mark.parametrize("text", ["{", "{}", '{"rows": [{"colour": 1}], "run": {}}', "[]"])
def test_reading_what_is_no_report(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json.* (not valid JSON|is not a report)"):
        Report.read(tmp_path / "x.json")


def test_csv_holds_every_field_of_every_row(report):
    lines = list(csv.DictReader(io.StringIO(report.csv())))
    assert len(lines) == len(report.rows)
    assert list(lines[0]) == [
        field.name for field in fields(ExtrapolationResult) if field.name not in ("layers", "documents")
    ]
    assert float(lines[0]["perplexity"]) == report.rows[0].perplexity
    assert lines[-1]["status"] == "no documents"
    assert lines[-1]["loss"] == ""


def test_markdown_shows_numbers_intervals_and_failures(report):
    text = report.markdown()
    assert "| softmax | 3.32 | 8.17 | 20.1 | 49.4 | 121.5 | 298.9 | out of memory |" in text
    assert "| softmax | 64 (1×) | ok | 1.2000 [1.10, 1.30] | 3.32 [3.00, 3.67] | 50.00% [40%, 60%] |" in text
    assert "Protocol mlm; 1,234 targets in 24 to 40 documents per length." in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1, "all lines have as many cells"
    assert len(tables[1]) == 2 + len(report.rows)


def printed(report, width=100) -> str:
    console = Console(width=width, file=io.StringIO())
    report.print(console)
    return console.file.getvalue()


def test_the_printed_table_fits_into_100_columns(report):
    text = printed(report)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    for word in ("streaming_llm_infoscale", "4,096", "(64×)", "298.9", "50.0%", "no docs", "out of", "memory", "mlm"):
        assert word in text
    assert text.count("softmax") == 2  # perplexity and accuracy


def test_nothing_is_cut_where_the_output_is_piped(capsys):
    name = "a_method_of_a_name_as_long_as_those_of_files_can_be (and_a_run_of_a_long_name)"
    Report([row(name, ratio) for ratio in range(1, 20)]).print()
    lines = capsys.readouterr().out.splitlines()
    (heading,) = (line.split() for line in lines if " 64 " in line)
    assert heading == [f"{64 * ratio:,}" for ratio in range(1, 20)]
    assert sum(line.startswith(f" {name} ") for line in lines) == 2


def test_huge_numbers_stay_narrow():
    text = printed(Report([row(loss=12.0), row(ratio=2, loss=40.0), row(ratio=4, loss=2.0)]))
    assert "162,755" in text
    assert "2.4e+17" in text
    assert "7.39" in text


def test_a_table_is_about_one_protocol_and_names_are_unique():
    by_protocol = Report([row(), replace(row(ratio=2), protocol="single-mask")]).tables
    assert [table.lengths for table in by_protocol] == [[64], [128]]
    with pytest.raises(ValueError, match="'softmax' occurs twice at 64 tokens"):
        Report([row(), row()])
    with pytest.raises(ValueError, match="at least one row"):
        Report([])


def test_the_plot_draws_each_method_with_gaps_where_nothing_was_measured(report):
    figure = report.figure()
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == report.tables[0].methods
    assert lines["softmax"].get_xdata().tolist() == [64, 128, 256, 512, 1024, 2048, 4096]
    drawn = lines["softmax"].get_ydata()
    assert drawn[:6] == pytest.approx([r.perplexity for r in report.rows if r.method == "softmax"][:6])
    assert math.isnan(drawn[6])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [line.get_xdata() for line in axes.lines if line.get_linestyle() == "--"] == [[64, 64]]
    assert len(axes.collections) == len(report.tables[0].methods), "a band each"
    assert len({(to_hex(line.get_color()), line.get_marker()) for line in lines.values()}) == 3


def test_up_to_thirty_methods_are_told_apart():
    figure = Report([row(f"method_{place}") for place in range(30)]).figure()
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert len({(to_hex(line.get_color()), line.get_marker()) for line in lines}) == 30


def test_the_plot_survives_a_report_without_any_number():
    assert Report([failed("softmax", 1, Status.NOT_FINITE)]).png().startswith(b"\x89PNG")
    assert Report([row(perplexity=math.inf, perplexity_high=math.inf)]).png().startswith(b"\x89PNG")


def test_png_and_image_are_pictures_and_pyplot_stays_untouched(report, tmp_path):
    backend = matplotlib.rcParams._get("backend")
    report.write(tmp_path)
    picture = imread(tmp_path / "extrapolation.png")
    image = report.image()
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert max(image.shape) < max(picture.shape) <= 1200, "a logger shows it small: the same text on less paper"
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50, "not a blank page"
    assert matplotlib.rcParams._get("backend") == backend


def test_progress_bar_shows_share_and_method():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console) as progress:
        progress(30.0, 120.0, "softmax × 4")
    text = console.file.getvalue()
    assert "softmax × 4" in text
    assert "25%" in text


# ---- HTML, LaTeX, groups, diagnostics ----


def by_layer(entropy=2.0):
    return {
        "attention_entropy": [entropy, entropy + 1],
        "near_share": [0.9, 0.5],
        "distance_from": [0, 1, 2],
        "distance_share": [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]],
    }


@pytest.fixture
def rich_report():
    rows = []
    for ratio in (1, 8):
        rows += [
            row("softmax (a)", ratio, 1.0 * ratio, group="softmax", layers=by_layer(), near_share=0.7),
            row("softmax (b)", ratio, 1.2 * ratio, group="softmax", layers=by_layer(), near_share=0.7),
            row("x_&<b>", ratio, 0.9 * ratio, baseline="softmax (a)", loss_difference=-0.1,
                loss_difference_low=-0.2, loss_difference_high=-0.05, layers=by_layer(1.0), near_share=0.7),
        ]  # fmt: skip
    rows.append(failed("x_&<b>", 16, Status.OUT_OF_TIME))
    return Report(rows, {"note": "</script><b>"})


class Reader(HTMLParser):
    """Checks that tags match, and collects text and addresses."""

    VOID = ("meta", "br", "input", "use", "path", "rect", "line", "image")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_no_network_and_shows_everything(rich_report):
    page = rich_report.html()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.addresses), "nothing is fetched"
    assert "script" not in reader.tags
    assert "@import" not in page
    assert "url(http" not in page
    assert reader.tags.count("svg") == 3, "perplexity, attention, layers"
    text = "".join(reader.text)
    for words in ("2.72", "x_&<b>", "out of time", "-0.100", "[-0.20, -0.05]", "mlm", "1,234", "2 checkpoints"):
        assert words in text, words
    assert rich_report.html() == page, "the same rows give the same page"
    names = re.findall(r'<(?:clipPath|path) id="([^"]+)"', page)
    assert names, "figures define names"
    assert len(names) == len(set(names)), "no figure of the page refers to another's shapes"


def test_a_page_without_diagnostics_has_one_figure(report):
    reader = Reader()
    reader.feed(Report([row()]).html())
    assert reader.tags.count("svg") == 2, "entropy alone is drawn, layers are not known"
    reader = Reader()
    reader.feed(Report([row(attention_entropy=None)]).html())
    assert reader.tags.count("svg") == 1


def test_mean_and_spread_over_seeds(rich_report):
    (first, second) = json.loads(rich_report.json())["groups"]
    assert (first["group"], first["length"], first["num_checkpoints"]) == ("softmax", 64, 2)
    assert second["loss"] == pytest.approx((8 + 9.6) / 2)
    assert second["loss_deviation"] == pytest.approx(1.6 / 2**0.5)
    assert second["perplexity"] == pytest.approx(math.exp(8.8))
    assert (second["low"], second["high"]) == pytest.approx((math.exp(8), math.exp(9.6)))
    assert "| softmax, 2 checkpoints | 3.00 [2.72–3.32] | 6,634 [2,981–14,765] |  |" in rich_report.markdown()
    assert "2 checkpoints" in printed(rich_report)
    assert "groups" not in json.loads(Report([row(group="alone")]).json())
    half = [row("a", group="g"), replace(failed("b", 1, Status.OUT_OF_MEMORY), group="g")]
    assert "groups" not in json.loads(Report(half).json()), "no mean of what is not all there"


def test_latex_rows(rich_report, tmp_path):
    lines = [line.strip() for line in rich_report.latex().splitlines()]
    assert lines[2].startswith(r"\caption{Perplexity by length in tokens. Protocol mlm")
    assert r"\begin{tabular}{lrrr}" in lines
    assert r"x\_\&\textless{}b\textgreater{} & \textbf{2.46} & \textbf{1,339} & out of time \\" in lines
    assert {line.count(" & ") for line in lines if line.endswith(r"\\")} == {3}
    tied = rich_report.tables[0]
    for one in tied.rows:
        is_bold = any(rf"\textbf{{{tied.cell(one.method, one.length)}}}" in line for line in lines)
        assert is_bold == (tied.is_best(one) or tied.is_as_good(one))
    rules = [line for line in lines if line.endswith("rule")]
    assert rules == [r"\toprule", *[r"\midrule"] * (len(rules) - 2), r"\bottomrule"]
    rich_report.write(tmp_path / "with", latex=True)
    assert (tmp_path / "with" / "extrapolation.tex").read_text() == rich_report.latex()


def test_entropy_stands_beside_its_value_at_the_training_length(rich_report):
    rows = [row(attention_entropy=1.25), row(ratio=8, attention_entropy=3.5, effective_keys=33.1, near_share=0.25)]
    text = Report(rows).markdown()
    assert "| 3.500 | 1.250 | 33.1 | 25.0% |" in text


def test_sampled_and_repeated_rows_say_so():
    drawn = row(num_positions=5000, loss_sampling_low=0.95, loss_sampling_high=1.05, num_repeated_documents=3)
    text = Report([drawn]).markdown()
    assert "1,234 of 5,000" in text
    assert "[0.9500, 1.0500]" in text
    assert "unbiased estimates" in text
    assert "can be copied" in text
    with pytest.raises(ValueError, match=r"span_position \['first', 'spread'\]"):
        Report([row(), row("b", span_position="spread")])


def test_the_figures_of_attention_draw_what_is_known(rich_report):
    entropy, near, distance = figures.attention(rich_report.tables[0]).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in entropy.lines}
    assert drawn["softmax (a)"][:2] == [2.5, 2.5]
    assert drawn["even spread, ln n"][0] == pytest.approx(math.log(64))
    assert near.lines[0].get_ydata()[0] == 0.7
    assert distance.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.25, 0.45])
    panels = figures.layers(rich_report.tables[0]).axes
    assert [axes.get_title() for axes in panels] == rich_report.tables[0].methods
    curves = [line for line in panels[0].lines if not line.get_label().startswith("_")]
    assert [line.get_ydata()[0] for line in curves] == [2.0, 3.0]
    assert figures.layers(Report([row()]).tables[0]) is None
    assert figures.attention(Report([row(attention_entropy=None)]).tables[0]) is None


# ---- what a reader must not overlook ----

UNTRAINED = "similarity overridden: the weights were trained for another one"


@pytest.fixture
def flagged() -> Report:
    rows = [
        row("softmax", ratio, 6.26, note="only 4 documents: intervals are too narrow", group="softmax")
        for ratio in (1, 2)
    ]
    rows += [row("cosscale", ratio, 6.24, note=f"{UNTRAINED}; only 4 documents: too narrow") for ratio in (1, 2)]
    rows += [
        row(f"alibi ({seed})", 1, 7.0, group="alibi", note="ALiBi has to be trained, and was not") for seed in "ab"
    ]
    return Report(rows)


def test_untrained_methods_are_no_plain_peers(flagged):
    """In every table a dagger and the reason, and never the best of a length."""
    console = Console(width=120, file=io.StringIO())
    flagged.print(console)
    screen = console.file.getvalue()
    reader = Reader()
    reader.feed(flagged.html())
    page = "\n".join(reader.text)
    for text in (screen, flagged.markdown(), page):
        # Markdown shows accuracies beside the notes alone; the page has legends of figures, too.
        assert text.count("cosscale †") == (1 if "##" in text else 4 if text is page else 2)
        assert f"† cosscale: {UNTRAINED}." in " ".join(text.split())
        assert "alibi (a) †" in text
        assert "alibi †, 2 checkpoints" in text
        assert "softmax †" not in text
        assert "† softmax" not in text
    assert "<span class='best'>523.2" in flagged.html(), "softmax, though the untrained one is lower"
    assert "<span class='best'>512.9" not in flagged.html()
    lines = [line.strip() for line in flagged.latex().splitlines()]
    assert any(line.startswith(r"cosscale$^\dagger$ & 512.9") for line in lines)
    assert any(line.startswith(r"softmax & \textbf{523.2}") for line in lines)
    assert any(line.startswith(r"\par\footnotesize $^\dagger$ cosscale: similarity overridden") for line in lines)
    (mean,) = (line for line in lines if line.startswith(r"alibi$^\dagger$"[:5]) and "2 checkpoints" in line)
    assert mean.startswith(r"alibi $^\dagger$, 2 checkpoints & ")


def test_legends_of_figures_mark_what_tables_mark(flagged):
    names = ["softmax", "cosscale †", "alibi (a) †", "alibi (b) †"]
    (axes,) = figures.overview(flagged.tables).axes
    assert [text.get_text() for text in axes.texts[-4:]] == names, "beside their lines"
    (legend,) = figures.thumbnail(flagged.tables).legends
    assert [text.get_text() for text in legend.get_texts()] == names


def test_nothing_flagged_nothing_marked(report):
    assert "†" not in report.markdown() + report.html() + report.latex()
    assert "dagger" not in report.latex()


@pytest.mark.parametrize("width", [0.004, 0.05, 0.2, 0.55, 3.0, 40.0])
def test_intervals_print_no_digit_that_resampling_does_not_carry(width):
    """Resampled again and again, an end moves by a standard error; the last digit is no finer than half of that."""
    generator = np.random.default_rng(0)
    sigma, repeats = width / (2 * 1.96), 400
    low = np.quantile(generator.normal(5, sigma, (repeats, 1000)), 0.025, axis=1)
    step = 10.0 ** -decimals(low.mean(), low.mean() + width, most=9)
    assert step >= 0.45 * low.std(), "no finer"
    assert step <= 6 * low.std() or step == 1, "and not much coarser"
