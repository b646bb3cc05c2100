"""The experiment's configuration: one typed model per section, all errors reported at once.

The models are the schema: ``config/README.md`` documents it, the workflow and the command line
validate with it. Imports nothing heavy, since every cluster job parses the workflow again.
"""

from ftd.config.base import Section
from ftd.config.datasets import Dataset, Image, Parts
from ftd.config.search_keys import (
    DARTS_OPERATIONS,
    HAND_DESIGNED,
    LIBRARY,
    Search,
    SearchSettings,
    SpaceSettings,
    method_of,
)
from ftd.config.sections import Distance, Fisher, Probe, Recipe, Select, Train
from ftd.config.sources import load, merged, of_workflow, parse, read, recorded
from ftd.config.task_keys import Task
from ftd.config.whole import Config

__all__ = [
    "DARTS_OPERATIONS",
    "HAND_DESIGNED",
    "LIBRARY",
    "Config",
    "Dataset",
    "Distance",
    "Fisher",
    "Image",
    "Parts",
    "Probe",
    "Recipe",
    "Search",
    "SearchSettings",
    "Section",
    "Select",
    "SpaceSettings",
    "Task",
    "Train",
    "load",
    "merged",
    "method_of",
    "of_workflow",
    "parse",
    "read",
    "recorded",
]
