"""``docs/catalogue.md``: every measure that is always there, as it is registered."""

import math
from pathlib import Path
from typing import Any

from ftd.parts import MEASURES

PAGE = Path("docs/catalogue.md")
HEAD = """\
# All measures

Written by `python -m evidence reference` from the measures that are registered; `ftd measures`
lists them too, with those of plugins. *Takes* says what is read of the source and of the target:
`weights` of the probe, `start` (the network before its training), `fisher` (its own Fisher
information), `embedding`, `data` (images of the part `fisher`), `features` and `facts`. A measure
that takes neither `weights` nor `fisher` of the target needs no probe of it. Combinations follow
from the numbers of others. Which to take: [measures.md](measures.md).

| measure | takes of source; target | nearer | range | targets | a pair costs | source |
|---|---|---|---|---|---|---|
"""


def lines() -> list[str]:
    """The page, line by line."""
    return [*HEAD.splitlines(), *(_row(name, MEASURES.get(name)) for name in MEASURES.names())]


def _row(name: str, kind: Any) -> str:
    of = getattr(kind, "of", None)
    if of:
        takes, kinds = f"combines {_listed(of)}", "theirs"
    else:
        takes = f"{_listed(kind.source)}; {_listed(kind.target)}"
        kinds = ", ".join(kind.kinds or ("all",))
    cells = [
        f"`{name}`",
        takes,
        kind.nearer,
        f"[{_number(kind.lowest)}, {_number(kind.highest)}]",
        kinds,
        getattr(kind, "cost", "") or "–",
        kind.reference or "–",
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def _number(value: float) -> str:
    return f"{'−' if value < 0 else ''}∞" if math.isinf(value) else f"{value:g}"
