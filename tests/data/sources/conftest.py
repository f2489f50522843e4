"""Small files in the real formats, with the oddities of the real ones."""

from pathlib import Path

import pytest

# fmt: off
GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
]
# fmt: on
RATINGS_100K = "1\t50\t5\t874965954\n2\t267\t1\t888550871\n1\t1412\t4\t874965954\n2\t1\t3\t800\n"
USERS_100K = ["1|24|M|technician|85711", "2|53|F|other|T8H1N"]
ITEMS_100K = [  # id, title of u.item, title and year of the mirror, genres
    (1, "Toy Story (1995)", "Toy Story", "1995", "Animation Children's Comedy"),
    (50, "Star Wars (1977)", "Star Wars", "1977", "Action Adventure Romance Sci-Fi War"),
    (89, "Blade Runner (1982)", "Blade Runner", "1982", "Film-Noir Sci-Fi"),
    (127, "Godfather, The (1972)", "Godfather, The", "1972", "Action Crime Drama"),
    (267, "unknown", "unkonwn", "unkonwn", "unknown"),
    (
        1005,
        "Double vie de Véronique, La (Double Life of Veronique, The) (1991)",
        "Double vie de Véronique, La (Double Life of Veronique, The)",
        "1991",
        "Drama",
    ),
    (
        1412,
        "Land Before Time III: The Time of the Great Giving (1995) (V)",
        "Land Before Time III: The Time of the Great Giving (1995)",
        "V",
        "Animation Children's",
    ),
]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Talk to the servers on this machine without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def grouplens_100k(tmp_path: Path) -> Path:
    """Write an ml-100k folder as GroupLens ships it; return the folder around it."""
    folder = tmp_path / "grouplens" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "u.data").write_text(RATINGS_100K)
    (folder / "u.user").write_text("\n".join(USERS_100K) + "\n")
    lines = []
    for item, title, _, year, genres in ITEMS_100K:
        flags = "|".join(str(int(genre in genres.split())) for genre in GENRES)
        released = f"01-Jan-{year}" if year.isdigit() else ""
        lines.append(f"{item}|{title}|{released}||http://us.imdb.com/M/title-exact?{item}|{flags}")
    (folder / "u.item").write_text("\n".join(lines) + "\n\n", encoding="latin-1")
    return folder.parent


@pytest.fixture
def mirror_100k(tmp_path: Path) -> Path:
    """Write the same data as its mirror ships it; return the folder around it."""
    folder = tmp_path / "mirror" / "ml-100k"
    folder.mkdir(parents=True)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + RATINGS_100K)
    users = ["user_id:token|age:token|gender:token|occupation:token|zip_code:token", *USERS_100K]
    (folder / "ml-100k.user").write_text("\n".join(users).replace("|", "\t") + "\n")
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    lines += [f"{item}\t{title}\t{year}\t{genres}" for item, _, title, year, genres in ITEMS_100K]
    (folder / "ml-100k.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::1193::5::978300760\n2::661::3::978302109\n")
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072-1234\n")
    movies = "661::Les Misérables: A Film (1996)::Drama|Musical\n1193::Cuckoo (1975)::Drama\n"
    (folder / "movies.dat").write_text(movies, encoding="latin-1")
    return tmp_path


@pytest.fixture
def ml_10m(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-10M100K"
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::122::4.5::838985046\n5::3::0.5::838983525\n")
    movies = "122::Boomerang (1992)::Comedy\n3::Amélie (2001)::(no genres listed)\n"
    (folder / "movies.dat").write_text(movies, encoding="utf-8")
    return tmp_path


@pytest.fixture
def ml_small(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    rows = ["userId,movieId,rating,timestamp", "1,11,4.0,964982703", "1,7,0.5,964981247"]
    rows += ["2,9,5.0,964982224", "2,12,3.0,964982225"]
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    movies = [
        "movieId,title,genres",
        '7,"American President, The (1995)",Comedy|Drama|Romance',
        "9,Emma (1996),Romance",
        '11,"Say ""Hi"" (2006\u20132007) ",(no genres listed)',
        "12,Emma (1996),Drama",
        "99,Never Rated,Drama",
    ]
    (folder / "movies.csv").write_text("\n".join(movies) + "\n", encoding="utf-8")
    return tmp_path
