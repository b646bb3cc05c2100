"""Artifacts: what is written is read again, and damage of any kind is found before any use."""

import json
import os
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ftd import artifacts
from ftd.errors import UserError

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.bfloat16)}
FACTS = {"task": "zero", "sizes": [1, 2.5], "text": 'a "quoted" one'}


def table() -> pa.Table:
    part = pa.array(["x", None, "x"]).dictionary_encode()
    return pa.table({"value": [1.5, None, 2.0], "part": part})


def write(kind: str, path) -> None:
    if kind == "tensors":
        artifacts.write_tensors(path, TENSORS, FACTS)
    elif kind == "table":
        artifacts.write_table(path, table(), FACTS)
    else:
        artifacts.write_json(path, {"zero": {"nearest": [1.5, "ü"]}}, FACTS)


def read(kind: str, path):
    """Everything that a reader gets, as plain data."""
    if kind == "tensors":
        tensors, facts = artifacts.read_tensors(path)
        return {name: (v.dtype, v.tolist()) for name, v in tensors.items()}, facts
    if kind == "table":
        found = artifacts.read_table(path)
        return found.to_pydict(), found.schema.types, artifacts.table_facts(found)
    return artifacts.read_json(path), artifacts.read_json_facts(path)


KINDS = ("tensors", "table", "json")


@pytest.mark.parametrize("kind", KINDS)
def test_content_and_facts_come_back_and_equal_content_gives_equal_bytes(kind, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    write(kind, one)
    write(kind, other)
    assert one.read_bytes() == other.read_bytes()
    assert read(kind, one)[-1] == FACTS
    if kind == "tensors":
        tensors = artifacts.read_tensors(one)[0]
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
        assert artifacts.read_tensor_facts(one) == FACTS
    if kind == "table":
        assert artifacts.read_table(one).equals(table())
        assert artifacts.read_table(one, columns=["part"]).column_names == ["part"]
        assert pq.read_table(one).to_pydict() == table().to_pydict()  # by any other program too


@pytest.mark.parametrize("kind", KINDS)
def test_any_flipped_bit_is_found_or_changes_nothing(kind, tmp_path):
    path = tmp_path / "file"
    write(kind, path)
    whole, wanted = path.read_bytes(), read(kind, path)
    unnoticed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.Random(position).randrange(8)
        path.write_bytes(damaged)
        try:
            assert read(kind, path) == wanted
            unnoticed += 1
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "delete it and run again" in str(error)
    # of JSON, white space and spellings of a number may change
    assert unnoticed == 0 if kind != "json" else unnoticed < len(whole) / 10


@pytest.mark.parametrize("kind", KINDS)
def test_any_truncation_is_found(kind, tmp_path):
    path = tmp_path / "file"
    write(kind, path)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"file: .*delete it and run again"):
            read(kind, path)


def test_files_without_a_checksum_are_refused(tmp_path):
    path = tmp_path / "old"
    pq.write_table(table(), path)
    with pytest.raises(UserError, match=r"old: carries no checksum: .* made by an older version"):
        artifacts.read_table(path)
    assert artifacts.read_foreign_table(path).num_rows == 3  # what a user brings
    path.write_text(json.dumps({"zero": 1}))
    with pytest.raises(UserError, match="carries no checksum"):
        artifacts.read_json(path)
    from safetensors.torch import save_file

    save_file(TENSORS, path, metadata={"ftd": "{}"})
    for reader in (artifacts.read_tensors, artifacts.read_tensor_facts):
        with pytest.raises(UserError, match="carries no checksum"):
            reader(path)
    assert artifacts.read_foreign_tensors(path).keys() == TENSORS.keys()


def test_a_missing_column_and_another_stage_s_file_are_named(tmp_path):
    write("table", tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: no column wanted; give the right table"):
        artifacts.read_table(tmp_path / "t.parquet", columns=["value", "wanted"])
    artifacts.write_tensors(tmp_path / "t.safetensors", TENSORS, {"stage": "probe"})
    with pytest.raises(UserError, match=r"expected a file of the stage fisher, .* the stage probe"):
        artifacts.read_tensors(tmp_path / "t.safetensors", stage="fisher")


def test_facts_are_read_and_checked_without_torch(tmp_path):
    write("tensors", tmp_path / "t.safetensors")
    code = (
        "import sys; from ftd import artifacts;"
        f"print(artifacts.read_tensor_facts({str(tmp_path / 't.safetensors')!r})['task'],"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "zero False\n"


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    path = tmp_path / "t.safetensors"
    code = (
        "import os, signal, sys; from pathlib import Path; from ftd import artifacts\n"
        "with artifacts._replacing(Path(sys.argv[1])) as file:\n"
        "    file.write_text('half'); print(flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    writer.stdout.readline()
    write("tensors", path)
    assert len(os.listdir(tmp_path)) == 2  # the other writer's is locked
    writer.kill()
    writer.wait()
    write("tensors", path)
    assert os.listdir(tmp_path) == ["t.safetensors"]


# Hostile ----------------------------------------------------------------------------------------


class Pickled:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_a_pickle_by_another_name_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.safetensors"
    torch.save({"a": Pickled()}, path)
    for reader in (artifacts.read_tensors, artifacts.read_tensor_facts):
        with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read"):
            reader(path)
    with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read"):
        artifacts.read_foreign_tensors(path)
    assert not (tmp_path / "owned").exists()


def test_a_table_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.parquet"
    zeros = pa.array(memoryview(bytes(8 << 20)).cast("q"))
    with pq.ParquetWriter(path, pa.schema({"a": pa.int64()}), compression="zstd") as writer:
        for _ in range(520):
            writer.write_table(pa.table({"a": zeros}))
    assert path.stat().st_size < 3 << 20
    with pytest.raises(UserError, match=r"bomb\.parquet: unpacks to \d+ GiB, more than 4 GiB"):
        artifacts.read_foreign_table(path)


def test_deeply_nested_json_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.json: cannot be read"):
        artifacts.read_json(path)


def test_a_safetensors_header_that_claims_gigabytes_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match=r"t\.safetensors: cannot be read"):
        artifacts.read_tensors(path)
