"""The benchmark on one small case: every method runs, ratios are to the floor."""

from ftd import artifacts, bench


def test_the_fisher_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FISHER_CASES", {"small-cnn": (1, 8, 4)})
    table = bench.fisher(tmp_path / "b.parquet", batches=1, rounds=2).set_index("method")
    assert table.loc["floor", "ratio"] == 1
    assert {"ours", "autograd loop", "vmap", "BackPACK"} < set(table.index)
    assert (table["ratio"] > 0).all() and (table["seconds"] > 0).all()
    rounds = artifacts.read_table(tmp_path / "b.parquet")
    assert rounds.num_rows == 2 * len(table) and artifacts.table_facts(rounds)["threads"] == 1
