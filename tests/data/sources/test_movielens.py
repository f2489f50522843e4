"""Every MovieLens format, and ML-100K itself."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matinee.data.sources import movielens
from matinee.data.sources.fetch import cache_dir
from matinee.data.sources.movielens import load
from matinee.errors import MatineeError


@pytest.fixture(autouse=True)
def _no_downloads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MatineeError("no network.")

    if request.node.get_closest_marker("network") is None:
        monkeypatch.setattr(movielens, "download", refuse)
        monkeypatch.setattr(movielens, "files_from_wheel", refuse)


def test_grouplens_and_its_mirror_agree(grouplens_100k, mirror_100k):
    original, mirror = load("ml-100k", grouplens_100k), load("ml-100k", mirror_100k)
    assert original.fingerprint == mirror.fingerprint
    pd.testing.assert_frame_equal(original.items, mirror.items)
    pd.testing.assert_frame_equal(original.users, mirror.users)
    assert original.items["raw_id"].tolist() == [1, 50, 267, 1412]
    assert original.items["title"].tolist() == [
        "Toy Story",
        "Star Wars",
        "unknown",
        "Land Before Time III: The Time of the Great Giving",
    ]
    assert original.items["year"].tolist() == [1995, 1977, pd.NA, 1995]
    assert original.items["year"].dtype == "Int16"
    assert original.items["genres"].tolist() == [
        "Animation|Children's|Comedy",
        "Action|Adventure|Romance|Sci-Fi|War",
        "unknown",
        "Animation|Children's",
    ]
    assert original.users.to_numpy().tolist() == [
        [1, 24, "M", "technician", "85711"],
        [2, 53, "F", "other", "T8H1N"],
    ]
    assert original.ratings.tolist() == [3, 5, 4, 1]


def test_the_item_readers_agree_on_all_titles(grouplens_100k, mirror_100k):
    original = movielens._items_100k(grouplens_100k / "ml-100k")
    mirror = movielens._items_mirror(mirror_100k / "ml-100k")
    pd.testing.assert_frame_equal(original, mirror)
    by_id = original.set_index("raw_id")["title"]
    assert by_id[127] == "Godfather, The"
    assert by_id[1005] == "Double vie de Véronique, La (Double Life of Veronique, The)"


def test_ml_1m(ml_1m):
    log = load("ml-1m", ml_1m)
    assert log.items.to_numpy().tolist() == [
        [661, "Les Misérables: A Film", 1996, "Drama|Musical"],
        [1193, "Cuckoo", 1975, "Drama"],
    ]
    assert log.users.to_numpy().tolist() == [
        [1, 1, "F", "K-12 student", "48067"],
        [2, 56, "M", "self-employed", "70072-1234"],
    ]
    assert log.item_ids.tolist() == [2, 1]
    assert log.timestamps.tolist() == [978300760, 978302109]
    assert log.rating_scale == (1.0, 5.0)


def test_ml_10m(ml_10m):
    log = load("ml-10m", ml_10m)
    assert log.items.to_numpy().tolist() == [
        [3, "Amélie", 2001, ""],
        [122, "Boomerang", 1992, "Comedy"],
    ]
    assert log.ratings.tolist() == [0.5, 4.5]
    assert log.users.columns.tolist() == ["raw_id"]
    assert log.rating_scale == (0.5, 5.0)


def test_ml_latest_small(ml_small):
    log = load("ml-latest-small", ml_small)
    assert log.items.to_numpy().tolist() == [
        [7, "American President, The", 1995, "Comedy|Drama|Romance"],
        [9, "Emma", 1996, "Romance"],
        [11, 'Say "Hi"', 2006, ""],
        [12, "Emma", 1996, "Drama"],
    ]
    assert log.item_ids.tolist() == [1, 2, 4, 3]
    assert log.ratings.tolist() == [0.5, 5, 3, 4]


def test_merging_titles(ml_small):
    log = load("ml-latest-small", ml_small, merge_duplicate_titles=True)
    assert log.items["raw_id"].tolist() == [7, 9, 11]
    assert log.ratings.tolist() == [0.5, 3, 4]  # of the two for Emma the last
    assert log.duplicates_resolved == 1
    assert len(load("ml-latest-small", ml_small)) == 4


def test_a_folder_or_an_archive_placed_by_hand(ml_small):
    expected = load("ml-latest-small", ml_small / "ml-latest-small").fingerprint
    other = ml_small / "other"
    other.mkdir()
    with zipfile.ZipFile(other / "ml-latest-small.zip", "w") as archive:
        for file in ("ratings.csv", "movies.csv"):
            archive.write(ml_small / "ml-latest-small" / file, f"ml-latest-small/{file}")
    assert load("ml-latest-small", other).fingerprint == expected
    assert (other / "ml-latest-small" / "ratings.csv").is_file()


def test_a_changed_file_is_read_again(ml_small):
    load("ml-latest-small", ml_small)
    with (ml_small / "ml-latest-small" / "ratings.csv").open("a") as file:
        file.write("3,7,1.0,964983000\n")
    assert len(load("ml-latest-small", ml_small)) == 5


def test_a_copy_spares_the_reading(ml_small, monkeypatch):
    expected = load("ml-latest-small", ml_small).fingerprint
    monkeypatch.setattr(movielens._Layout, "read_ratings", None)
    assert load("ml-latest-small", ml_small).fingerprint == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3,7,1.0", r"ratings\.csv, line 6: the row has 3 instead of 4 fields"),
        ("3,7,good,1", r"ratings\.csv, line 6, column 'rating': 'good'"),
        ("3,7,5.5,1", r"ratings\.csv, line 6, column 'rating': the rating 5\.5 is outside"),
        ("3,x,5.0,1", r"ratings\.csv, line 6, column 'movieId': 'x' is not an integer"),
        (",7,5.0,1", r"ratings\.csv, line 6, column 'userId': the value is missing"),
    ],
)
def test_a_bad_ratings_row(ml_small, row, message):
    with (ml_small / "ml-latest-small" / "ratings.csv").open("a") as file:
        file.write(f"{row}\n")
    with pytest.raises(MatineeError, match=message):
        load("ml-latest-small", ml_small)


def test_a_bad_dat_row(ml_1m):
    with (ml_1m / "ml-1m" / "ratings.dat").open("a") as file:
        file.write("1::2::3\n")
    with pytest.raises(
        MatineeError, match=r"ratings\.dat, line 3: the row has 3 instead of 4 fields between '::'"
    ):
        load("ml-1m", ml_1m)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("users.dat", "1::F::1\n", r"users\.dat, line 1: the row has 3 instead of 5 fields"),
        ("users.dat", "1::F::old::1::1\n", r"malformed items or users file"),
        ("users.dat", "1::F::1::99::1\n", r"malformed items or users file"),
        ("movies.dat", "x::Title (1999)::Drama\n", r"malformed items or users file"),
    ],
)
def test_bad_side_files(ml_1m, file, text, message):
    (ml_1m / "ml-1m" / file).write_text(text)
    with pytest.raises(MatineeError, match=message):
        load("ml-1m", ml_1m)


def test_missing_pieces(ml_small, tmp_path):
    with pytest.raises(MatineeError, match="choose one of ml-100k, "):
        load("ml-100")
    (ml_small / "ml-latest-small" / "movies.csv").unlink()
    with pytest.raises(MatineeError, match=r"lacks movies\.csv"):
        load("ml-latest-small", ml_small)
    with pytest.raises(MatineeError, match=r"no network\. The mirror failed as well: no network"):
        load("ml-100k", tmp_path / "empty")
    with pytest.raises(MatineeError, match=r"^no network\.$"):
        load("ml-1m", tmp_path / "empty")
    other = tmp_path / "other"
    other.mkdir()
    with zipfile.ZipFile(other / "ml-latest-small.zip", "w") as archive:
        archive.writestr("ml-latest-small/README.txt", "")
    with pytest.raises(MatineeError, match="holds no ml-latest-small"):
        load("ml-latest-small", other)


@pytest.mark.parametrize("name", [name for name, e in movielens._EDITIONS.items() if e.checksum])
def test_an_archive_with_another_checksum_is_never_unpacked(tmp_path, name):
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
        archive.writestr(f"{name}/README.txt", "")
    with pytest.raises(MatineeError, match=rf"{name}\.zip has the .* checksum"):
        load(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.zip"]


@pytest.mark.network
def test_ml_100k_itself():
    log = load("ml-100k")
    assert (len(log), log.num_users, log.num_items) == (100_000, 943, 1_682)
    assert np.unique(log.ratings).tolist() == [1, 2, 3, 4, 5]
    assert (log.timestamps[0], log.timestamps[-1]) == (874_724_710, 893_286_638)
    assert log.ratings.mean(dtype=np.float64) == pytest.approx(3.52986)
    # 1,682 sorted raw ids without a gap: the ids are the raw ids.
    assert log.items["raw_id"].tolist() == list(range(1, 1_683))
    assert log.items.loc[50, ["title", "year"]].tolist() == ["Star Wars", 1977]
    assert log.items["year"].isna().sum() == 1
    assert (log.users["gender"] == "F").sum() == 273
    assert log.fingerprint == "b633c445d3e2ae46dea3283fb7e83cd6f78eaf1d568b232b7d47feb142c306ee"


@pytest.mark.network
def test_ml_100k_is_u_data_byte_for_byte():
    load("ml-100k")
    folder = cache_dir() / "ml-100k"
    original, mirror = folder / "u.data", folder / "ml-100k.inter"
    data = original.read_bytes() if original.exists() else mirror.read_bytes().split(b"\n", 1)[1]
    digest = hashlib.sha256(data).hexdigest()
    assert digest == "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"


@pytest.mark.network
def test_ml_100k_merged():
    log = load("ml-100k", merge_duplicate_titles=True)
    assert log.num_items == 1_664
    assert not log.items.duplicated(["title", "year"]).any()
    kept = load("ml-100k", merge_duplicate_titles=True, duplicates="keep")
    assert len(kept) == 100_000
    assert len(log) + log.duplicates_resolved == 100_000
    chasing_amy = kept.items["raw_id"][kept.items["title"] == "Chasing Amy"]
    assert chasing_amy.tolist() == [246]
    separate = load("ml-100k")
    ids = separate.encode_items([246, 268])
    merged = kept.encode_items([246])
    assert np.isin(separate.item_ids, ids).sum() == (kept.item_ids == merged).sum()


@pytest.mark.network
def test_ml_100k_survives_a_damaged_copy(tmp_path: Path):
    expected = load("ml-100k").fingerprint
    shutil.copytree(cache_dir() / "ml-100k", tmp_path / "ml-100k")
    for copy in (tmp_path / "ml-100k").glob(".*.arrow"):
        content = copy.read_bytes()
        copy.write_bytes(content[:1_000_000] + b"\0" * 64 + content[1_000_064:])
    assert load("ml-100k", tmp_path).fingerprint == expected
