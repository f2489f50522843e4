"""The verb ``matinee search``: run the trials of a search, and show what came of them."""

import json
import shlex
import sys
from collections.abc import Sequence

import pandas as pd
from omegaconf import DictConfig

from matinee.config.suggesting import suggest
from matinee.display.markdown import as_markdown, decimal
from matinee.display.metrics import metric_title
from matinee.display.plotting import save_figure
from matinee.errors import MatineeError
from matinee.verbs.search.importance import LEAST_TRIALS, importances, slices
from matinee.verbs.search.published import published_rows
from matinee.verbs.search.records import PRUNED, Records, Row, read_records
from matinee.verbs.search.spaces import Hyperparameters, hash_id, written
from matinee.verbs.search.trials import SHOWN_HASH, Search, prepare

PUBLISHED_ON = (
    "ml-1m"  # the data set of the published searches, which have the protocol of the spaces
)
MEASURED = ("dataset.", "split", "data.", "task")  # overrides that change the data or the protocol


def search(config: DictConfig, overrides: Sequence[str]) -> None:
    """Run the search that a config describes, and print the table of its results.

    Args:
        config: A composed ``search`` config.
        overrides: Overrides of ``train`` for every run.

    Raises:
        Stopped: If a signal ended a run; the same command resumes the search.
        MatineeError: For any error the user can fix.
    """
    prepared = prepare(config, overrides)
    print(f"{prepared.name} on {prepared.folder.name}, seed {prepared.seed}", file=sys.stderr)
    guided = None
    if config.method == "tpe":
        from matinee.verbs.search.tpe import GuidedSearch

        guided = GuidedSearch(prepared, config.storage)
    path = prepared.folder / f"{prepared.name}{'.tpe' if guided else ''}.jsonl"
    records = Records(path, prepared.identity, prepared.metric_names)
    if config.hash:
        rerun(prepared, config.hash, list(records.rows().values()))
        return
    if guided is None:
        run_all(prepared, records, prepared.combinations())
        for other in sorted(prepared.folder.glob(f"{prepared.space.model}-*.jsonl")):
            if other != path:
                print_rows(prepared, other.stem, read_records(other, prepared.metric_names)[1])
    else:
        run_all(prepared, records, [] if prepared.default is None else [prepared.default])
        guided.run()
        records.add(*guided.rows())
        print(guided.storage)
    rows = list(records.rows().values())
    print_rows(prepared, path.stem, rows)
    print_importances(prepared, rows, records)
    print(path)
    print_best(prepared, rows)


def run_all(prepared: Search, records: Records, combinations: Sequence[Hyperparameters]) -> None:
    """Run all combinations without a record, shared with other processes."""
    trials = {hash_id(drawn): (number, drawn) for number, drawn in enumerate(combinations)}
    while names := [name for name in trials if name not in records.rows()]:
        with records.claimed(names) as name:
            if name in records.rows():  # another process was faster
                continue
            number, drawn = trials[name]
            what = (
                "the default"
                if drawn == prepared.default
                else f"trial {number + 1} of {len(trials)}"
            )
            print(what, end=": ", file=sys.stderr)
            records.add({"trial": number, **prepared.run(drawn)})


def rerun(prepared: Search, name: str, rows: Sequence[Row]) -> None:
    """Run one recorded or published combination again; print its metrics beside the known ones.

    Args:
        prepared: The search.
        name: The hash of the combination, or its first characters.
        rows: The recorded trials.

    Raises:
        MatineeError: If there is no such hash, or more than one.
    """
    recorded = {row["hash_ID"]: row for row in rows}
    published = published_rows(prepared.space.model)
    known = published | recorded
    meant = [one for one in known if one.startswith(name)]
    if len(meant) != 1:
        problem = "is unknown" if not meant else "is the beginning of several hashes"
        hint = suggest(name, known) or "take one from the file of results."
        raise MatineeError(
            f"hash={name} {problem} for {prepared.space.model or prepared.name}; {hint}"
        )
    (name,), names = meant, prepared.metric_names
    row = prepared.run(known[name]["hyperparameters"])
    table = {
        "metric": [metric_title(prepared.stages[metric]) for metric in names],
        "now": [decimal(row[metric]) for metric in names],
        "recorded": [decimal(recorded.get(name, {}).get(metric)) for metric in names],
    }
    comparable = prepared.folder.name == PUBLISHED_ON and not any(
        override.lstrip("+~").startswith(MEASURED) for override in prepared.identity["overrides"]
    )
    if name in published and comparable:
        table["published"] = [decimal(published[name][metric]) for metric in names]
    print(as_markdown(pd.DataFrame(table)))
    if name in published:
        source = published[name]["source"]
        unlike = (
            "" if comparable else "; not shown, because it is on other data or another protocol"
        )
        print(f"published: {source}{unlike}")
    if name in recorded:
        same = all(row[metric] == recorded[name][metric] for metric in names)
        print("identical to the record, to the last bit" if same else "not the record")


def print_rows(prepared: Search, title: str, rows: Sequence[Row]) -> None:
    """Print the searched hyperparameters that differ and the metrics, the best on validation first."""
    done = _done(prepared, rows)
    failed = [row for row in rows if row["failure"] not in (None, PRUNED)]
    pruned = sum(row["failure"] == PRUNED for row in rows)
    every = [row["hyperparameters"] for row in rows]
    keys = [
        name
        for name in dict.fromkeys(name for one in every for name in one)
        if len({json.dumps(one.get(name)) for one in every}) > 1
        and name in prepared.space.over  # others follow from these
    ]
    table = [
        {
            **{name: _cell(row["hyperparameters"].get(name)) for name in keys},
            **{
                metric_title(prepared.stages[metric]): decimal(row[metric])
                for metric in reversed(prepared.metric_names)  # that of validation first
            },
            "hash": row["hash_ID"][:SHOWN_HASH] + " (default)" * _is_default(prepared, row),
        }
        for row in (*done, *failed)
    ]
    combinations = f"{len(rows)} combination{'s' * (len(rows) != 1)}"
    note = f", {pruned} of them pruned" if pruned else ""
    print(f"\n{title}: {combinations} on {prepared.folder.name}{note}\n")
    print(as_markdown(pd.DataFrame(table)))
    for row in failed:
        print(f"{row['hash_ID'][:SHOWN_HASH]} failed: {row['failure']}")


def print_importances(prepared: Search, rows: Sequence[Row], records: Records) -> None:
    """Print the importance of each hyperparameter and draw the slices, if there are enough trials."""
    pruned = [row for row in rows if row["failure"] == PRUNED]
    measured = [*_done(prepared, rows), *pruned]
    found = importances(prepared, measured)
    if not found:
        print(f"\nimportances need {LEAST_TRIALS} finished trials of different values")
        return
    shares = {
        "hyperparameter": list(found),
        "importance": [f"{share:.2f}" for share in found.values()],
    }
    print(f"\n{as_markdown(pd.DataFrame(shares))}\n")
    path = records.path.with_suffix(".png")
    save_figure(slices(prepared, measured, found), path)
    print(path)


def print_best(prepared: Search, rows: Sequence[Row]) -> None:
    """Print the best combination on validation beside the default, and the command that trains it."""
    done = _done(prepared, rows)
    if not done:
        return
    best, metric = done[0], prepared.metric_names[-1]
    values = " ".join(prepared.space.overrides(best["hyperparameters"]))
    title = metric_title(prepared.stages[metric])
    print(
        f"\nbest on validation, {best['hash_ID'][:SHOWN_HASH]}: {title} {decimal(best[metric])}, {values}"
    )
    for row in rows:
        if not _is_default(prepared, row):
            continue
        if row is best:
            print("this is the default: no trial was better")
        elif row["failure"]:
            print(f"the default failed: {row['failure']}")
        else:
            gain = abs(best[metric] - row[metric])
            print(f"the default has {decimal(row[metric])}; the best is better by {decimal(gain)}")
    print(f"matinee {shlex.join(prepared.command(best['hyperparameters']))}")


def _done(prepared: Search, rows: Sequence[Row]) -> list[Row]:
    """Return the trials with metrics, the best on validation first."""
    done = [row for row in rows if not row["failure"]]
    return sorted(done, key=lambda row: (-prepared.goodness(row), row["hash_ID"]))


def _is_default(prepared: Search, row: Row) -> bool:
    return prepared.default is not None and row["hyperparameters"] == prepared.default


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else written(value)
