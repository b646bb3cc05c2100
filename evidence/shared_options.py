"""Options that several verbs take."""

from pathlib import Path
from typing import Annotated

import typer

Cores = Annotated[int, typer.Option(min=1, help="Cores for the workflow.")]
MoreConfig = Annotated[
    list[Path] | None,
    typer.Option("--config-file", help="Further configuration, e.g. another loader; again: more."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--setting", help="key=value, e.g. data_root=/data; again: more."),
]
