"""Reports: what runs have shown, as tables beside published figures."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from matinee.configuration import config_dir
from matinee.errors import MatineeError
from matinee.run_folder import RESULT, load_config, read_result

COLUMNS = {"val/rmse": "validation RMSE", "test/rmse": "test RMSE", "test/mae": "test MAE"}


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
        {"metric": name, "now": repr(value), "recorded": repr(recorded.get(name, "-"))}
        for name, value in metrics.items()
    ]
    print_table(pd.DataFrame(rows))
    return dict(metrics) == dict(recorded)


def report(folders: Sequence[Path]) -> str:
    """Tabulate all finished runs below some folders, seeds of one experiment together.

    Args:
        folders: Where to look, at any depth.

    Returns:
        One Markdown table a protocol (data, split and what the figures mean), each under its heading.

    Raises:
        MatineeError: If a folder is missing or no run is found.
    """
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    headings = {}
    for folder in folders:
        if not folder.is_dir():
            raise MatineeError(f"there is no folder {folder}; name folders that hold runs.")
        for path in sorted(folder.rglob(RESULT)):
            result, config = read_result(path.parent), load_config(path.parent)
            protocol = _without_draw(result["protocol"])
            key = json.dumps(protocol, sort_keys=True)
            dataset = str(config.dataset.get("name") or config.dataset.get("path"))
            headings[key] = (dataset, str(protocol["split"]["name"]))
            groups[key][_experiment_key(config)].append({"model": Path(config.name).name, **result})
    if not groups:
        raise MatineeError(
            f"no finished run below {', '.join(map(str, folders))}; train one first."
        )
    published: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "published.yaml"))
    sections = []
    for key, experiments in groups.items():
        dataset, split = headings[key]
        references = published.get(dataset, {}).get(split, {})
        rows = pd.DataFrame([_row(results, references) for results in experiments.values()])
        rows = rows.fillna("").sort_values("validation RMSE", ascending=False, kind="stable")
        table = as_markdown(rows)
        sections.append(f"{dataset}, {split} split\n\n{table}")
    return "\n\n".join(sections)


def as_markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown, columns aligned; what looks like a number stands to the right."""
    cells = [[str(name) for name in table.columns]]
    cells += [
        [str(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)
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


def _row(results: Sequence[Mapping[str, Any]], references: Mapping[str, Any]) -> dict[str, str]:
    model = results[0]["model"]
    row = {"model": model}
    for metric, title in COLUMNS.items():
        values = [result["metrics"][metric] for result in results if metric in result["metrics"]]
        if values:
            row[title] = _number(float(np.mean(values)))
            if len(values) > 1:
                row[title] += f" ± {np.std(values, ddof=1):.4f}"
        reference = references.get(model, {}).get(metric)
        if reference is not None:
            row[f"published {title}"] = f"{reference:.4f}"
    row["seeds"] = str(len(results))
    row["fit s"] = (
        f"{np.median([result['environment']['seconds']['fit'] for result in results]):.1f}"
    )
    return row


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _without_draw(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what differs from one draw of a split to the next."""
    split = {key: protocol["split"][key] for key in ("name", "options")}
    return {**protocol, "split": split}


def _experiment_key(config: DictConfig) -> str:
    """What makes two runs the same but for their seed: the config without seeds, names and places."""

    def without_draw(node: Any) -> Any:
        if isinstance(node, dict):
            drop = {"seed", "name", "log_dir", "run_folder", "dirpath"}
            return {key: without_draw(value) for key, value in node.items() if key not in drop}
        return node

    return json.dumps(without_draw(OmegaConf.to_container(config)), sort_keys=True)
