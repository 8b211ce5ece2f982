"""The front page: its size, its map, and that a newcomer can follow it."""

import re

from pages import FRONT, GUIDES, ROOT, blocks, commands, section, text


def test_it_is_short():
    lines = text(FRONT).splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 120]


def test_it_leads_to_every_guide():
    guides = [f"docs/{page.name}" for page in GUIDES]
    assert len(guides) >= 10
    assert not [guide for guide in guides if f"]({guide})" not in section(FRONT, "Guides")]


def test_it_says_how_to_install_and_activate():
    told = list(commands(FRONT))
    assert told[:3] == [["make", "setup"], [".", ".venv/bin/activate"], ["make", "demo"]]


def test_the_map_is_of_what_exists():
    (tree,) = blocks(section(FRONT, "Map"), "")
    above, found = ROOT, set()
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())
        paths = [name for name in names if re.fullmatch(r"[\w.]+(\.py|/)", name)]
        assert paths, line
        if not line.startswith(" "):
            above = ROOT
        assert all((above / name).exists() for name in paths), line
        found |= {(above / name).resolve() for name in paths}
        if not line.startswith(" "):
            above = ROOT / paths[0]
    folders = {path.parent for path in ROOT.glob("*/*.py") if path.parent.name != "build"}
    rooms = {path.parent for path in ROOT.glob("gau_alpha/*/__init__.py")}
    assert not {str(folder) for folder in folders | rooms if folder not in found}, "missing from the map"
