"""How far measures are to be trusted: the file that is installed, and what is said of it."""

import fnmatch
import re
import tomllib
from dataclasses import replace

import pytest
from conftest import ROOT

from evidence import transfer_tables, transfer_trust
from ftd import config, store
from ftd.errors import UserError
from ftd.parts import MEASURES
from ftd.transfer import agreement, trust
from ftd.transfer.trust import Trust

SOURCES = (".py", ".pyc")
KNOWN = {
    "leep": Trust((0.41, 0.35, 0.47), (0.5, 0.4, 0.6), (1.06, 0.84, 1.4), 3),
    "random": Trust((0.0909, 0.08, 0.1), (0, 0, 0), (3.1, 2.7, 3.5), 3),
}


def test_what_is_said_of_a_measure():
    assert trust.sentence("leep", KNOWN) == (
        "how far to trust leep: on 3 task sets it named the best source of 41% [35%, 47%] of the "
        "targets, a random choice that of 9%; its choice gains 1.1 [0.8, 1.4] points less than "
        "the best, a random one 3.1; Spearman 0.50 [0.40, 0.60]"
    )
    assert trust.sentence("mine", KNOWN) == "how far to trust mine: not measured"
    assert trust.sentence("leep", {}).endswith("not measured")
    chosen = KNOWN | {"leep": replace(KNOWN["leep"], chosen=True)}
    assert "3 task sets, on which measures were chosen, it named" in trust.sentence("leep", chosen)


def test_what_was_written_is_read(tmp_path, monkeypatch):
    own = {"top1": [0.5, 0.25, 1], "spearman": [0, -1, 1], "regret": [2, 1, 3], "sets": 2}
    monkeypatch.setattr(trust, "PLACE", tmp_path / "trust.json")
    store.write_json(trust.PLACE, {"leep": own, "nce": own, trust.RANDOM: own})
    found = trust.measured(["leep", "mine"])
    assert list(found) == ["leep", trust.RANDOM]
    assert found["leep"] == Trust((0.5, 0.25, 1), (0, -1, 1), (2, 1, 3), 2)
    store.write_json(trust.PLACE, {"leep": own, trust.RANDOM: own}, {"set": trust.CHOOSING})
    assert trust.measured(["leep"])["leep"] == replace(found["leep"], chosen=True)
    trust.PLACE.write_text(trust.PLACE.read_text().replace("0.25", "0.45"))
    with pytest.raises(UserError, match=r"trust\.json"):
        trust.measured(["leep"])


def test_the_baseline_has_one_name():
    assert trust.RANDOM == agreement.RANDOM


def test_the_installed_file_is_what_the_committed_table_gives():
    assert ROOT / transfer_trust.OUT == trust.PLACE
    found, facts = store.read_document(trust.PLACE)
    path = ROOT / transfer_tables.OUT
    if not path.exists():
        assert found == {}  # no number that was not measured
        pytest.skip("no table of agreement is kept yet")
    rows = transfer_trust.pooled(store.read_table(path).to_pandas())
    assert found == transfer_trust.by_measure(rows) and trust.RANDOM in found
    assert facts["agreement"] == store.checksum(path)


def parts_of(kind):
    """What a combination is made of, or the measure itself."""
    return [MEASURES.get(name) for name in getattr(kind, "of", ())] or [kind]


def test_the_page_that_says_which_measure_to_use_says_what_measures_declare():
    page = (ROOT / "docs" / "measures.md").read_text()
    table = page.split("| you have |")[1]
    rows = [line.split(" | ")[1] for line in table.splitlines()[2:9]]
    named = [[MEASURES.get(name) for name in re.findall("`(.*?)`", row)] for row in rows]
    chosen, unprobed, embedded, probed, anywhere, any_kind, paper = [
        [part for kind in row for part in parts_of(kind)] for row in named
    ]
    own = {"weights", "fisher", "features", "facts", "start"}
    assert chosen == [MEASURES.get(config.load(ROOT / "config" / "own.yaml").deciding)]
    assert all(kind.target == ("data",) and kind.group == "seen" for kind in [*chosen, *unprobed])
    assert all({*kind.source, *kind.target} == {"embedding"} for kind in embedded)
    assert all(own & {*kind.target} and kind.common_start for kind in probed)
    assert not any(own & {*kind.target} or kind.common_start for kind in [*chosen, *unprobed])
    assert all(kind.kinds is None for kind in any_kind)
    assert all(kind.kinds == ("classes",) for kind in [*unprobed, *embedded])
    assert {*chosen} < {*unprobed} and not anywhere  # named in the rows above
    assert paper == [MEASURES.get("fisher")]


def test_files_that_are_no_modules_are_installed():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = [
        f"{package.replace('.', '/')}/{name}"
        for package, names in tools["package-data"].items()
        for name in names
    ]
    files = [path for path in (ROOT / "ftd").rglob("*") if path.is_file()]
    others = [path.relative_to(ROOT).as_posix() for path in files if path.suffix not in SOURCES]
    assert others and all(any(fnmatch.fnmatch(name, p) for p in patterns) for name in others)
