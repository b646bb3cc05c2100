"""Σ over units of squared gradients that are products of matrices, within a CPU's caches."""

import torch

_WIDE = 1024  # columns of a tile at most
_PAIRED = 3  # positions at most


def add_outer_squares(total: torch.Tensor, g: torch.Tensor, x: torch.Tensor, budget: int) -> None:
    """Add Σ_u (g_uᵀ x_u)² of g [U, P, O] and x [U, P, I] to ``total`` [O, I].

    With one position a unit it is (g²)ᵀ(x²), with few a product over pairs of positions, if that
    fits the budget. Else the products are built by tiles, of as many units as a quarter of the
    budget holds, so that what squares and adds them finds them in cache.
    """
    positions, rows, columns = *g.shape[1:], x.shape[2]
    if positions == 1:
        total.addmm_(g[:, 0].square().T, x[:, 0].square())
    elif positions <= _PAIRED and positions * (rows + columns) < rows * columns <= budget // 8:
        total += _of_pairs(g.double(), x.double())
    elif columns % 8 and not rows % 8:  # rows of whole vectors are up to five times as fast
        _add_by_tiles(total.T, x, g, budget // 4)
    else:
        _add_by_tiles(total, g, x, budget // 4)


def _of_pairs(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Σ_u Σ_pq (g_p g_q)ᵀ(x_p x_q), in double precision: where a sum cancels, its pairs do not."""
    rows, columns = torch.triu_indices(g.shape[1], g.shape[1], device=g.device)
    often = torch.where(rows == columns, 1.0, 2.0).to(g.dtype)[:, None]
    pairs = (g[:, rows] * g[:, columns] * often).flatten(0, 1)
    return pairs.T @ (x[:, rows] * x[:, columns]).flatten(0, 1)


def _add_by_tiles(total: torch.Tensor, g: torch.Tensor, x: torch.Tensor, budget: int) -> None:
    units, _, rows = g.shape
    columns = x.shape[2]
    held = max(1, budget // g.element_size())
    whole = units * rows * columns <= held  # as mostly on a GPU, where calls cost most
    width = columns if whole else min(columns, _WIDE, held)
    height = min(rows, max(1, held // width))
    step = max(1, min(units, held // (height * width)))
    buffer = g.new_empty(step * height * width)
    gt = g.transpose(1, 2)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            part = total[top : top + height, left : left + width]
            _add_tile(part, gt[:, top : top + height], x[:, :, left : left + width], buffer, step)


def _add_tile(
    part: torch.Tensor, gt: torch.Tensor, x: torch.Tensor, buffer: torch.Tensor, step: int
) -> None:
    product = buffer[: step * part.numel()].view(step, *part.shape)
    if step == 1:
        for one, other in zip(gt, x, strict=True):
            torch.mm(one, other, out=product[0])
            part.addcmul_(product[0], product[0])
        return
    for first in range(0, len(x), step):
        built = product[: len(x) - first]
        torch.bmm(gt[first : first + step], x[first : first + step], out=built)
        part += built.square_().sum(0)
