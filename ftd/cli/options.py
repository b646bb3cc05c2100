"""Options that verbs share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftd.errors import UserError
from ftd.names import expanded

if TYPE_CHECKING:
    from ftd.stages.experiment import Experiment

DEFAULT = Path("config/config.yaml")


def path(text: str) -> Path:
    """An option's path, by the rule of the configuration's: a shell expands no ``--results=~``."""
    try:
        return Path(expanded(text))
    except ValueError as error:
        raise UserError(str(error)) from error


PATH = {"parser": path, "metavar": "PATH"}
Configs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        help=f"Configuration (YAML); again for one over it. [default: {DEFAULT}]",
        **PATH,
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over it, e.g. probe.epochs=3.")
]
Results = Annotated[
    Path | None,
    typer.Option(help="Folder of the artifacts. [default: <results>/<experiment>]", **PATH),
]
Dataset = Annotated[str, typer.Option(help="Name of the data set.")]
Modality = Annotated[str, typer.Option(help="Name of the derived modality.")]
Task = Annotated[str, typer.Option(help="Name of the task.")]
Network = Annotated[str | None, typer.Option(help="Network of the probes. [default: the first]")]
Measure = Annotated[str | None, typer.Option(help="Measure. [default: the first]")]
Measures = Annotated[
    list[str] | None,
    typer.Option("--measure", help="Measure; again for one more. [default: the first]"),
]
Trial = Annotated[int, typer.Option(min=0, help="Common initialisation.")]
Method = Annotated[str, typer.Option(help="Search method, or a hand-designed network.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the search.")]
Repeat = Annotated[int, typer.Option(min=0, help="Which of the trainings of one genotype.")]
Truth = Annotated[str, typer.Option(help="What is held against: weights or architectures.")]
Plugins = Annotated[
    bool, typer.Option("--plugins", help="Trust the library's plugins: import their code.")
]


def experiment(
    configs: list[Path] | None, settings: list[str] | None, results: Path | None
) -> "Experiment":
    """The experiment that the options describe.

    Raises:
        UserError: an unreadable file or an invalid configuration.
    """
    from ftd.stages.experiment import Experiment  # pydantic: --help would pay for it

    return Experiment.load(*(configs or [DEFAULT]), settings=settings or (), results=results)
