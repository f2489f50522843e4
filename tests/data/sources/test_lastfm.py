"""Last.fm 1K: read as a plain loop over the lines reads it, however it is given."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from lastfm_files import BROKEN, EVENTS, PROFILES, damaged, event_lines, write_profiles

from matinee.config.composing import compose
from matinee.data.interactions import Interactions
from matinee.data.sources import lastfm, lastfm_events
from matinee.data.sources.lastfm import load
from matinee.errors import MatineeError
from matinee.experiment import building, running
from matinee.verbs.recommend import recommend
from matinee.verbs.report.output import report


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Write an unpacked data set; return its file of events."""
    return written(tmp_path / "lastfm-dataset-1K", damaged(event_lines()))


def written(folder: Path, lines: list[bytes], end: bytes = b"\n") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / EVENTS
    path.write_bytes(end.join(lines) + end)
    write_profiles(folder)
    return path


def packed(archive: Path, members: dict[str, bytes | None]) -> Path:
    """Write a .tar.gz; a member without content is a link to /etc/passwd."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return archive


def slowly(path: Path, items: str, min_item_count: int) -> tuple[list[Any], list[int]]:
    """Read events as (user, item, time, title), oldest first, and the malformed lines.

    The title is that of the item's first line.
    """
    events, malformed, titles = [], [], {}
    for number, raw in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        line = raw.removesuffix(b"\r").replace(b"\r", b" ").decode(errors="replace")
        try:
            user, time, artist_id, artist, track_id, track = line.split("\t")
            moment = datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            malformed.append(number)
            continue
        if items == "artist":
            item, title = artist_id or artist, artist
        else:
            item = track_id or (f"{artist}\t{track}" if artist and track else "")
            title = f"{artist} - {track}"
        if not user or not item:
            malformed.append(number)
            continue
        second = int(moment.replace(tzinfo=datetime.UTC).timestamp())
        events.append((user, item, second, titles.setdefault(item, title)))
    counts = Counter(item for _, item, _, _ in events)
    kept = [event for event in events if counts[event[1]] >= min_item_count]
    kept.reverse()  # and so are those of one second
    return sorted(kept, key=lambda event: event[2]), malformed


def rows(log: Interactions) -> list[Any]:
    users, items = log.users["raw_id"], log.items
    return [
        (users[user], items["raw_id"][item], int(time), items["title"][item])
        for user, item, time in zip(log.user_ids, log.item_ids, log.timestamps, strict=True)
    ]


@pytest.mark.parametrize("items", ["track", "artist"])
@pytest.mark.parametrize("min_item_count", [1, 2, 20])
@pytest.mark.parametrize("block", [300, 1 << 24])
def test_reads_what_a_loop_over_the_lines_reads(events, monkeypatch, items, min_item_count, block):
    monkeypatch.setattr(lastfm_events, "_BLOCK", block)
    monkeypatch.setattr(lastfm_events, "_MOST_MALFORMED", 0.5)  # a block holds two lines or three
    expected, malformed = slowly(events, items, min_item_count)
    log = load(events, items, min_item_count)
    assert rows(log) == expected
    assert log.source["lines"] == 600 + len(BROKEN)
    assert log.source["malformed_lines"] == len(malformed) == len(BROKEN)
    assert log.source["first_malformed_lines"] == malformed
    assert log.source["sha256"] == hashlib.sha256(events.read_bytes()).hexdigest()
    assert log.source["as_published"] is False
    assert log.user_ids.max() == log.num_users and log.item_ids.max() == log.num_items
    assert log.ratings is None and log.duplicates_resolved == 0


def test_later_lines_of_one_second_are_earlier_events_and_repeats_stay(tmp_path):
    line = "user_000001\t2009-05-04T23:08:57Z\t\tArtist\t\t{}"
    names = ["fourth", "third", "third", "second"]
    lines = [line.format(name).encode() for name in names]
    lines.append(line.format("first").replace("57Z", "56Z").encode())
    log = load(written(tmp_path / "data", lines), min_item_count=1)
    titles = log.items["title"].loc[log.item_ids].tolist()
    assert titles == [
        f"Artist - {name}" for name in ("first", "second", "third", "third", "fourth")
    ]
    assert log.timestamps.tolist() == [1241478536] + 4 * [1241478537]


def test_names_identify_only_where_there_is_no_id(tmp_path):
    rest = [  # artist id, artist, track id, track
        ("", "A - B", "", "C"),
        ("", "A", "", "B - C"),
        ("", "A", "id", "B - C"),
        ("other", "A", "id", "renamed"),
        ("", "", "id-2", ""),
    ]
    lines = [
        "\t".join(("user_000001", "2009-05-04T23:08:57Z", *fields)).encode() for fields in rest
    ]
    path = written(tmp_path / "data", lines)
    tracks = load(path, min_item_count=1).items
    assert tracks["raw_id"].tolist() == ["A\tB - C", "A - B\tC", "id", "id-2"]
    assert tracks["title"].tolist() == ["A - B - C", "A - B - C", "A - B - C", "id-2"]
    assert tracks["artist"].tolist()[:3] == ["A", "A - B", "A"]
    with pytest.raises(MatineeError, match=r"1 of its first 5 lines are malformed \(line 5\)"):
        load(path, "artist", 1)  # of the last event nothing is known of the artist
    written(tmp_path / "data", lines[:-1])
    artists = load(path, "artist", 1).items
    assert artists["raw_id"].tolist() == ["A", "A - B", "other"]
    assert artists["title"].tolist() == ["A", "A - B", "A"]


def test_rare_items_are_counted_once_and_users_without_events_go(tmp_path):
    line = "user_{:06d}\t2009-05-04T23:08:57Z\t\tArtist\t\t{}"
    lines = [line.format(*event).encode() for event in [(1, "x"), (2, "x"), (2, "y"), (3, "y")]]
    lines += [line.format(4, "rare").encode()]
    log = load(written(tmp_path / "data", lines), min_item_count=2)
    assert log.users["raw_id"].tolist() == ["user_000001", "user_000002", "user_000003"]
    assert log.items["title"].tolist() == ["Artist - x", "Artist - y"]
    with pytest.raises(MatineeError, match=r"no track of .* has 3 events; lower dataset\.min_item"):
        load(written(tmp_path / "data", lines), min_item_count=3)


def test_profiles(events):
    users = load(events).users.set_index("raw_id")
    assert users.columns.tolist() == ["gender", "age", "country", "registered"]
    assert users.loc["user_000001"].fillna("?").tolist() == ["m", "?", "NA", "Aug 13, 2006"]
    assert users.loc["user_000003"].fillna("?").tolist() == ["f", 22, "?", "Oct 30, 2005"]
    assert users.loc["user_000002"].isna().all()
    (events.parent / PROFILES).write_text("user_000001\tm\t22\tPeru\tAug 13, 2006\n")
    assert load(events).users["age"].tolist()[0] == 22, "changed profiles are read again"
    (events.parent / PROFILES).write_text("user_000001\tm\t22.5\tPeru\tAug 13, 2006\n")
    with pytest.raises(MatineeError, match=r"userid-profile\.tsv that belongs to .* is malformed"):
        load(events)


def test_every_way_of_giving_it_reads_the_same(events, tmp_path, monkeypatch):
    expected = load(events)
    members = {f"lastfm-dataset-1K/{name}": (events.parent / name).read_bytes() for name in
               (PROFILES, EVENTS)}  # fmt: skip
    archive = packed(
        tmp_path / "elsewhere.tar.gz", {"lastfm-dataset-1K/README.txt": b"", **members}
    )
    cache = tmp_path / "cache"
    monkeypatch.setattr(lastfm, "download", None)
    found = [load(events.parent), load(archive), load(archive, data_dir=tmp_path / "other")]
    (cache / "lastfm-dataset-1K.tar.gz").write_bytes(archive.read_bytes())
    found.append(load())
    events.parent.rename(cache / "lastfm-dataset-1K")
    found.append(load())
    for log in found:
        assert log.fingerprint == expected.fingerprint
        assert log.source == expected.source
        pd.testing.assert_frame_equal(log.users, expected.users)
        pd.testing.assert_frame_equal(log.items, expected.items)


def test_carriage_returns_at_the_ends_of_lines_are_no_text(tmp_path):
    lines = event_lines(100)
    unix = load(written(tmp_path / "unix", lines), min_item_count=1)
    windows = load(written(tmp_path / "windows", lines, b"\r\n"), min_item_count=1)
    assert windows.fingerprint == unix.fingerprint
    path = written(tmp_path / "cut", lines, b"\n")
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert load(path, min_item_count=1).fingerprint == unix.fingerprint


def test_the_archive_is_fetched_where_none_is_there(events, tmp_path, monkeypatch):
    asked = []

    def download(url: str, target: Path) -> Path:
        asked.append((url, target))
        target.parent.mkdir(exist_ok=True)
        return packed(target, {EVENTS: events.read_bytes()})

    monkeypatch.setattr(lastfm, "download", download)
    assert load().fingerprint == load().fingerprint, "of the archive and of its copy"
    url = "http://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-1K.tar.gz"
    assert asked == [(url, tmp_path / "cache" / "lastfm-dataset-1K.tar.gz")]


def test_members_that_point_outside_write_nothing(events, tmp_path):
    hostile = {f"../{PROFILES}": None, "../../escaped": b"x", f"../outside/{EVENTS}":
               events.read_bytes()}  # fmt: skip
    log = load(packed(tmp_path / "hostile.tar.gz", hostile))
    assert log.fingerprint == load(events).fingerprint
    assert log.users.columns.tolist() == ["raw_id"]
    assert not list(tmp_path.parent.glob("**/escaped"))
    assert not (tmp_path / "outside").exists()


def test_the_second_load_reads_the_copy(events, monkeypatch, capsys):
    first = load(events)
    assert f"left out {len(BROKEN)} malformed of 608 lines (line " in capsys.readouterr().err
    monkeypatch.setattr(lastfm, "_build", None)
    second = load(events)
    assert second.fingerprint == first.fingerprint
    assert second.source == first.source
    pd.testing.assert_frame_equal(second.items, first.items)
    for options in ({"items": "artist"}, {"min_item_count": 2}):
        with pytest.raises(TypeError):  # other options are read anew
            load(events, **options)


def test_published_files_are_known(tmp_path, monkeypatch):
    path = written(tmp_path / "data", event_lines(100))
    monkeypatch.setattr(lastfm_events, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    assert load(path, min_item_count=1).source["as_published"] is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no lines; set dataset.path"),
        (b"1\t50\t5\t874965954\n" * 100, r"100 of its first 100 lines .* \(line 1, 2, 3, .*\.\.\."),
        (b"userId,movieId,rating,timestamp\n1,2,3,4\n", "is not the userid-timestamp-"),
        (bytes(range(256)) * 100, "is not the userid-timestamp-"),
        (b"\0" * 10_000, "1 of its first 1 lines"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "other.tsv"
    path.write_bytes(content)
    with pytest.raises(MatineeError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_other_archives_are_refused(events, tmp_path):
    with pytest.raises(MatineeError, match=f"holds no {EVENTS}"):
        load(packed(tmp_path / "empty.tar.gz", {"README.txt": b"x"}))
    twice = {f"a/{EVENTS}": events.read_bytes(), f"b/{EVENTS}": events.read_bytes()}
    with pytest.raises(MatineeError, match=f"holds two {EVENTS}"):
        load(packed(tmp_path / "two.tar.gz", twice))
    (tmp_path / "none.tar.gz").write_bytes(b"no archive")
    whole = packed(tmp_path / "whole.tar.gz", {EVENTS: events.read_bytes()}).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the checksum at the end
    (tmp_path / "flipped.tar.gz").write_bytes(flipped)
    for name in ("none.tar.gz", "cut.tar.gz", "flipped.tar.gz"):
        with pytest.raises(MatineeError, match=f"{name} cannot be read"):
            load(tmp_path / name)


def test_missing_files_and_bad_options(tmp_path):
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(MatineeError, match=r"does not exist; set dataset\.path to userid-"):
            load(path)
    with pytest.raises(MatineeError, match=r"items='song' is unknown; choose track or artist"):
        load(tmp_path, items="song")
    with pytest.raises(MatineeError, match=r"min_item_count is 0; give at least 1"):
        load(tmp_path, min_item_count=0)


def test_train_and_recommend(events, tmp_path):
    overrides = [
        "experiment=user_based/gru", "split=user_tail", "dataset=lastfm-1k",
        f"dataset.path={events}", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "name=test", f"run_folder={tmp_path / 'run'}",
    ]  # fmt: skip
    folder = running.train(compose(*overrides), overrides)
    log = load(events)
    recorded = json.loads((folder / "protocol.json").read_text())["dataset"]
    assert recorded["source"] == log.source
    assert recorded["sha256"] == log.fingerprint
    assert report([tmp_path]).startswith("lastfm-1k, user_tail split")
    loaded = building.load_run(folder)
    title = log.items["title"].drop_duplicates(keep=False).iloc[0]
    for who in ({"user": "user_000003"}, {"history": [title]}):
        best = recommend(loaded, **who, top_k=3, repeat=True)
        assert set(best["title"]) <= set(log.items["title"])
