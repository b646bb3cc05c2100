"""The benchmarks on small cases: every method runs, ratios are to the floor."""

from ftd import artifacts
from ftd.bench import fisher, search
from ftd.names import OPERATIONS


def test_the_fisher_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(fisher, "CASES", {"small-cnn": (1, 8, 4)})
    table = fisher.run(tmp_path / "b.parquet", batches=1, rounds=2).set_index("method")
    assert table.loc["floor", "ratio"] == 1
    assert {"ours", "autograd loop", "vmap", "BackPACK"} < set(table.index)
    assert (table["ratio"] > 0).all() and (table["seconds"] > 0).all()
    rounds = artifacts.read_table(tmp_path / "b.parquet")
    assert rounds.num_rows == 2 * len(table) and artifacts.table_facts(rounds)["threads"] == 1


def test_the_search_benchmark(tmp_path):
    small = {"space": {"operations": OPERATIONS[:5], "nodes": [1], "channels": [4]}, "samples": 40}
    settings = search.SHORT.model_validate(search.SHORT.model_dump() | small)
    table = search.run(tmp_path / "b.parquet", rounds=2, settings=settings).set_index("method")
    assert list(table.index) == [search.TRAINING, *search.METHODS]
    assert table.loc[search.TRAINING, "ratio"] == 1
    assert (table["macs"] > 0).all() and (table["ratio"] > 0).all()
    assert artifacts.read_table(tmp_path / "b.parquet").num_rows == 2 * len(table)
