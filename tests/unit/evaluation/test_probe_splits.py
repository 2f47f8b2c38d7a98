"""Who is trained on and who is tested on: folds, groups, and what must not be both."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.errors import LeakError, ManifestError
from tats_ray.evaluation.splits import (
    Place,
    fold_splits,
    held_out_split,
    inner_parts,
    places_of,
    read_folds,
)


def test_folds_of_a_csv_file(tmp_path):
    file = tmp_path / "set.csv"
    file.write_text("path,label,group,fold\na/1.mp4,x,7,0\n/else/2.mp4,y,08,1\n")
    folds = read_folds(file)
    assert folds == {
        str(tmp_path / "a/1.mp4"): Place("0", "7"),
        "/else/2.mp4": Place("1", "8"),
    }
    assert places_of(["/else/2.mp4"], folds, file) == [Place("1", "8")]
    with pytest.raises(ManifestError, match=r"set\.csv: has no row for /else/3\.mp4"):
        places_of(["/else/2.mp4", "/else/3.mp4"], folds, file)


def test_folds_of_a_manifest_are_groups_where_there_are_none(tmp_path):
    file = tmp_path / "set.parquet"
    pq.write_table(pa.table({"path": ["/a.mp4", "/b.mp4"], "fold": [0, 1]}), file)
    assert list(read_folds(file).values()) == [Place("0", "0"), Place("1", "1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,x\n", "column 'fold' is missing"),
        ("path,fold\na.mp4,0\na.mp4,1\n", r"'a\.mp4' appears twice"),
        ("path,fold\na.mp4\n", "cannot be read"),
    ],
)
def test_odd_fold_files_are_named(tmp_path, text, message):
    file = tmp_path / "set.csv"
    file.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_folds(file)
    with pytest.raises(ManifestError, match="no such file"):
        read_folds(tmp_path / "none.csv")


def test_every_fold_is_tested_on_once():
    splits = fold_splits([Place(fold, str(row)) for row, fold in enumerate("abcab")])
    assert [split.name for split in splits] == ["a", "b", "c"]
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested.tolist()) == [0, 1, 2, 3, 4]
    for split in splits:
        assert sorted([*split.train, *split.test]) == [0, 1, 2, 3, 4]


def test_a_group_in_two_folds_is_refused():
    with pytest.raises(LeakError, match="group 'match 3' is in fold 'a' and in fold 'b'"):
        fold_splits([Place("a", "match 3"), Place("b", "match 1"), Place("b", "match 3")])


def test_one_fold_is_no_split():
    with pytest.raises(ManifestError, match="needs at least 2"):
        fold_splits([Place("a", "1"), Place("a", "2")])


def test_the_test_manifest_follows_the_training_one():
    split = held_out_split(["/a", "/b"], ["/c"], ["1", "2"], ["3"])
    assert (split.train.tolist(), split.test.tolist()) == ([0, 1], [2])


@pytest.mark.parametrize(
    ("test", "group", "message"),
    [("/b", "3", "video '/b' is in probe.train and"), ("/c", "2", "group '2' is in probe.train")],
)
def test_a_leak_between_manifests_is_refused(test, group, message):
    with pytest.raises(LeakError, match=message):
        held_out_split(["/a", "/b"], [test], ["1", "2"], [group])


def test_inner_parts_keep_groups_whole_and_classes_even():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 400)
    labels = rng.integers(0, 4, 400)
    parts = inner_parts(labels, [str(group) for group in groups], 5, seed=1)
    for group in range(40):
        assert len(set(parts[groups == group])) == 1
    counts = np.array([np.bincount(labels[parts == part], minlength=4) for part in range(5)])
    assert counts.min() >= 14 and counts.max() <= 26  # 20 where everything is even
    again = inner_parts(labels, [str(group) for group in groups], 5, seed=1)
    np.testing.assert_array_equal(parts, again)


def test_single_videos_are_stratified():
    labels = np.repeat([0, 1], [50, 10])
    parts = inner_parts(labels, [str(row) for row in range(60)], 5, seed=0)
    for part in range(5):
        assert np.bincount(labels[parts == part]).tolist() == [10, 2]


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    classes=st.integers(1, 6),
    parts=st.integers(2, 6),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_groups_are_divided(sizes, classes, parts, seed):
    """Also fewer groups than parts, groups of all sizes, and classes rarer than parts."""
    labels = np.random.default_rng(seed).integers(0, classes, sum(sizes))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = inner_parts(labels, [f"g{group}" for group in groups], parts, seed)
    assert 2 <= len(set(found)) <= min(parts, len(sizes))
    assert found.min() >= 0
    for group in range(len(sizes)):
        assert len(set(found[groups == group])) == 1


def test_one_group_cannot_be_divided():
    assert set(inner_parts(np.array([0, 1, 1]), ["a", "b", "b"], 5, seed=0)) == {0, 1}
    with pytest.raises(ManifestError, match="add a column group"):
        inner_parts(np.array([0, 1]), ["a", "a"], 5, seed=0)
