"""Reports: what runs have shown, as tables beside published figures."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from matinee.configuration import config_dir
from matinee.errors import MatineeError
from matinee.run_folder import OVERRIDES, RESULT, load_config, read_result

COLUMNS = {
    "val/rmse": "validation RMSE",
    "test/rmse": "test RMSE",
    "test/mae": "test MAE",
    "val/mrr": "validation MRR",
    "test/mrr": "test MRR",
    "test/recall@10": "test Recall@10",
    "test/ndcg@10": "test NDCG@10",
}
# overrides that the table tells by its heading, its label or its seeds
TOLD = (
    "experiment",
    "model",
    "seed",
    "name",
    "log_dir",
    "run_folder",
    "dataset",
    "split",
    "trainer",
)


def print_table(table: pd.DataFrame) -> None:
    """Print a table with aligned columns, numbers to the right."""
    print(as_markdown(table))


def print_run(folder: Path) -> None:
    """Print the figures of a finished run; the last line is its folder."""
    metrics = read_result(folder)["metrics"]
    stages = list(dict.fromkeys(name.split("/")[0] for name in metrics))
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics))
    rows = [
        {"metric": name, **{stage: _number(metrics.get(f"{stage}/{name}")) for stage in stages}}
        for name in names
    ]
    print_table(pd.DataFrame(rows))
    print(folder)


def print_evaluation(metrics: Mapping[str, float], recorded: Mapping[str, float]) -> bool:
    """Print figures beside the recorded ones.

    Returns:
        Whether they are the very same.
    """
    rows = [
        {
            "metric": name,
            "now": f"{value:.6f}",
            "recorded": f"{recorded[name]:.6f}" if name in recorded else "",
        }
        for name, value in metrics.items()
    ]
    print_table(pd.DataFrame(rows))
    same = all(metrics[name] == recorded[name] for name in metrics.keys() & recorded)
    if same:
        print("identical to the record, to the last bit")
    else:
        differences = {
            name: abs(metrics[name] - recorded[name]) for name in metrics.keys() & recorded
        }
        name = max(differences, key=differences.__getitem__)
        print(
            f"not the record of the best checkpoint; {name} differs most, by {differences[name]:.2g}"
        )
    return same


def report(folders: Sequence[Path]) -> str:
    """Tabulate all finished runs below some folders, seeds of one experiment together.

    Args:
        folders: Where to look, at any depth.

    Returns:
        One Markdown table a protocol (data, split and what the figures mean), each under its heading.

    Raises:
        MatineeError: If a folder is missing or no run is found.
    """
    tables: dict[str, dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for folder in folders:
        if not folder.is_dir():
            raise MatineeError(f"there is no folder {folder}; name folders that hold runs.")
        for path in sorted(folder.rglob(RESULT), key=lambda path: path.parent.name):
            result, config = read_result(path.parent), load_config(path.parent)
            dataset = _dataset_name(config.dataset)
            protocol = json.dumps([dataset, _without_draw(result["protocol"])], sort_keys=True)
            label = _label(path.parent, config.name)
            # of two runs of one seed the later one counts
            tables[protocol][label + _without_seed(config)][config.seed] = {
                **result,
                "label": label,
            }
    if not tables:
        raise MatineeError(
            f"no finished run below {', '.join(map(str, folders))}; train one first."
        )
    sections = []
    for key, experiments in tables.items():
        dataset, protocol = json.loads(key)
        sections.append(_section(dataset, protocol, experiments))
    return "\n\n".join(sections)


def _section(
    dataset: str, protocol: Mapping[str, Any], experiments: Mapping[str, Mapping[int, Any]]
) -> str:
    split = protocol["split"]
    references = _published(dataset, protocol)
    rows = pd.DataFrame([_row(list(runs.values()), references) for runs in experiments.values()])
    first = rows.columns[1]
    rows = rows.sort_values(first, ascending="RMSE" not in first, kind="stable")
    last = [*(name for name in rows.columns if name.startswith("published")), "seeds", "fit s"]
    rows = rows[[*(name for name in rows.columns if name not in last), *last]].fillna("")
    return f"{dataset}, {split['name']} split\n\n{as_markdown(rows)}"


def _published(dataset: str, protocol: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return published figures by model and metric, if data and split are those of the source."""
    every: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "published.yaml"))
    known = every.get(dataset, {})
    split = known.get(protocol["split"]["name"], {})
    same_data = known.get("sha256") == protocol["dataset"]["sha256"]
    if not same_data or split.get("options") != protocol["split"]["options"]:
        return {}
    figures: dict[str, dict[str, float]] = split["figures"]
    return figures


def as_markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown, columns aligned; what looks like a number stands to the right."""
    cells = [[str(name) for name in table.columns]]
    cells += [
        [one_line(str(value)).replace("|", "\\|") for value in row]
        for row in table.itertuples(index=False)
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numeric = [
        all(row[column][:1].isdigit() or not row[column] for row in cells[1:])
        for column in range(len(widths))
    ]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        + " |"
        for row in cells
    ]
    rule = (
        "-" * (width + 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    )
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


def one_line(text: str) -> str:
    """Turn tabs, newlines and runs of spaces into single spaces."""
    return " ".join(text.split())


def _row(results: Sequence[Mapping[str, Any]], references: Mapping[str, Any]) -> dict[str, str]:
    label = str(results[0]["label"])
    row = {"model": label}
    for metric, title in COLUMNS.items():
        values = [result["metrics"][metric] for result in results if metric in result["metrics"]]
        if values:
            row[title] = _number(float(np.mean(values)))
            if len(values) > 1:
                row[title] += f" ± {np.std(values, ddof=1):.4f}"
        reference = references.get(label, {}).get(metric)
        if reference is not None:
            row[f"published {title}"] = f"{reference:.4f}"
    row["seeds"] = str(len(results))
    row["fit s"] = (
        f"{np.median([result['environment']['seconds']['fit'] for result in results]):.1f}"
    )
    return row


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _label(folder: Path, name: str) -> str:
    """Name a run by its experiment or model, and by what was changed on top of it."""
    overrides: Any = OmegaConf.to_container(OmegaConf.load(folder / OVERRIDES))
    changes = [entry for entry in map(str, overrides) if re.split(r"[.=]", entry)[0] not in TOLD]
    return " ".join([Path(name).name, *changes])


def _dataset_name(dataset: DictConfig) -> str:
    reader = str(dataset._target_).removeprefix("matinee.sources.")
    if reader.startswith("subset."):
        return f"part of {_dataset_name(dataset.source)}"
    if reader.startswith("lastfm."):
        return "lastfm-1k"
    if reader.startswith("synthetic."):
        return reader.removeprefix("synthetic.")
    return str(dataset.get("name") or Path(dataset.get("path") or "made up").name)


def _without_draw(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what differs from one draw of a split to the next."""
    split = {key: protocol["split"][key] for key in ("name", "options")}
    kept = {key: value for key, value in protocol.items() if key != "evaluated_windows"}
    return {**kept, "split": split}


def _without_seed(config: DictConfig) -> str:
    """What makes two runs the same but for their seed: the config without seeds, names and places."""
    drop = {"seed", "name", "log_dir", "run_folder", "data_dir", "path"}

    def kept(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: kept(value) for key, value in node.items() if key not in drop}
        return node

    return json.dumps(kept(OmegaConf.to_container(config)), sort_keys=True)
