"""Hooks of MkDocs (``mkdocs.yml``): files beside ``docs/`` are pages too, formulas are MathML."""

import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

BESIDE = {
    "config/README.md": "configuration.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Files of the repository, and the pages that they are."""
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Blocks of ``math``, which are LaTeX, become MathML: browsers draw it by themselves."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "math", "format": _formula}]
    return config


def _formula(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="math">{convert(source, display="block")}</div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Files beside ``docs/`` as pages."""
    root = Path(config.config_file_path).parent
    for source, page in BESIDE.items():
        text = (root / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=linked(text, source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links of pages below ``docs/`` to such files."""
    return linked(markdown, f"docs/{page.file.src_uri}")


def linked(text: str, source: str) -> str:
    """The text of a file of the repository with its links as the site needs them.

    Links to files that are no page stay as they are, and MkDocs names them.

    Args:
        source: its path from the repository's root.
    """

    def moved(found: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        page = BESIDE.get(target, target.removeprefix("docs/"))
        kept = target in BESIDE or target.startswith("docs/")
        return f"]({page if kept else found[1]}{found[2] or ''})"

    return _LINK.sub(moved, text)
