"""The command line of ``matinee report``; it is parsed before anything slow is imported."""

import argparse
import difflib
import sys
from pathlib import Path
from typing import NoReturn

from matinee.errors import MatineeError

HELP = """\
Print the tables of all finished runs below the folders. Each protocol has a table of its own,
because results on other data or splits, or under other rules, cannot be compared.

Seeds of one experiment share a row (mean and standard deviation). Of two runs with one seed the
later one counts. Published results on the same data and split are shown beside ours. A second
table compares each model with the best on validation: the difference on test, an interval from
resampled users, and a signed-rank test.
"""


def run(argv: list[str]) -> None:
    """Print the tables that the arguments ask for, and the names of written files."""
    parser = _Parser(
        prog="matinee report",
        usage="matinee report [FOLDER...] [--agreement] [--save FOLDER] [--html FILE] [--pack FOLDER]\n"
        "       matinee report --by KEY[,KEY...] FOLDER...",
        description=HELP, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("lightning_logs")], metavar="FOLDER",
        help="folders with runs, at any depth (lightning_logs)",
    )  # fmt: skip
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER",
        help="write the tables to report.md and every metric to report.csv",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=Path, metavar="FILE",
        help="write an HTML page with tables and figures; it needs no network",
    )  # fmt: skip
    parser.add_argument(
        "--pack", type=Path, metavar="FOLDER",
        help="add the runs to FOLDER/runs.parquet, a file that replaces many run folders; it has\n"
        "all that report reads, but no checkpoints",
    )  # fmt: skip
    parser.add_argument(
        "--agreement", action="store_true",
        help="also compare the rankings of the models between protocols, by Kendall's tau",
    )  # fmt: skip
    parser.add_argument(
        "--by", metavar="KEY,...",
        help="tabulate the runs of one model by config keys, such as model.embedding_dim or\n"
        "model.embedding_dim,optimizer.lr (then the best first); writes by_KEY.csv, .md and .png\n"
        "to the first folder",
    )  # fmt: skip
    asked = parser.parse_intermixed_args(argv)
    if asked.by is not None:
        from matinee.verbs.report.sweep import sweep

        if asked.save or asked.html or asked.pack or asked.agreement:
            raise MatineeError("--by cannot be combined with other options; leave them out.")
        print(sweep(asked.folders, asked.by.split(",")))
        return
    from matinee.verbs.report.output import report

    print(report(asked.folders, asked.save, asked.html, asked.pack, asked.agreement))
    written = [asked.save / "report.md", asked.save / "report.csv"] if asked.save else []
    written += [asked.html] if asked.html else []
    written += [asked.pack / "runs.parquet"] if asked.pack else []
    for path in written:
        print(f"written: {path}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _, _, option = message.partition("unrecognized arguments: ")
        if option:
            near = difflib.get_close_matches(
                option.split()[0], ("--save", "--html", "--pack", "--by", "--agreement"), n=1
            )
            hint = f"; did you mean {near[0]}?" if near else "; see 'matinee report --help'."
            raise MatineeError(f"unknown option {option}{hint}")
        raise MatineeError(f"{message}; see 'matinee report --help'.")
