"""Names of classes in the metadata of Parquet files: one meaning, the same in all files."""

import json
from pathlib import Path

import pytest

from ftd.errors import UserError
from ftd.tasks.loaders.class_names import common_names

A, B = Path("a.parquet"), Path("b.parquet")


def under(value) -> dict[bytes, bytes]:
    return {b"names": value if isinstance(value, bytes) else json.dumps(value).encode()}


def features(value) -> dict[bytes, bytes]:
    return {b"huggingface": value if isinstance(value, bytes) else json.dumps(value).encode()}


def classes(names) -> dict[bytes, bytes]:
    return features({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})


UNDERSTOOD = [
    (["dog", "cat"], {0: "dog", 1: "cat"}),
    ({"cat": 1, "dog": 0}, {0: "dog", 1: "cat"}),
    ({"0": "dog", "1": "cat"}, {0: "dog", 1: "cat"}),
    ({"1": "cat", "0": "dog"}, {0: "dog", 1: "cat"}),
    ({"0": "1", "1": "0"}, {0: "1", 1: "0"}),
    ({"1": 1, "0": 0}, {0: "0", 1: "1"}),
    ([3, 7], {0: "3", 1: "7"}),
    (["cafe\u0301", "b"], {0: "caf\u00e9", 1: "b"}),
]


@pytest.mark.parametrize(("value", "names"), UNDERSTOOD, ids=repr)
def test_a_list_or_a_mapping_with_one_meaning(value, names):
    assert common_names("own", {A: under(value)}, "names", "label") == names
    assert common_names("own", {A: classes(value)}, None, "label") == names


BAD = [
    *(
        "ab",
        3,
        True,
        {"0": 1, "1": 0},
        {"00": 0, "1": 1},
        {"0": "a", "b": 1},
        {"a": -1, "b": 0},
        {"a": 0, "b": 0},
    ),
    *(["a", None], ["a", True], [["a"]], [{"id": 0, "name": "a"}], {"a": 0.0, "b": 1.0}),
    *({"0": "a", "00": "b"}, {"0": None}, {"0": "a", "1": {}}),
]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_what_has_no_or_two_meanings_is_refused(value):
    wanted = r"expected a JSON list of names, or a mapping of class numbers to names or of names to"
    with pytest.raises(UserError, match=rf"^datasets\.own\.names: 'names' of a\.parquet: {wanted}"):
        common_names("own", {A: under(value)}, "names", "label")
    with pytest.raises(
        UserError, match=rf"own: a\.parquet: names of 'label' in its hug.*: {wanted}"
    ):
        common_names("own", {A: classes(value)}, None, "label")


@pytest.mark.parametrize(
    "value",
    [[], {}, None, b"cat, dog", b"", b"\xff\xfe", b"[" * 100_000],
    ids=lambda v: repr(v)[:9],
)
def test_what_names_nothing_is_refused_where_it_was_asked_for(value):
    with pytest.raises(UserError, match=r"^datasets\.own\.names: 'names' of a\.parquet: "):
        common_names("own", {A: under(value)}, "names", "label")


@pytest.mark.parametrize(
    "value",
    [
        *({"info": None}, {"info": {"features": None}}, {"info": {"features": [{"name": "x"}]}}),
        *([], None, 3, "text", {"info": {"features": {"label": None}}}, {"info": 3}),
        {"info": {"features": {"label": {"dtype": "int64", "_type": "Value"}}}},
        {"info": {"features": {"label": [{"names": ["a"]}]}}},
        {"info": {"features": {"label": {"feature": {"names": ["a"]}, "_type": "Sequence"}}}},
        {"info": {"features": {"label": {"names": None}}}},
        *(b"no json", b"\xff", b"[" * 100_000),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_metadata_of_another_shape_name_no_classes_and_that_is_said(value, capsys):
    assert common_names("own", {A: features(value)}, None, "label") == {}
    assert "own: the huggingface metadata of a.parquet name no classes" in capsys.readouterr().err


def test_no_metadata_need_no_word(capsys):
    assert common_names("own", {A: {}, B: {b"pandas": b"{}"}}, None, "label") == {}
    assert not capsys.readouterr().err


@pytest.mark.parametrize("put", [under, classes])
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (["dog", "cat"], "class 0 is 'cat' in a.parquet and 'dog' in b.parquet"),
        (["cat", "dog", "owl"], "class 2 is not there in a.parquet and 'owl' in b.parquet"),
        (["cat"], "class 1 is 'dog' in a.parquet and not there in b.parquet"),
        ({"cat": 1, "dog": 0}, "class 0 is 'cat' in a.parquet and 'dog' in b.parquet"),
    ],
)
def test_files_that_differ_are_named(put, other, difference):
    key = "names" if put is under else None
    files = {A: put(["cat", "dog"]), B: put(other)}
    with pytest.raises(UserError) as error:
        common_names("own", files, key, "label")
    assert str(error.value).startswith(f"data set own: {difference}; give all files")


def test_files_without_names_take_those_of_the_others(capsys):
    files = {A: {}, B: classes(["cat", "dog"])}
    assert common_names("own", files, None, "label") == {0: "cat", 1: "dog"}
    assert "own: 1 files, such as a.parquet, name no classes; those of b" in capsys.readouterr().err


def test_a_key_that_no_file_has():
    with pytest.raises(
        UserError, match=r"a\.parquet has no such list of names; did you mean 'short'"
    ):
        common_names("own", {A: {b"short": b"[]", b"\xff": b""}, B: {}}, "shrt", "label")
