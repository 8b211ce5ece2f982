import shutil
from pathlib import Path

import pytest

from datamodules import JsonLines, PythonStandardLibrary, TextFiles


@pytest.mark.slow
def test_standard_library_is_a_corpus():
    source = PythonStandardLibrary()
    documents = list(source.documents())
    assert sum(map(len, documents)) > 8_000_000
    assert sum(len(document) >= 4096 for document in documents) > 300
    assert documents == list(source.documents())
    assert source.num_documents_hint() >= len(documents)
    assert source.fingerprint() == PythonStandardLibrary().fingerprint()


def test_standard_library_leaves_out_tests_packages_and_other_encodings(tmp_path: Path, monkeypatch, caplog):
    for name in ("b.py", "a.py", "sub/c.py", "test/d.py", "sub/tests/e.py", "site-packages/f.py", "g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with caplog.at_level("INFO"):
        assert list(PythonStandardLibrary().documents()) == ["a.py", "b.py", "sub/c.py"]
    assert "left out 1 files" in caplog.text


def test_python_without_sources_is_an_error(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="keeps no source files"):
        PythonStandardLibrary().fingerprint()


def test_text_files_reads_files_folders_and_globs_in_order_and_once(tmp_path: Path):
    for name in ("z.txt", "folder/b.txt", "folder/a.md", "folder/sub/c.txt", "folder/.hidden/d.txt", "folder/.e"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    source = TextFiles([str(tmp_path / "z.txt"), str(tmp_path / "folder"), str(tmp_path / "**/*.txt")])
    assert list(source.documents()) == ["z.txt", "folder/a.md", "folder/b.txt", "folder/sub/c.txt"]
    assert source.num_documents_hint() == 4
    assert list(TextFiles(str(tmp_path / "z.txt")).documents()) == ["z.txt"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path: Path):
    (tmp_path / "a[1].txt").write_text("x")
    assert list(TextFiles(str(tmp_path / "a[1].txt")).documents()) == ["x"]


def test_encoding_is_applied(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("café\r\n".encode("latin-1"))
    assert list(TextFiles(str(tmp_path), encoding="latin-1").documents()) == ["café\r\n"]


def test_json_lines_yields_the_field_and_skips_blank_lines(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n\n{"body": "zwei\\u00e4", "n": 2}\n   \n{"body": ""}')
    assert list(JsonLines(str(tmp_path / "*.jsonl"), field="body").documents()) == ["one", "zweiä", ""]


@pytest.mark.parametrize("kind", [TextFiles, JsonLines])
def test_fingerprint_is_the_content_not_the_place(tmp_path: Path, kind):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "a").write_text('{"text": "1"}\n')
    (first / "b").write_text('{"text": "2"}\n')
    shutil.copytree(first, second)
    original = kind(str(first)).fingerprint()
    assert kind(str(second)).fingerprint() == original

    (second / "b").write_text('{"text": "3"}\n')
    assert kind(str(second)).fingerprint() != original
    # The same bytes cut elsewhere are other documents.
    (second / "a").write_text('{"text": "1"}\n{"text":')
    (second / "b").write_text(' "2"}\n')
    assert kind(str(second)).fingerprint() != original


def test_fingerprint_covers_options(tmp_path: Path):
    (tmp_path / "a").write_text('{"text": "1"}\n')
    path = str(tmp_path)
    assert TextFiles(path).fingerprint() != TextFiles(path, encoding="latin-1").fingerprint()
    assert JsonLines(path, "text").fingerprint() != JsonLines(path, "body").fingerprint()
    assert JsonLines(path).fingerprint() != TextFiles(path).fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "x"}\n{"body": "x"}\n', r"a.jsonl, line 2: no field 'text', only \['body'\]"),
        (b'{"text": "x"}\n\n{"text": \n', r"a.jsonl, line 3: not JSON"),
        (b'["x"]\n', r"a.jsonl, line 1: a JSON list"),
        (b'{"text": 3}\n', r"a.jsonl, line 1: field 'text' holds a int"),
        (b'{"text": null}\n', r"a.jsonl, line 1: field 'text' holds a NoneType"),
        (b'{"text": "\\ud800"}\n', r"a.jsonl, line 1: .* surrogate"),
        (b'{"text": "x"}\n{"text": "\xff"}\n', r"a.jsonl is not utf-8: cannot decode byte 0xff at offset 24"),
    ],
)
def test_json_lines_errors_name_file_and_place(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(JsonLines(str(tmp_path)).documents())


def test_text_files_error_names_file_and_offset(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"abc\xe9def")
    with pytest.raises(ValueError, match=r"a.txt is not utf-8: cannot decode byte 0xe9 at offset 3"):
        list(TextFiles(str(tmp_path)).documents())


@pytest.mark.parametrize("kind", [TextFiles, JsonLines])
@pytest.mark.parametrize("name", ["missing.txt", "*.nothing", "empty"])
def test_paths_that_name_no_file_are_errors(tmp_path: Path, kind, name: str):
    (tmp_path / "empty").mkdir()
    path = str(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name.replace('*', '[*]')}' names no file"):
        list(kind(path).documents())
    with pytest.raises(ValueError, match="names no file"):
        kind(path).fingerprint()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"paths=\[\] names no file"):
        TextFiles([])
    with pytest.raises(ValueError, match="encoding='utf-9'"):
        TextFiles("x", encoding="utf-9")
