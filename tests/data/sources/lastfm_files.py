"""Files in the format of Last.fm 1K, with the defects of the real one."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np

EVENTS = "userid-timestamp-artid-artname-traid-traname.tsv"
PROFILES = "userid-profile.tsv"
NAMES = ['The "Who', "'68", '"Heroes"', "Sigur Rós", "AC/DC", "A - B", "A", "椎名林檎"]
BROKEN = [
    b"user_000001\t2009-01-01T00:00:00Z\tid\tTwo\tTabs\tid\tIn\tNames",
    b"user_000001\t2009-01-01T00:00:00Z\tid\tToo few",
    b"user_000002\t2009-02-30T00:00:00Z\tid\tNo such day\tid\tTrack",
    b"user_000002\tyesterday\tid\tNo time\tid\tTrack",
    b"user_000002\t2009-01-01\tid\tDate alone\tid\tTrack",
    b"\t2009-01-01T00:00:00Z\tid\tNobody\tid\tTrack",
    b"user_000003\t2009-01-01T00:00:00Z\t\t\t\t",
    b"",
]


def event_lines(num_events: int = 600, num_users: int = 5, seed: int = 0) -> list[bytes]:
    """Draw events, newest first for each user, many in the same second and some without ids."""
    rng = np.random.default_rng(seed)
    lines = []
    for user in range(1, num_users + 1):
        count = num_events // num_users
        for time in np.sort(rng.integers(0, count // 2, count))[::-1]:
            artist, track = (rng.random(2) ** 2 * (len(NAMES), 12)).astype(int)
            moment = datetime.datetime(2009, 5, 4, 23, 8, 57) + datetime.timedelta(0, int(time))
            fields = [
                f"user_{user:06d}",
                moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                f"artist-{artist}" if artist % 3 else "",
                NAMES[artist],
                f"track-{artist}-{track}" if (artist + track) % 4 else "",
                f"Song {track} «\r»" if track == 3 else f"Song {track}",
            ]
            lines.append("\t".join(fields).encode())
    return lines


def damaged(lines: list[bytes], seed: int = 0) -> list[bytes]:
    """Strew broken lines among the others, and a byte that is not UTF-8 and a carriage return."""
    rng = np.random.default_rng(seed)
    lines = list(lines)
    for broken in BROKEN:
        lines.insert(int(rng.integers(1, len(lines))), broken)
    lines[0] = lines[0] + b" \xff\r"
    return lines


def write_profiles(folder: Path) -> None:
    rows = ["#id\tgender\tage\tcountry\tregistered", "user_000001\tm\t\tNA\tAug 13, 2006"]
    rows += ["user_000003\tf\t22\t\tOct 30, 2005", "user_000009\t\t\t\t"]
    (folder / PROFILES).write_text("\n".join(rows) + "\n")
