"""A plugin: the loader ``jigsaw``, pictures of Parquet files as puzzles of 3×3 patches.

Noroozi and Favaro, *Unsupervised learning of visual representations by solving jigsaw puzzles*,
ECCV 2016; one of the seven tasks of TransNAS-Bench-101. The class is the order of the patches.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import ftd
from ftd.runtime.seeds import seed_of
from ftd.tasks import ParquetFiles
from ftd.tasks.frames import Frame
from ftd.tasks.loaders import Counted, Splits
from ftd.tasks.loaders.parquet_files import open_parquet

SIDE = 3
ORDERS = 12
COPIES = 4
"""How often each picture is among the images, each time in an order of its own."""


def orders(count: int = ORDERS) -> np.ndarray:
    """Permutations int [count, SIDE²] far from each other: each next one differs in most places.

    In its fewest, from those before; of several such, the first in the order of the alphabet.
    """
    every = np.array(list(itertools.permutations(range(SIDE**2))))
    chosen = [0]
    fewest = np.full(len(every), SIDE**2 + 1)
    while len(chosen) < count:
        fewest = np.minimum(fewest, (every != every[chosen[-1]]).sum(1))
        chosen.append(int(fewest.argmax()))
    return every[chosen]


def puzzle(picture: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A picture [H, W, C] cut into patches; place n gets patch ``order[n]``.

    What is left over at the right and the bottom is cut off.
    """
    high, wide = (length // SIDE for length in picture.shape[:2])
    whole = picture[: SIDE * high, : SIDE * wide]
    patches = whole.reshape(SIDE, high, SIDE, wide, -1).swapaxes(1, 2).reshape(-1, high, wide, 3)
    placed = patches[order].reshape(SIDE, SIDE, high, wide, -1).swapaxes(1, 2)
    return placed.reshape(whole.shape)


def open_puzzles(name: str, settings: ParquetFiles, root: Path) -> Splits:
    """The pictures of ``open_parquet``, each ``COPIES`` times; classes are orders.

    Raises:
        UserError: as ``open_parquet``.
    """
    train, test, _ = open_parquet(name, settings, root)
    names = {number: "".join(map(str, order)) for number, order in enumerate(orders())}
    return _puzzles(train, "train"), test and _puzzles(test, "test"), names


def _puzzles(split: Counted, part: str) -> Counted:
    return Counted(_each(split, part), COPIES * len(split), split.left_out, split.noted)


def _each(split: Counted, part: str) -> Iterator[tuple[Image.Image, Frame]]:
    every = orders()
    for number, (picture, frame) in enumerate(split):
        rng = np.random.default_rng(seed_of("jigsaw", part, number))
        pixels = np.asarray(picture.convert("RGB"))
        for label in rng.choice(len(every), COPIES, replace=False):
            shown = Image.fromarray(puzzle(pixels, every[label]))
            yield shown, Frame(np.int64(label), frame.modalities, frame.group)


ftd.register_loader("jigsaw", open_puzzles, settings=ParquetFiles)
