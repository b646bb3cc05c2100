"""Artifacts: what is written is read again, and damage of any kind is found before any use."""

import builtins
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import ftd
from ftd import store
from ftd.errors import UserError
from ftd.store import cache, provenance

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.bfloat16)}
FACTS = {"task": "zero", "sizes": [1, 2.5], "text": 'a "quoted" one'}


def table() -> pa.Table:
    part = pa.array(["x", None, "x"]).dictionary_encode()
    return pa.table({"value": [1.5, None, 2.0], "part": part})


def test_some_rows_of_a_tensor_are_read(tmp_path):
    values = torch.arange(24, dtype=torch.uint8).reshape(4, 1, 2, 3)
    path = tmp_path / "x.safetensors"
    store.write_tensors(path, {"images": values}, FACTS)
    file = store.TensorFile(path)
    assert file.rows("images", [3, 0]).tolist() == values[[3, 0]].tolist()
    with pytest.raises(UserError, match=r"x\.safetensors"):
        file.rows("others", [0])
    store.write_tensors(path, {"images": values + 1}, FACTS)
    with pytest.raises(UserError, match="changed since this job began"):
        file.rows("images", [0])


def write(kind: str, path) -> None:
    if kind == "tensors":
        store.write_tensors(path, TENSORS, FACTS)
    elif kind == "table":
        store.write_table(path, table(), FACTS)
    else:
        store.write_json(path, {"zero": {"nearest": [1.5, "ü"]}}, FACTS)


def read(kind: str, path):
    """Everything that a reader gets, as plain data."""
    if kind == "tensors":
        tensors, facts = store.read_tensors(path)
        return {name: (v.dtype, v.tolist()) for name, v in tensors.items()}, facts
    if kind == "table":
        found = store.read_table(path)
        return found.to_pydict(), found.schema.types, store.table_facts(found)
    return store.read_json(path), store.read_json_facts(path)


def checksum(kind: str, path) -> str:
    """What the checksum is defined to be, taken from the bytes of the file."""
    content = path.read_bytes()
    if kind == "json":
        value = json.loads(content)
        facts = value.pop("_ftd")
        assert facts.pop("sha256")
        return hashlib.sha256(store.canonical([value, facts]).encode()).hexdigest()
    blank = hashlib.sha256(b"ftd-sha256").hexdigest().encode()
    content, replaced = re.subn(rb"(ftd-sha256\W+?)[0-9a-f]{64}", rb"\g<1>" + blank, content)
    assert replaced == 1
    return hashlib.sha256(content).hexdigest()


KINDS = ("tensors", "table", "json")
SUFFIXES = {"tensors": ".safetensors", "table": ".parquet", "json": ".json"}


@pytest.mark.parametrize("kind", KINDS)
def test_content_and_facts_come_back_and_equal_content_gives_equal_bytes(kind, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    write(kind, one)
    write(kind, other)
    assert one.read_bytes() == other.read_bytes()
    assert read(kind, one)[-1] == FACTS | {"sha256": checksum(kind, one)}
    if kind == "tensors":
        tensors = store.read_tensors(one)[0]
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
        assert store.read_tensor_facts(one) == store.read_tensors(one)[1]
    if kind == "table":
        assert store.read_table(one).equals(table())
        assert store.read_table(one, columns=["part"]).column_names == ["part"]
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
        store.read_table(path)
    assert store.read_foreign_table(path).num_rows == 3  # what a user brings
    path.write_text(json.dumps({"zero": 1}))
    with pytest.raises(UserError, match="carries no checksum"):
        store.read_json(path)
    from safetensors.torch import save_file

    save_file(TENSORS, path, metadata={"ftd": "{}"})
    for reader in (store.read_tensors, store.read_tensor_facts):
        with pytest.raises(UserError, match="carries no checksum"):
            reader(path)
    assert store.read_foreign_tensors(path).keys() == TENSORS.keys()


def test_tensors_that_share_memory_are_kept_apart(tmp_path):
    """Tied weights, views of one another, expanded ones: a state may hold them all."""
    whole = torch.arange(8.0)
    shared = {
        **{"a": whole, "b": whole, "part": whole[2:4], "wide": whole[:1].expand(3)},
        **{"turned": whole.view(2, 4).T, "none": torch.empty(0), "nothing": torch.empty(0)},
    }
    store.write_tensors(tmp_path / "t.safetensors", shared, {})
    found, _ = store.read_tensors(tmp_path / "t.safetensors")
    assert found.keys() == shared.keys()
    assert all(torch.equal(found[name], value) for name, value in shared.items())


OTHER_FORMATS = {
    "torch.save": (None, "it looks like a file of torch.save: write it by safetensors.torch.save"),
    "pickle": (b"\x80\x02}q\x00.", "it looks like a file of torch.save"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
    "anything": (b"<html>", "check the file that was given"),
}


@pytest.mark.parametrize(("content", "message"), OTHER_FORMATS.values(), ids=OTHER_FORMATS)
def test_what_is_taken_for_safetensors_is_named(tmp_path, content, message):
    path = tmp_path / "body.pth"
    if content is None:
        torch.save(TENSORS, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"body\.pth: cannot be read, .*{message}"):
        store.read_foreign_tensors(path)


def test_a_missing_column_and_another_stage_s_file_are_named(tmp_path):
    write("table", tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: no column wanted; give the right table"):
        store.read_table(tmp_path / "t.parquet", columns=["value", "wanted"])
    store.write_tensors(tmp_path / "t.safetensors", TENSORS, {"stage": "probe"})
    with pytest.raises(UserError, match=r"expected a file of the stage fisher, .* the stage probe"):
        store.read_tensors(tmp_path / "t.safetensors", stage="fisher")
    store.write_table(tmp_path / "t.parquet", table(), {"stage": "probe"})
    assert store.read_table(tmp_path / "t.parquet", stage="probe").num_rows == 3
    with pytest.raises(UserError, match=r"expected a file of the stage fisher, .* the stage probe"):
        store.read_table(tmp_path / "t.parquet", columns=["wanted"], stage="fisher")
    store.write_table(tmp_path / "t.parquet", table())
    with pytest.raises(UserError, match=r"expected a file of the stage fisher, this is another"):
        store.read_table(tmp_path / "t.parquet", stage="fisher")


def test_the_store_imports_nothing_heavy():
    code = (
        "import sys; from ftd import store; from ftd.store import cache, pairs, provenance;"
        "print({'torch', 'pyarrow', 'pandas', 'numpy'} & set(sys.modules),"
        "set(store.__all__) - set(dir(store)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() set()\n"


# The checksum and the facts ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_facts_may_be_handed_on(kind, tmp_path):
    """The checksum that a reader adds to them is not stored, and stands in the file once."""
    path, copy = tmp_path / f"one{SUFFIXES[kind]}", tmp_path / f"copy{SUFFIXES[kind]}"
    write(kind, path)
    found = store.checksum(path)
    assert found == checksum(kind, path)
    assert path.read_bytes().count(found.encode()) == 1
    if kind == "tensors":
        store.write_tensors(copy, *store.read_tensors(path))
    elif kind == "table":
        read_again = store.read_table(path)
        store.write_table(copy, read_again, store.table_facts(read_again))
    else:
        value, facts = store.read_document(path)
        assert value == store.read_json(path) and facts == store.read_json_facts(path)
        store.write_json(copy, value, facts)
    assert copy.read_bytes() == path.read_bytes()
    if kind == "table":
        store.write_table(copy, read_again.slice(1), store.table_facts(read_again))
        assert store.table_facts(store.read_table(copy))["sha256"] == store.checksum(copy) != found


def test_checksums_are_of_artifacts_and_are_compared(tmp_path):
    for kind in KINDS:
        path = tmp_path / f"a{SUFFIXES[kind]}"
        write(kind, path)
        path.write_bytes(path.read_bytes().replace(b"zero", b"zerp"))
        with pytest.raises(UserError, match=r"a\..*: damaged, it is not what its checksum says"):
            store.checksum(path)
        path.unlink()
        with pytest.raises(UserError, match=r"a\..*: no such file"):
            store.checksum(path)
    with pytest.raises(UserError, match=r"a\.pt: expected a \.parquet, \.safetensors or \.json"):
        store.checksum(tmp_path / "a.pt")


def test_a_table_that_the_user_brings_has_no_checksum_of_its_own(tmp_path):
    write("table", tmp_path / "t.parquet")
    assert store.table_facts(store.read_foreign_table(tmp_path / "t.parquet")) == {}


@pytest.fixture
def work(monkeypatch):
    """Notes which files are opened, and how many bytes are hashed."""
    done = {"opened": [], "hashed": 0}
    opened, sha256 = io.open, hashlib.sha256

    class Noting:
        def __init__(self, content=b""):
            self.found = sha256()
            self.update(content)

        def update(self, content):
            done["hashed"] += len(content)
            self.found.update(content)

        def hexdigest(self):
            return self.found.hexdigest()

    def note(path, *arguments, **keys):
        if not isinstance(path, int):
            done["opened"].append(Path(path).name)
        return opened(path, *arguments, **keys)

    monkeypatch.setattr(hashlib, "sha256", Noting)
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", note)
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_content_facts_and_checksum_come_from_one_pass(kind, tmp_path, work):
    path = tmp_path / f"one{SUFFIXES[kind]}"
    write(kind, path)
    readers = {
        "tensors": (store.read_tensors, store.read_tensor_facts),
        "table": (lambda path: store.table_facts(store.read_table(path)),),
        "json": (store.read_document, store.read_json, store.read_json_facts),
    }
    for reader in (*readers[kind], store.checksum):
        work.update(opened=[], hashed=0)
        reader(path)
        assert work["opened"] == [path.name]
        if kind == "json":  # its text without white space
            assert 0 < work["hashed"] < path.stat().st_size
        else:
            assert work["hashed"] == path.stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_takes_and_gives_artifacts_of_every_kind(kind, tmp_path, capsys):
    made, taken = (tmp_path / f"{name}{SUFFIXES[kind]}" for name in ("made", "taken"))
    write(kind, made)
    assert not cache.take(tmp_path / "cache", {"of": kind}, [taken])
    cache.give(tmp_path / "cache", {"of": kind}, [made])
    assert not cache.take(tmp_path / "cache", {"of": "another"}, [taken]) and not taken.exists()
    assert cache.take(tmp_path / "cache", {"of": kind}, [taken])
    assert taken.read_bytes() == made.read_bytes()
    (entry,) = (tmp_path / "cache").rglob(f"*{SUFFIXES[kind]}")
    entry.write_bytes(entry.read_bytes()[:-9])
    assert not cache.take(tmp_path / "cache", {"of": kind}, [taken])
    assert "It is not used" in capsys.readouterr().err and not entry.exists()


# Provenance -------------------------------------------------------------------------------------


def test_what_decided_a_result_is_recorded(monkeypatch):
    found = provenance.record("probe", 3, {"epochs": 2})
    assert found.keys() == {"stage", "settings", "version", "packages"}
    assert (found["stage"], found["version"], found["settings"]) == ("probe", 3, {"epochs": 2})
    assert found["packages"] == provenance.packages()
    assert found["packages"]["ftd"] == ftd.__version__ and found["packages"]["torch"]
    parts = {"network mine": "0" * 64}
    assert provenance.record("probe", 3, {}, parts)["parts"] == parts
    assert "parts" not in provenance.record("probe", 3, {}, {})


def test_packages_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "_PACKAGES", ("numpy", "no-such-distribution"))
    assert list(provenance.packages()) == ["python", "ftd", "numpy"]


def test_settings_of_a_section_are_recorded_as_plain_data():
    from pydantic import BaseModel

    class Settings(BaseModel):
        path: Path = Path("a/b")

    assert provenance.record("probe", 1, Settings())["settings"] == {"path": "a/b"}


# Reading without the libraries, and after kills --------------------------------------------------


def test_facts_are_read_and_checked_without_torch(tmp_path):
    write("tensors", tmp_path / "t.safetensors")
    code = (
        "import sys; from ftd import store;"
        f"print(store.read_tensor_facts({str(tmp_path / 't.safetensors')!r})['task'],"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "zero False\n"


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    path = tmp_path / "t.safetensors"
    code = (
        "import sys; from pathlib import Path; from ftd.store import files\n"
        "with files.replacing(Path(sys.argv[1])) as file:\n"
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
    for reader in (store.read_tensors, store.read_tensor_facts):
        with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read"):
            reader(path)
    with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read"):
        store.read_foreign_tensors(path)
    assert not (tmp_path / "owned").exists()


def test_a_table_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.parquet"
    zeros = pa.array(memoryview(bytes(8 << 20)).cast("q"))
    with pq.ParquetWriter(path, pa.schema({"a": pa.int64()}), compression="zstd") as writer:
        for _ in range(520):
            writer.write_table(pa.table({"a": zeros}))
    assert path.stat().st_size < 3 << 20
    with pytest.raises(UserError, match=r"bomb\.parquet: unpacks to \d+ GiB, more than 4 GiB"):
        store.read_foreign_table(path)


def test_deeply_nested_json_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.json: cannot be read"):
        store.read_json(path)


def test_a_safetensors_header_that_claims_gigabytes_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match=r"t\.safetensors: cannot be read"):
        store.read_tensors(path)
