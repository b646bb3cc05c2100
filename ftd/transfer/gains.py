"""What tables of gains can tell: the differences between sources against the noise of trials."""

import pandas as pd

ENOUGH = 2.0
"""Standard errors that the spread of the sources should have at least."""


def signal(table: pd.DataFrame) -> pd.DataFrame:
    """For each target: how far sources differ in gain, against how well each one is known.

    ``spread`` is the standard deviation over sources of their mean gains over trials; ``error``
    the standard error of these means, from the trials' deviations after each trial's own mean is
    taken away (a trial whose gains are all higher favours no source); ``ratio`` is spread by error,
    infinite without noise; ``enough`` says whether it reaches ``ENOUGH``.

    Args:
        table: the rows of transfer tables, of several trials; those of the start, which have no
            source, do not count, nor do sources that a trial lacks.

    Returns:
        A row for each network, target, shots and scope. With fewer than 2 trials or sources the
        numbers are NaN, and not enough.
    """
    keys = ["network", "target", "shots", "scope"]
    rows = []
    for names, group in table[table["source"].notna()].groupby(keys):
        gains = group.pivot(index="trial", columns="source", values="gain").dropna(axis=1)
        trials, sources = gains.shape
        spread = gains.mean().std()
        left = gains.sub(gains.mean(axis=1), axis=0)
        left -= left.mean()
        free = (trials - 1) * (sources - 1)
        noise = float((left**2).to_numpy().sum()) / free if free > 0 else float("nan")
        error = (noise / trials) ** 0.5 if trials else float("nan")
        noiseless = float("inf") if spread > 0 else 0.0
        ratio = spread / error if error else noiseless
        found = {"spread": spread, "error": error, "ratio": ratio, "enough": ratio >= ENOUGH}
        rows.append(dict(zip(keys, names, strict=True)) | found)
    return pd.DataFrame(rows)
