"""What pages say of the tables that are kept under ``docs/``."""

UNBALANCED = (
    "Made before tasks of several classes and a rest were balanced (the rest was 60 to 70 % of "
    "their images); to be made again."
)


def unbalanced(found: bool) -> list[str]:
    """Lines for the top of a page, if some of its tables were made before tasks were balanced."""
    return [UNBALANCED, ""] if found else []
