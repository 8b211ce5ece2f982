"""The study's page and the front page's table say what results.parquet holds, digit by digit."""

import re

import pytest
from pages import ROOT
from study_page import BEGIN, END, FOLDER, FRONT, PAGE, UNITS, pages, studies

NUMBER = re.compile(r"\d+\.\d+")
NAMED = re.compile(r"arXiv \d{4}\.\d{5}|abs/\d{4}\.\d{5}|\]\([^)]*\)|`[^`]*`")  # of papers, links and settings


@pytest.fixture(scope="module")
def written():
    return pages(studies())


@pytest.mark.parametrize("path", [PAGE, FRONT], ids=lambda path: path.name)
def test_pages_are_made_of_the_results(written, path):
    assert path.read_text(encoding="utf-8") == written[path], "run docs/study_page.py"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja2")), ids=lambda path: path.name)
def test_templates_hold_no_numbers_of_their_own(path):
    typed = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", path.read_text(encoding="utf-8"), flags=re.S)
    assert not NUMBER.findall(NAMED.sub("", typed))


def test_numbers_follow_the_results(written):
    known = studies()
    for numbers in known.values():
        for row in numbers.results.rows:
            row.update({name: 0.9 * row[name] for name in UNITS if row[name] is not None})
    moved = pages(known)
    for path, text in written.items():
        before, after = (
            NUMBER.findall(one.partition(BEGIN)[2].partition(END)[0] or one) for one in (text, moved[path])
        )
        assert len(before) == len(after) > 20
        same = sum(one == other for one, other in zip(before, after, strict=True))
        assert same < 0.1 * len(before)  # versions, p-values, differences of nothing


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/study.yaml")), ids=lambda path: path.parent.name)
def test_what_was_run_is_what_is_shipped(path):
    assert path.read_text(encoding="utf-8") == (ROOT / "configs/study" / f"{path.parent.name}.yaml").read_text("utf-8")


def test_results_are_small_and_name_no_machine():
    paths = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.name for path in paths} >= {"results.parquet", "study.yaml", "configs.yaml", "versions.json"}
    assert all(path.stat().st_size < 2 * 2**20 for path in paths)
    for path in paths:
        if path.suffix in (".yaml", ".json"):
            assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", path.read_text(encoding="utf-8")), path
