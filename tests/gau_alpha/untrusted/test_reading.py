"""YAML and JSON from strangers: malformed or hostile text is one ValueError, soon."""

import math
import os
import time

import pytest
import yaml

from gau_alpha.untrusted.reading import parse_json, parse_yaml, read_json, read_yaml

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
MERGED = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}], k{i}: 1}}\n" for i in range(1, 30)
)
CHAIN = "- &a0 x\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 200))
YAMLS = {
    "tab": ("a:\n\tb: 1", "line 2"),
    "two colons": ("ok: 1\na: b: c", "line 2"),
    "two documents": ("a: 1\n---\nb: 2", "line 2"),
    "python tag": ("a: !!python/object/apply:os.system [true]", "python/object/apply:os.system"),
    "own tag": ("a: !mine 1", "!mine"),
    "key twice": ("a: 1\nb: 2\na: 3", "'a' stands twice"),
    "key twice below": ("top: {rate: 1, rate: 2}", "'rate' stands twice"),
    "list within lists": ("[" * 200 + "]" * 200, "100 levels"),
    "open lists": ("[" * 1_000_000, "100 levels"),
    "mappings within mappings": ("\n".join("  " * i + "a:" for i in range(400)), "100 levels"),
    "deep by aliases": (CHAIN, "100 levels"),
    "contains itself": ("a: &a [1, *a]", "'a' contains itself"),
    "mapping contains itself": ("a: &a {b: {c: *a}}", "'a' contains itself"),
    "laughs": (LAUGHS, "20,000 values"),
    "merged laughs": (MERGED, "20,000 values"),
    "many": ("- 1\n" * 30_000, "20,000 values"),
    "undefined alias": ("a: *b", "'b'"),
    "integer": ("a: " + "9" * 5000, "5000 characters"),
    "hexadecimal": ("a: 0x" + "f" * 100_000, "100002 characters"),
    "sexagesimal": ("a: 1" + ":1" * 100_000, "200001 characters"),
    "tagged integer": ("a: !!int x", "tagged"),
    "tagged empty": ('a: !!int ""', "tagged"),
    "tagged bool": ("a: !!bool x", "tagged"),
    "tagged time": ("a: !!timestamp x", "tagged"),
    "impossible date": ("a: 2001-13-45", "month"),
    "key that is a list": ("? [a]\n: 1", "line 1"),
    "control character": ("a: \x00", "U+0000"),
    "lone surrogate": ("a: \ud800", "U+D800"),
    "unfinished": ("a: [1, 2", "line 1"),
    "large": ("a: " + "x" * 2**20, "1,048,576 bytes"),
}
JSONS = {
    "empty": ("", "line 1"),
    "unfinished": ('{"a":\n [1', "line 2"),
    "two values": ("{}\n{}", "line 2"),
    "key twice": ('{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
    "key twice among many": ("{" + "".join(f'"{i}":0,' for i in range(10**6)) + '"x":0,"x":0}', "'x' stands twice"),
    "deep": ("[" * 200 + "]" * 200, "100 levels"),
    "deep objects": ('{"a":' * 150 + "1" + "}" * 150, "100 levels"),
    "open lists": ("[" * 1_000_000, "100 levels"),
    "integer": ("9" * 5000, "4300"),
    "control character": ('"\x01"', "control character"),
    "mark of byte order": ("\ufeff{}", "BOM"),
}


@pytest.mark.parametrize("name", YAMLS)
def test_bad_yaml(name):
    refused(parse_yaml, *YAMLS[name])


@pytest.mark.parametrize("name", JSONS)
def test_bad_json(name):
    refused(parse_json, *JSONS[name])


def refused(parse, text, expected):
    begin = time.process_time()  # what others do meanwhile is not counted
    with pytest.raises(ValueError, match=r"^here") as caught:
        parse(text, "here")
    assert time.process_time() - begin < 10
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_laughs_are_counted_and_not_written_out():
    begin = time.process_time()  # written out, it would take years
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml(LAUGHS, "here")
    assert time.process_time() - begin < 10


def test_valid_yaml_means_what_pyyaml_says():
    text = "a: &a {x: 1, y: [1.5, 1e-3, .nan, null, 2024-01-01]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n1: yes\n'1': no\n"
    ours, theirs = parse_yaml(text, "here"), yaml.safe_load(text)
    assert math.isnan(ours["a"]["y"].pop(2))
    theirs["a"]["y"].pop(2)
    assert ours == theirs
    assert parse_yaml("", "here") is None
    assert parse_yaml("[" * 100 + "]" * 100, "here") is not None
    assert parse_yaml("\ufeffa: ü", "here") == {"a": "ü"}


def test_valid_json_means_what_json_says():
    assert parse_json('{"a": [1, 1.5, null, "\\u00fc"], "b": {}}', "here") == {"a": [1, 1.5, None, "ü"], "b": {}}
    assert math.isnan(parse_json("NaN", "here"))
    assert parse_json("[Infinity, -Infinity]", "here") == [math.inf, -math.inf]
    assert parse_json("[" * 100 + "1" + "]" * 100, "here") is not None


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_what_is_no_readable_file(tmp_path, read):
    (tmp_path / "latin").write_bytes(b'"\n\xe7"')
    os.mkfifo(tmp_path / "pipe")
    names = {"missing": "No such file", "": "not a file", "pipe": "not a file", "latin": "0xe7", "x" * 300: "too long"}
    for name, expected in names.items():
        with pytest.raises(ValueError, match=expected) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ValueError, match="null character"):
        read(tmp_path / "a\0b")


def test_large_files(tmp_path):
    file = tmp_path / "large"
    file.write_text('"' + "x" * 100 + '"')
    assert read_json(file) == read_yaml(file) == "x" * 100
    with pytest.raises(ValueError, match="larger than 64 bytes"):
        read_json(file, most_bytes=64)
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    for read in (read_yaml, read_json):
        with pytest.raises(ValueError, match="larger than"):
            read(file)
