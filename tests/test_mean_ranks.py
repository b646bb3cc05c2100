"""Mean ranks of several measures, on the sets that measures are chosen on."""

import pandas as pd
import pytest
from test_kept_transfer import PAIRS, WORTH, freeze, numbers, put

from evidence import mean_ranks
from ftd import store
from ftd.errors import UserError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_combination_is_held_against_the_sets_for_choosing():
    """A right measure, a wrong one, and both: which of their ties is taken is open."""
    own = numbers({"leep": 1, "nce": -1})
    put("one", pd.concat([own, numbers({"leep": -1, "nce": 1}, shots=5)]))
    put("held-out", numbers({"leep": -1, "nce": -1}))
    freeze()
    found = mean_ranks.run(["leep", "nce"], most=2).set_index(["arm", "measures"])
    for arm, right, wrong in (("all", "leep", "nce"), ("few", "nce", "leep")):
        for name, spearman in ((right, 1), (wrong, -1), ("leep + nce", 0)):
            assert found.loc[arm, name]["spearman"] == pytest.approx(spearman), (arm, name)
        assert found.loc[arm, right]["regret"] == 0
    targets = {target: [WORTH[pair] for pair in PAIRS if pair[1] == target] for _, target in PAIRS}
    lost = [100 * (max(each) - sum(each) / len(each)) for each in targets.values()]
    assert found.loc["all", "leep + nce"]["regret"] == pytest.approx(sum(lost) / len(lost))
    kept = store.read_table(mean_ranks.OUT)
    assert {*kept["set"].to_pylist()} == {"one"} and len(kept) == 2 * 3


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match=r"frozen\.yaml: no such file"):
        mean_ranks.run()
    put("one", numbers({"leep": 1}))
    freeze()
    with pytest.raises(UserError, match="set one: no numbers of 'nce'"):
        mean_ranks.run(["leep", "nce"])
