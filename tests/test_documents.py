"""The site, the pages that are generated, and the manual beside the schema."""

import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

import ftd
from evidence import arena_page, commands, key_page
from ftd.drawing import heatmaps

MANUAL = (ROOT / "config" / "README.md").read_text()
BESIDE = ("README.md", "config/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""What links to pages of ``docs/`` and lies elsewhere."""


@pytest.mark.parametrize("page", ["key_page", "artifact_page", "measure_page"])
def test_generated_pages_are_current(page):
    """Else: ``python -m evidence reference``. In a process without other tests' parts."""
    code = f"from evidence import {page} as page; print(page.PAGE, *page.lines(), sep='\\n')"
    command = [sys.executable, "-X", "utf8", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    place, _, content = done.stdout.partition("\n")
    assert (ROOT / place).read_text() == content


def test_evidence_pages_are_those_of_the_tables_that_are_kept(tmp_path, monkeypatch):
    """Else: ``python -m evidence pages``. Without the figures, which take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(heatmaps, "matrix", lambda *_, **__: None)
    monkeypatch.setattr(arena_page, "_draw", lambda *_: None)
    for table in (ROOT / "docs").rglob("*.parquet"):
        copy = tmp_path / table.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(table)
    commands.pages()
    pages = sorted(page.name for page in (tmp_path / "docs").glob("*.md"))
    assert pages == ["arena.md", "comparison.md", "consistency.md", "distances.md", "tabular.md"]
    for page in pages:
        assert (tmp_path / "docs" / page).read_text() == (ROOT / "docs" / page).read_text(), page


def keys_of_the_manual():
    """Full key → default as it is written; ``None`` where a row's keys share what stands there."""
    found = {}
    for line in MANUAL.splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if not line.startswith("| `") or len(cells) != 3:
            continue
        keys = re.findall(r"`([^`]+)`", cells[0])
        values = cells[2].rstrip(" |").split(", ") if len(keys) > 1 else [cells[2].rstrip(" |")]
        first = keys[0]
        for position, key in enumerate(keys):
            full = first.rpartition(".")[0] + key if key.startswith(".") and position else key
            found[full] = values[position] if len(values) == len(keys) else None
    return found


def keys_of_the_schema():
    """Full key → its default; keys of data sets and tasks by their own name, as in the manual."""
    keys = (row for *_, rows in key_page.sections() for row in rows)
    return {re.sub(r"^\w+\.NAME\.", "", key): default.strip("`") for key, _, default in keys}


def above(key):
    """A key, and the sections that it is in."""
    return [key, *(key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1))]


def test_the_manual_has_every_key_and_no_other():
    manual, schema = keys_of_the_manual(), keys_of_the_schema()
    forced = "distance.fisher-matching.align"  # one value alone, and said with the others
    assert [key for key in schema if not {*above(key)} & {*manual}] == [forced]
    known = {name for key in schema for name in above(key)}
    own = {key for key in manual if key.startswith((".", "modalities."))}  # of one modality
    assert {*manual} - own <= known


def test_the_manual_s_defaults_are_the_schema_s():
    schema, compared = keys_of_the_schema(), 0
    for key, written in keys_of_the_manual().items():
        if key not in schema or written is None or "." not in key:
            continue
        default = yaml.safe_load(schema[key])
        if written in ("all", "none", "the first"):
            assert default is None, key
        elif written != "all ten":
            assert yaml.safe_load(written.strip("`")) == default, key
            compared += 1
    assert compared > 70


def test_what_lies_beside_the_documents_links_to_what_is_there():
    for name in BESIDE:
        folder = (ROOT / name).parent
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", (ROOT / name).read_text()):
            assert (folder / target).exists(), f"{name}: {target}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, strictly built, where the extra ``docs`` is installed."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_asks_no_host_for_anything(site):
    """Links may lead elsewhere; what a page loads may not."""
    pages = sorted(site.rglob("*.html"))
    loads = r"<(script|img|iframe|source|link)\b[^>]*\b(src|href)=\"?(https?:)?//"
    assert len(pages) > 25
    assert not [page.name for page in pages if re.search(loads, page.read_text())]
    assert "fonts.g" not in "".join(page.read_text() for page in site.rglob("*.css"))


def test_formulas_and_files_beside_the_documents_are_on_the_site(site):
    assert (site / "concepts.html").read_text().count("<math") >= 3
    text = (site / "configuration.html").read_text()
    assert 'href="extending.html"' in text and "../docs/" not in text


def test_versions_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = re.findall(r"^## (\S+) \((.*?)\)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (cited["version"], str(cited["date-released"])) == changes[0]
    assert cited["version"] == ftd.__version__
