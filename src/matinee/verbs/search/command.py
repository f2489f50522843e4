"""The verb ``matinee search``: a random or guided search, and the table of its results."""

import shlex
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from matinee.config.folders import config_dir
from matinee.config.suggesting import suggest
from matinee.display.markdown import as_markdown, decimal
from matinee.errors import MatineeError
from matinee.verbs.search.records import Records, Row, read_records
from matinee.verbs.search.spaces import hash_id
from matinee.verbs.search.trials import Search, prepare


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
    if config.method == "tpe":
        from matinee.verbs.search.tpe import GuidedSearch

        guided = GuidedSearch(prepared, config.storage)
        if config.hash:
            rerun(prepared, config.hash, guided.rows())
            return
        guided.run()
        title = f"{prepared.name}, guided, {guided.pruned()} more pruned"
        print_rows(prepared, title, guided.rows())
        print(guided.storage)
        return
    path = prepared.folder / f"{prepared.name}.jsonl"
    records = Records(path, prepared.identity, prepared.metric_names)
    if config.hash:
        rerun(prepared, config.hash, list(records.rows().values()))
        return
    search_at_random(prepared, records)
    for path in sorted(prepared.folder.glob(f"{prepared.space.model}-*.jsonl")):
        if path != records.path:
            print_rows(prepared, path.stem, read_records(path, prepared.metric_names)[1])
    print_rows(prepared, prepared.name, list(records.rows().values()))
    print(records.path)


def search_at_random(prepared: Search, records: Records) -> None:
    """Run all drawn combinations without a record, shared with other processes."""
    draws = list(islice(prepared.space.draws(prepared.seed), prepared.trials))
    trials = {hash_id(drawn): (number, drawn) for number, drawn in enumerate(draws)}
    while names := [name for name in trials if name not in records.rows()]:
        with records.claimed(names) as name:
            if name in records.rows():  # another process was faster
                continue
            number, drawn = trials[name]
            print(f"trial {number + 1} of {len(trials)}", end=": ", file=sys.stderr)
            records.add({"trial": number, **prepared.run(drawn)})


def rerun(prepared: Search, name: str, rows: Sequence[Row]) -> None:
    """Run one recorded or published combination again; print its metrics beside the known ones.

    Raises:
        MatineeError: If the hash is unknown.
    """
    recorded = {row["hash_ID"]: row for row in rows}
    published = published_rows(prepared.space.model)
    known = published | recorded
    if name not in known:
        hint = suggest(name, known) or "take one from the file of results."
        raise MatineeError(f"hash={name} is unknown for {prepared.space.model}; {hint}")
    row, names = prepared.run(known[name]["hyperparameters"]), prepared.metric_names
    table = {
        "metric": names,
        "now": [decimal(row[metric]) for metric in names],
        "recorded": [decimal(recorded.get(name, {}).get(metric)) for metric in names],
        "published": [decimal(published.get(name, {}).get(metric)) for metric in names],
    }
    print(as_markdown(pd.DataFrame(table)))
    if name in published:
        print(f"published: {published[name]['source']}")
    if name in recorded:
        same = all(row[metric] == recorded[name][metric] for metric in names)
        print("identical to the record, to the last bit" if same else "not the record")


def published_rows(model: str) -> dict[str, Row]:
    """Return published results of a search for a model, by hash."""
    every: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "published_search.yaml"))
    rows: dict[str, Row] = every.get(model, {})
    return rows


def print_rows(prepared: Search, title: str, rows: Sequence[Row]) -> None:
    """Print the results, the best on validation first, and the command that trains the best."""
    names, headline = prepared.metric_names, prepared.headline

    def order(row: Row) -> tuple[float, str]:
        return -headline.goodness(row[names[1]]), row["hash_ID"]

    done = sorted((row for row in rows if not row["failure"]), key=order)
    failed = [row for row in rows if row["failure"]]
    table = [
        {"hash_ID": row["hash_ID"], **{metric: decimal(row[metric]) for metric in names}}
        for row in (*done, *failed)
    ]
    combinations = f"{len(rows)} combination{'s' * (len(rows) != 1)}"
    print(f"\n{title}: {combinations} on {prepared.folder.name}\n")
    print(as_markdown(pd.DataFrame(table)))
    for row in failed:
        print(f"{row['hash_ID']} failed: {row['failure']}")
    if done:
        best = done[0]
        values = " ".join(f"{name}={value}" for name, value in best["hyperparameters"].items())
        print(f"\nbest on validation, {best['hash_ID']}: {values}")
        print(f"matinee {shlex.join(prepared.command(best['hyperparameters']))}")
