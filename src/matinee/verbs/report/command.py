"""The command line of ``matinee report``; nothing heavy is imported before it is understood."""

import argparse
import difflib
import sys
from pathlib import Path
from typing import NoReturn

from matinee.errors import MatineeError

HELP = """\
The tables of all finished runs below the folders: one for each protocol, for figures with other
data, splits or rules do not belong in one column.

Seeds of one experiment are aggregated (mean and standard deviation); of two runs of one seed the
later one counts. Figures that others have published for the same data and split stand beside
ours. A second table compares each model with the best on validation: the difference on test, an
interval from resampled users, and a signed-rank test.
"""


def run(argv: list[str]) -> None:
    """Print the tables that the arguments ask for, and say which files were written."""
    parser = _Parser(
        prog="matinee report",
        usage="matinee report [FOLDER...] [--save FOLDER] [--html FILE] [--pack FOLDER]\n"
        "       matinee report --by KEY FOLDER...",
        description=HELP, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("lightning_logs")], metavar="FOLDER",
        help="where the runs are, at any depth (lightning_logs)",
    )  # fmt: skip
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER",
        help="write the tables to report.md and every figure to report.csv, one a row",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=Path, metavar="FILE",
        help="write one page with tables, figures and curves; it needs no network",
    )  # fmt: skip
    parser.add_argument(
        "--pack", type=Path, metavar="FOLDER",
        help="add the runs to FOLDER/runs.parquet, one file that stands for many run folders:\n"
        "below FOLDER, report reads it as it reads them, and checkpoints are not in it",
    )  # fmt: skip
    parser.add_argument(
        "--by", metavar="KEY",
        help="only the runs of one model by a key that was swept, such as model.embedding_dim;\n"
        "table and figure are also written into the first folder, as by_KEY.csv, .md and .png",
    )  # fmt: skip
    asked = parser.parse_intermixed_args(argv)
    if asked.by is not None:
        from matinee.verbs.report.sweep import sweep

        if asked.save or asked.html or asked.pack:
            raise MatineeError(
                "--by goes with no other option; leave --save, --html and --pack out."
            )
        print(sweep(asked.folders, asked.by))
        return
    from matinee.verbs.report.output import report

    print(report(asked.folders, asked.save, asked.html, asked.pack))
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
                option.split()[0], ("--save", "--html", "--pack", "--by"), n=1
            )
            hint = f"; did you mean {near[0]}?" if near else "; see 'matinee report --help'."
            raise MatineeError(f"unknown option {option}{hint}")
        raise MatineeError(f"{message}; see 'matinee report --help'.")
