"""Independent seeds from names: one base seed, any number of uncorrelated streams."""

import hashlib
import json


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part, e.g. ``seed_of("probe", base, trial)``."""
    text = json.dumps(parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
