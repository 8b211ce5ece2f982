"""Names that others chose are shown as they are; malformed files of results end in one message."""

import csv
import io
import json
import math
import re
import traceback
from dataclasses import fields, replace
from functools import cache
from html.parser import HTMLParser
from typing import get_type_hints
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from rich.console import Console

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints import model_card
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.extrapolation import ExtrapolationResult, ResultCache, Status
from gau_alpha.extrapolation.diagnostics import Diagnostics
from gau_alpha.extrapolation.report import Report, figures
from gau_alpha.extrapolation.result_cache import plain_sums, read_sums
from gau_alpha.extrapolation.run import progress_bar
from gau_alpha.extrapolation.statistics import DocumentSums
from gau_alpha.untrusted.escaping import one_line, printable

NASTY = [
    "$",
    "$$x",
    "$x_1$",
    "\\frac{1}{0}",
    "$\\frac{1}{$",
    "=1+1",
    "  =1+1",
    "\t=1+1",
    "\r=1+1",
    "+1",
    "-2+3",
    "@SUM(A1)",
    "[bold]x[/bold]",
    "[red]",
    "[/]",
    ":smile:",
    "[x](http://example.org)",
    "http://example.org",
    "www.example.org",
    "a|b",
    "a\\|b",
    "ends\\",
    "`code`",
    "```",
    "*bold* __bold__ ~~gone~~",
    "# C #",
    "<img src=x onerror=alert(1)>",
    "</script></pre><script>alert(1)</script>",
    "&lt;",
    "'single'",
    '"quoted"',
    "_hidden",
    "_child0",
    "_nolegend_",
    "even spread, ln n",
    "a\nb",
    "a\r\nb",
    "a\n\n# b",
    "\x1b[31mred",
    "\x9b31m",
    "\x00",
    "\u202eabc",
    "\ud800",
    "a\u2028b",
    "100%",
    "100% sure\\\\",
    "中文",
    "~^#&{}",
    " ",
]


# What a figure could take for something else: mathematics, a hidden label; markup, lines and half a character.
DRAWN_ALONE = ["$\\frac{1}{$", "_nolegend_", "<img src=x onerror=alert(1)>\n\n# b\ud800"]


def report_of(name: str) -> Report:
    """Every text of a report is the name."""
    return Report(rows_of(name, [name, f"{name}2"]), {name: name, "list": [name]})


def rows_of(name: str, methods: list[str]) -> list[ExtrapolationResult]:
    """Rows of several methods, in which every other text is the name."""
    numbers = dict.fromkeys(("loss", "perplexity", "accuracy", "attention_entropy", "near_share"), 0.5)
    texts = {one.name: name for one in fields(ExtrapolationResult) if one.type is str and one.name != "method"}
    assert set(texts) >= {"baseline", "group", "kernel", "note", "protocol", "span_position"}
    layers = {
        "attention_entropy": [2.0, 3.0],
        "near_share": [0.9, 0.5],
        "distance_from": [0, 1],
        "distance_share": [[0.5, 0.5], [0.1, 0.9]],
    }
    return [
        ExtrapolationResult(
            method=method,
            length_ratio=ratio,
            length=64 * ratio,
            status=Status.OK,
            loss_difference=-0.25,
            num_targets=10,
            layers=layers,
            **numbers,
            **texts,
        )
        for ratio in (1, 8)
        for method in methods
    ]


nasty = pytest.mark.parametrize("name", NASTY, ids=ascii)
drawn_alone = pytest.mark.parametrize("name", DRAWN_ALONE, ids=ascii)
PLAIN = report_of("plain")
LAYERED = Report(rows_of("plain", NASTY), {"names": NASTY})
ALL = Report([replace(row, layers=None) for row in LAYERED.rows], LAYERED.run)  # a panel per method takes time to draw


def named(texts: list[str], name: str) -> list[str]:
    """What a file of the plain report says, of the other name."""
    return [text.replace("plain", one_line(name)) for text in texts]


@nasty
def test_json_is_read_back(name, tmp_path):
    report = report_of(name)
    text = report.json()
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    again = Report.read(tmp_path / "x.json")
    assert list(again.rows) == list(report.rows)
    assert again.run == report.run
    assert not re.search(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), "nothing that a terminal would obey"


@pytest.mark.slow
@pytest.mark.parametrize("report", [ALL, *map(report_of, DRAWN_ALONE)], ids=["all", *map(ascii, DRAWN_ALONE)])
def test_every_file_is_written(report, tmp_path):
    paths = report.write(tmp_path, latex=True)
    assert {path.suffix for path in paths} == {".json", ".csv", ".md", ".tex", ".png", ".html"}
    again = Report.read(tmp_path / "extrapolation.json")
    assert list(again.rows) == list(report.rows)
    assert again.run == report.run
    assert report.image().ndim == 3


class Page(HTMLParser):
    """Tags with their attributes, text, and the content of <pre>, all outside of figures; figures by themselves."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.run, self.within = [], [], "", []
        self.feed(re.sub(r"<svg.*?</svg>", "<svg></svg>", text, flags=re.DOTALL))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))
        self.within.append(tag)

    def handle_endtag(self, tag):
        self.within.pop()

    def handle_data(self, data):
        if self.within[-1:] == ["pre"]:
            self.run += data
        else:
            self.texts.append(data)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages leave their figures empty, which have tests of their own."""
    for draw in (figures.overview, figures.attention, figures.layers):
        monkeypatch.setattr(figures, draw.__name__, lambda *args: "drawn")
    monkeypatch.setattr(figures, "svg", lambda figure, name: "<svg></svg>")


@nasty
def test_html_has_the_same_tags_whatever_the_name(name, undrawn):
    page, plain = Page(report_of(name).html()), Page(PLAIN.html())
    assert page.tags == plain.tags
    assert "".join(page.texts) == "".join(named(plain.texts, name))
    assert json.loads(page.run) == report_of(name).run
    assert printable(page.run) == page.run


DRAWN = (figures.overview, figures.attention, figures.layers)


def figure_of(report: Report, draw) -> Figure:
    """What a function of ``figures`` makes of a report of one protocol."""
    return draw(report.tables if draw is figures.overview else report.tables[0])


def drawn_texts(report: Report, draw) -> list[str]:
    root = ElementTree.fromstring(figures.svg(figure_of(report, draw), "x"))
    return ["".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")]


@cache
def plain_texts(draw) -> list[str]:
    return [text for text in drawn_texts(PLAIN, draw) if "plain" in text]


@pytest.mark.slow
def test_figures_show_the_names_of_methods_literally():
    names = list(map(one_line, NASTY))
    for draw in (figures.overview, figures.attention):
        drawn = {text.removesuffix("†").strip() for text in drawn_texts(ALL, draw)}
        assert {name.strip() for name in names} <= drawn
        figure = figure_of(ALL, draw)
        texts = figure.legends[0].get_texts() if figure.legends else figure.axes[0].texts
        listed = [text.get_text().removesuffix("†").rstrip() for text in texts][-len(names) :]
        assert listed == [name.rstrip() for name in names]
    titles = [axes.title for axes in figures.layers(LAYERED.tables[0]).axes]
    listed = [title.get_text().removesuffix("†").rstrip() for title in titles if title.get_text()]
    assert [one for one in listed if one] == [name.rstrip() for name in names if name.strip()]
    assert not any(title.get_parse_math() or title.get_usetex() for title in titles if title.get_text())


@drawn_alone
def test_figures_show_every_text_literally(name):
    report = report_of(name)
    for draw in DRAWN:
        assert len(plain_texts(draw)) >= 2
        assert {text.strip() for text in named(plain_texts(draw), name)} <= set(drawn_texts(report, draw))


def test_figures_have_room_for_long_names(recwarn):
    report = report_of("long " * 20_000)
    assert len(report.png()) > 1000
    report.html()
    texts = report.figure().axes[0].texts[-2:]
    assert [len(text.get_text()) for text in texts] == [80, 80]
    assert texts[1].get_text().removesuffix("†").rstrip().endswith(" long 2"), "where names differ"
    assert not [one for one in recwarn if "layout" in str(one.message)], "no panel shrinks to nothing"


def test_figures_are_as_they_were_where_the_user_has_matplotlib_set_latex():
    with matplotlib.rc_context({"text.usetex": True}):
        texts = report_of("$").figure().axes[0].texts[-2:]
    assert [text.get_text() for text in texts] == ["$ †", "$2 †"]
    assert not any(text.get_usetex() or text.get_parse_math() for text in texts)


@nasty
def test_csv_holds_no_formula_and_numbers_are_unchanged(name):
    lines = list(csv.DictReader(io.StringIO(report_of(name).csv(), newline="")))
    assert len(lines) == 4
    hints = get_type_hints(ExtrapolationResult)
    for field, cell in lines[0].items():
        if hints[field] is str:
            assert cell.removeprefix("'") == printable(name).removeprefix("'")
            assert not cell.lstrip().startswith(("=", "+", "-", "@"))
            assert not cell.startswith(("\t", "\r"))
    assert [float(line["loss_difference"]) for line in lines] == [-0.25] * 4
    assert lines[0]["length"] == "64"


LATEX = {
    **{f"\\{mark}": mark for mark in "&%$#_{}"},
    "\\textbackslash{}": "\\",
    "\\textasciitilde{}": "~",
    "\\textasciicircum{}": "^",
    "\\textless{}": "<",
    "\\textgreater{}": ">",
    "\\textbar{}": "|",
    "\\symbol{34}": '"',
    "{[}": "[",
    "{*}": "*",
}
TOKEN = re.compile("|".join(map(re.escape, sorted(LATEX, key=len, reverse=True))) + r'|[^\\~^&%$#_{}<>|"\[*]')


def set_by_latex(text: str) -> str:
    tokens = TOKEN.findall(text)
    assert "".join(tokens) == text, "nothing that LaTeX would obey is left"
    return "".join(LATEX.get(token, token) for token in tokens)


@nasty
def test_latex_sets_names_literally(name):
    lines = [line.removeprefix("  ").removeprefix("  ") for line in report_of(name).latex().splitlines()]
    caption = lines[2].removeprefix(r"\caption{Perplexity by length in tokens. ").removesuffix("}")
    assert set_by_latex(caption) == named([PLAIN.tables[0].caption()], name)[0]
    top, middle, bottom = (lines.index(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule"))
    (heading,), (first, second, _, group) = lines[top + 1 : middle], lines[middle + 1 : bottom]
    assert set_by_latex(group.split(r" $^\dagger$, 2 checkpoints & ")[0]) == one_line(name)
    *reasons, _ = lines[bottom + 2 : -1]
    assert heading.startswith("method & ")
    for line, method in ((first, name), (second, f"{name}2")):
        assert line.endswith(r"$^\dagger$ & 0.50 & 0.50 \\")  # its note speaks against it
        assert set_by_latex(line.split("$^\\dagger$ & ")[0]) == one_line(method)
    assert len(reasons) == 2
    for line, method in zip(reasons, (name, f"{name}2"), strict=True):
        said = line.removeprefix(r"\par\footnotesize $^\dagger$ ")
        assert set_by_latex(said).startswith(f"{one_line(method)}: ")


def read_markdown(text: str) -> tuple[list[str], str]:
    """The kinds of a text's parts, and what it shows, as CommonMark with tables reads it."""
    kinds, shown = [], []
    for block in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        kinds.append(block.type)
        for part in [one for one in block.children or [] if one.type != "text"]:
            kinds.append(part.type)
        shown.append("".join(one.content for one in block.children or []))
    return kinds, "\n".join(shown)


@nasty
def test_markdown_shows_names_literally(name):
    text = report_of(name).markdown()
    table, run = text.split("## Run")
    kinds, shown = read_markdown(table)
    plain_kinds, plain = read_markdown(PLAIN.markdown().split("## Run")[0])
    assert kinds == plain_kinds
    squeezed = [re.sub(" +", " ", line).strip() for line in (shown, *named([plain], name))]
    assert squeezed[0].replace(" \n", "\n") == squeezed[1].replace(" \n", "\n").replace("\n ", "\n")
    assert not re.search(r"https?:|www\.", table, re.IGNORECASE), "GitHub makes links of these"
    (block,) = MarkdownIt("commonmark").parse(run.strip())
    assert json.loads(block.content) == report_of(name).run


@nasty
def test_the_terminal_shows_names_literally(name):
    console = Console(width=300, file=io.StringIO(), record=True)
    report_of(name).print(console)
    text = console.export_text()
    assert printable(text) == text
    assert sum(line.strip().startswith(f"{one_line(name)}2".strip()) for line in text.splitlines()) >= 2
    assert re.sub(r"\s+", " ", one_line(report_of(name).tables[0].caption())).strip() in re.sub(r"\s+", " ", text)


@nasty
def test_the_progress_bar_shows_names_literally(name):
    console = Console(width=300, file=io.StringIO(), force_terminal=True, color_system=None)
    with progress_bar(console) as progress:
        progress(30.0, 120.0, f"{name} × 4")
    assert f"{one_line(name)} × 4" in console.file.getvalue()


def card(title: str, results=None, data=None) -> str:
    return model_card(title, GAUAlphaConfig(100), AttentionMethod(), 64, data=data, results=results)


@nasty
def test_the_model_card_shows_names_literally(name, tmp_path):
    (tmp_path / "x.json").write_text(report_of(name).json(), encoding="utf-8")
    (tmp_path / "plain.json").write_text(PLAIN.json(), encoding="utf-8")
    kinds, shown = read_markdown(card(name, tmp_path / "x.json"))
    plain_kinds, plain = read_markdown(card("plain", tmp_path / "plain.json"))
    if name.strip():
        assert kinds == plain_kinds
    assert shown.split() == " ".join(named([plain], name)).split()
    data = {"init_args": {name: {"class_path": name}}}
    kinds, shown = read_markdown(card("x", data=data))
    plain_kinds, plain = read_markdown(card("x", data={"init_args": {"plain": {"class_path": "plain"}}}))
    assert set(kinds) <= set(plain_kinds)
    assert shown.split() == " ".join(named([plain], name)).split()


# ---- files of results that others wrote ----

WRONG = {
    "an empty list": "[]",
    "a list": "[1]",
    "an object": '{"a": 1}',
    "a string": '"x"',
    "null": "null",
    "true": "true",
    "a fraction": "0.5",
    "a negative number": "-1",
    "a huge number": "1" + "0" * 400,
    "5,000 digits": "1" * 5000,
    "an infinity": "1e400",
    "NaN": "NaN",
    "depth": "[" * 100_000 + "]" * 100_000,
}
FIT = {  # kind of a field → which of these it takes
    "str": {"a string"},
    "int": set(),
    "float": {"a fraction", "a negative number"},
    "float | None": {"a fraction", "a negative number", "null"},
    "int | None": {"null"},
    "dict | None": {"null"},
    "dict": {"an object"},
    "list": set(),
    "Status": set(),
    "array": set(),
    "array | None": {"null"},
    "cell": {"a fraction", "a negative number", "an infinity", "NaN"},
}
wrong = pytest.mark.parametrize("kind", WRONG)


def places(value, path=()):
    """Yield every place within plain data."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, (*path, key))


def replaced(value, path: tuple, text: str) -> str:
    """JSON of the data with other text at a place."""
    copy = json.loads(json.dumps(value))
    within = copy
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = "@@"
    return json.dumps(copy).replace('"@@"', text)


def without(value, path: tuple) -> str:
    """JSON of the data without a field."""
    copy = json.loads(json.dumps(value))
    within = copy
    for key in path[:-1]:
        within = within[key]
    del within[path[-1]]
    return json.dumps(copy)


def refused(read, file) -> bool:
    """Whether a file is refused, in one message of ours that names it, and as such reaches the command line."""
    try:
        read(file)
    except ValueError as error:
        *_, (last, _) = traceback.walk_tb(error.__traceback__)
        message, origin = str(error), last.f_globals["__name__"]
    else:
        return False
    assert str(file) in message
    assert len(message) < 1000
    assert printable(message) == message
    assert origin.startswith("gau_alpha.")
    return True


def check_every_place(read, file, content, kind, kind_of):
    """Put one wrong value at every place in turn."""
    for path in places(content):
        file.write_text(replaced(content, path, WRONG[kind]))
        assert refused(read, file) == (kind not in FIT[kind_of(path)]), path


def kind_in_report(path):
    hints = {one.name: str(getattr(one.type, "__name__", one.type)) for one in fields(ExtrapolationResult)}
    match path:
        case ("rows",) | ("rows", int()):
            return "list"
        case ("run",):
            return "dict"
        case ("rows", int(), "layers"):
            return "dict | None"
        case ("rows", int(), name):
            return hints[name]
        case ("rows", int(), "layers", "attention_entropy" | "near_share", int()):
            return "float | None"
        case ("rows", int(), "layers", "distance_share", int(), int()):
            return "float | None"
        case ("rows", int(), "layers", "distance_from", int()):
            return "int"
    return "list"


@wrong
def test_a_wrong_value_anywhere_in_a_report_is_one_message(kind, tmp_path):
    content = json.loads(Report(PLAIN.rows[:1], {}).json())
    assert len(list(places(content))) > len(fields(ExtrapolationResult))
    check_every_place(Report.read, tmp_path / "x.json", content, kind, kind_in_report)


def test_fields_without_a_default_may_not_lack_and_unknown_ones_are_named(tmp_path):
    content = json.loads(Report(PLAIN.rows[:1], {}).json())
    file = tmp_path / "x.json"
    for path in [("rows",), ("run",), *(("rows", 0, name) for name in ("method", "length", "protocol", "status"))]:
        file.write_text(without(content, path))
        assert refused(Report.read, file)
    file.write_text(json.dumps({"rows": [{**content["rows"][0], "colour": 1}], "run": {}}))
    with pytest.raises(ValueError, match=r"x\.json .*rows\[0\].*colour"):
        Report.read(file)


def spoiled(file):
    """Write what is no JSON at all, one after the other."""
    for content in (
        b"",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"rows": [], "run": {}}',
    ):
        file.write_bytes(content)
        yield
    file.unlink()
    file.mkdir()
    yield
    file.rmdir()
    file.symlink_to(file)
    yield


def test_what_is_no_report_at_all_is_one_message(tmp_path):
    for _ in spoiled(tmp_path / "x.json"):
        assert refused(Report.read, tmp_path / "x.json")
    assert refused(Report.read, tmp_path / "missing.json")


@pytest.mark.slow
@pytest.mark.parametrize("value", ["1", "null", "0.5"])
def test_a_report_with_odd_but_possible_numbers_can_be_written(tmp_path, value):
    (tmp_path / "x.json").write_text(json.dumps({"rows": [PLAIN.rows[0].as_dict()], "run": {}}).replace("0.5", value))
    Report.read(tmp_path / "x.json").write(tmp_path / "again", latex=True)


def test_layers_must_belong_together(tmp_path):
    one, two = (json.loads(Report(PLAIN.rows[:1], {}).json())["rows"][0] for _ in range(2))
    two |= {"length": 128, "layers": {"attention_entropy": [1.0, 2.0, 3.0]}}
    (tmp_path / "x.json").write_text(json.dumps({"rows": [one, two], "run": {}}))
    with pytest.raises(ValueError, match=r"x\.json .*'plain' has 2 layers, but 3"):
        Report.read(tmp_path / "x.json")


@wrong
def test_a_wrong_value_anywhere_in_the_results_of_a_card_is_one_message(kind, tmp_path):
    content = json.loads(Report(PLAIN.rows[:1], {}).json())
    shown = ("method", "length", "protocol", "status", "perplexity", "note")

    def kind_in_card(path):
        if path in (("rows",), ("rows", 0)):
            return "list"
        return "str" if path[-1] == "status" else kind_in_report(path)

    file = tmp_path / "x.json"
    for path in places(content):
        file.write_text(replaced(content, path, WRONG[kind]))
        unread = not (len(path) < 3 and path[0] == "rows") and not (len(path) == 3 and path[2] in shown)
        unreadable = kind in ("depth", "5,000 digits")
        expected = unreadable if unread else kind not in FIT[kind_in_card(path)]
        assert refused(lambda file: card("x", file), file) == expected, path


def test_what_are_no_results_for_a_card_is_one_message(tmp_path):
    for _ in spoiled(tmp_path / "x.json"):
        assert refused(lambda file: card("x", file), tmp_path / "x.json")


def test_a_card_shows_perplexities_that_no_float_or_no_cell_can_hold(tmp_path):
    rows = [PLAIN.rows[0].as_dict() | {"length": length, "perplexity": x} for length, x in ((64, None), (65, 1e300))]
    (tmp_path / "x.json").write_text(json.dumps({"rows": rows}))
    assert "| plain |  | 1.0e+300 |" in card("x", tmp_path / "x.json")


MEASURED = DocumentSums(np.full((2, 8), 3.0), Diagnostics(np.ones((2, 4))), 128, 0.5, 1000)


def cache_of(folder) -> ResultCache:
    return ResultCache(folder, {"documents": "abc", "deep": {"er": [2, 3]}})


@pytest.fixture
def entry(tmp_path):
    """Return the file of a measurement."""
    cache_of(tmp_path / "unfinished").add("mlm", "plain", 64, MEASURED)
    (file,) = (tmp_path / "unfinished").glob("[!i]*.json")
    return file


def test_measurements_are_read_back(entry):
    cache_of(entry.parent).add("mlm", "none", 64, None)
    known = cache_of(entry.parent).known()
    assert known["mlm", "none", 64] is None
    assert plain_sums(known["mlm", "plain", 64]) == plain_sums(MEASURED)
    nan = DocumentSums(np.array([[math.nan, 1, 1, 1, math.nan, 0, 0, 0]]), None, 64, 0.5, None)
    again = read_sums(json.loads(json.dumps(plain_sums(nan))))
    assert math.isnan(again.loss[0])


def kind_in_entry(path):
    match path:
        case ("name",) | ("protocol",) | ("identity",):
            return "str"
        case ("measurement",):
            return "dict | None"
        case ("measurement", "peak_memory_bytes"):
            return "int | None"
        case ("measurement", "seconds"):
            return "float"
        case ("measurement", "diagnostics"):
            return "array | None"
        case ("measurement", "sums" | "diagnostics", int(), int()):
            return "cell"
    return "int"


@wrong
def test_a_wrong_value_anywhere_in_a_measurement_is_one_message(kind, entry):
    content = json.loads(entry.read_text())
    for path in places(content):
        entry.write_text(replaced(content, path, WRONG[kind]))
        fits = kind in FIT[kind_in_entry(path)]
        if path == ("measurement", "seconds") or (path[1:2] == ("sums",) and path[3:] in ((2,), (3,))):
            fits = kind == "a fraction" and path[1] == "seconds"  # time and counts are more than 0
        assert refused(lambda _: cache_of(entry.parent), entry) == (not fits), path


@pytest.mark.parametrize("name", ["identity", "protocol", "name", "length", "measurement"])
def test_an_entry_has_all_its_fields(name, entry):
    content = json.loads(entry.read_text())
    entry.write_text(without(content, (name,)))
    assert refused(lambda _: cache_of(entry.parent), entry)
    for field in content["measurement"]:
        entry.write_text(without(content, ("measurement", field)))
        assert refused(lambda _: cache_of(entry.parent), entry)
    entry.write_text(json.dumps({**content, "measurement": {**content["measurement"], "colour": 1}}))
    with pytest.raises(ValueError, match=r"measurement.*colour.*Remove .*unfinished to begin anew"):
        cache_of(entry.parent)


def test_what_is_no_measurement_at_all_is_one_message(entry):
    for _ in spoiled(entry):
        if not entry.is_symlink():  # a link that leads nowhere is no file of the folder
            assert refused(lambda _: cache_of(entry.parent), entry)


@wrong
def test_an_identity_of_anything_else_is_one_message(kind, entry):
    file = entry.with_name("identity.json")
    content = json.loads(file.read_text())
    for path in places(content):
        file.write_text(replaced(content, path, WRONG[kind]))
        assert refused(lambda _: cache_of(entry.parent), entry.parent)
    file.write_text(json.dumps(content).replace("deep", "\\u001b[31m"))
    assert refused(lambda _: cache_of(entry.parent), entry.parent)


def test_what_is_no_identity_at_all_is_one_message(entry):
    file = entry.with_name("identity.json")
    for _ in spoiled(file):
        if not file.is_symlink():
            assert refused(lambda _: cache_of(entry.parent), entry.parent)


def test_a_file_where_measurements_would_be_kept_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "unfinished").write_text("")
    assert refused(cache_of, tmp_path / "unfinished")
