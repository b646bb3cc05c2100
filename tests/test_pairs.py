"""The pair store: what was added is found, and nothing else, whatever happens to the file."""

import errno
import multiprocessing
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd.store import locks, pairs
from ftd.store.pairs import open_store, pair_key

RECORD = 16
# torch flushes subnormal numbers to zero in this process, which Hypothesis refuses to overlook
numbers = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=30)


def key(number: int) -> bytes:
    return pair_key(probe=number)


def fill(path, values) -> None:
    path.unlink(missing_ok=True)
    with open_store(path) as store:
        for number, value in enumerate(values):
            store.add([(key(number), value)])


def found(path, count: int) -> list[float | None]:
    with open_store(path) as store:
        return [store.get(key(number)) for number in range(count)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs") / "folder" / "task.pairs"


@settings(deadline=None)
@given(numbers)
def test_what_was_added_is_found_bit_by_bit(path, values):
    fill(path, values)
    assert found(path, len(values) + 3) == [*values, None, None, None]
    assert path.stat().st_size == RECORD * len(values)


@settings(deadline=None)
@given(numbers, st.integers(0, 10**6))
def test_a_cut_costs_what_was_cut_and_writing_goes_on(path, values, cut):
    fill(path, values)
    cut = cut % (RECORD * len(values))
    os.truncate(path, cut)
    kept = cut // RECORD
    assert found(path, len(values)) == values[:kept] + [None] * (len(values) - kept)
    with open_store(path) as store:
        store.add([(key(100), 0.5), (key(101), 0.25)])
    assert found(path, kept) == values[:kept]
    with open_store(path) as store:
        assert (store.get(key(100)), store.get(key(101))) == (0.5, 0.25)


@settings(deadline=None)
@given(numbers, st.data())
def test_damage_costs_the_damaged_records_only_and_gives_no_wrong_number(path, values, data):
    fill(path, values)
    content = bytearray(path.read_bytes())
    places = st.dictionaries(st.integers(0, len(content) - 1), st.integers(1, 255), max_size=40)
    changes = data.draw(places)
    for place, change in changes.items():
        content[place] ^= change
    path.write_bytes(content)
    hurt = {place // RECORD for place in changes}
    assert found(path, len(values)) == [
        None if number in hurt else value for number, value in enumerate(values)
    ]


@settings(deadline=None)
@given(numbers, st.binary(max_size=200), st.booleans())
def test_strange_bytes_are_no_numbers(path, values, garbage, before):
    fill(path, values)
    content = path.read_bytes()
    aligned = garbage + b"\0" * (-len(garbage) % RECORD)
    path.write_bytes(aligned + content if before else content + garbage)
    assert found(path, len(values) + 1) == [*values, None]


def test_keys_that_share_the_stored_part_are_told_apart(path):
    path.unlink(missing_ok=True)
    keys = [b"abc" + bytes([number]) * 29 for number in range(50)]
    with open_store(path) as store:
        store.add((one, number / 64) for number, one in enumerate(keys[:-1]))
    with open_store(path) as store:
        assert [store.get(one) for one in keys] == [*(n / 64 for n in range(49)), None]


def test_disk_is_awaited_once_a_second_and_at_the_end(path, monkeypatch):
    path.unlink(missing_ok=True)
    synced = []
    monkeypatch.setattr(pairs.os, "fsync", synced.append)
    with open_store(path) as store:
        for number in range(1000):
            store.add([(key(number), 0.5)])
        assert len(synced) < 20
        assert path.stat().st_size == 1000 * RECORD  # written, though not synchronised
        before = len(synced)
        store._synced -= 2 * pairs.SYNC_EVERY
        store.add([(key(1000), 0.5)])
        assert len(synced) == before + 1
    assert len(synced) == before + 2


@pytest.mark.parametrize("of", ["the file system", "Python"])
def test_without_locks_it_is_written_all_the_same(of, path, monkeypatch, capsys):
    def flock(*_arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    if of == "Python":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(locks.fcntl, "flock", flock)
    fill(path, [0.5, 0.25])
    assert "not locked, this file system has no locks" in capsys.readouterr().err
    assert found(path, 2) == [0.5, 0.25]


def hold(path, ready) -> None:
    with open_store(path) as store:
        ready.set()
        time.sleep(1)
        store.add([(key(7), 0.125)])


def test_a_second_process_waits_and_sees_what_the_first_one_added(path, capsys):
    fill(path, [0.5])
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(path, ready))
    other.start()
    assert ready.wait(60)
    with open_store(path) as store:
        assert store.get(key(7)) == 0.125
    other.join()
    assert "waiting for another process" in capsys.readouterr().err
