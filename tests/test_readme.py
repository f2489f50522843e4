"""The README's tables are those that the committed runs make."""

from pathlib import Path

from matinee.verbs.report.output import report

ROOT = Path(__file__).resolve().parents[1]


def test_tables_come_from_the_committed_runs() -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    reported = report([ROOT / "lightning_logs" / "reference"]).splitlines()
    shown = [line for line in readme if line in reported and line.startswith("| ")]
    rows = {line for line in reported if line.startswith("| ")}
    for model in ("mf_bias", "ncf", "gru", "attention", "popularity"):
        assert any(line.startswith(f"| {model} ") for line in shown), model
    stated = [line for line in readme if "±" in line and line.startswith("|")]
    assert stated
    assert all(line in rows for line in stated)
