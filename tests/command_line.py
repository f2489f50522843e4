"""The command line called by tests: here, in this process, or as a process of its own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from matinee import cli


def matinee(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb in this process, in ``cwd``; importing PyTorch again would take seconds."""
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def matinee_process(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user does: a process, its output and its exit status."""
    return subprocess.run(
        [sys.executable, "-m", "matinee", *arguments],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def failed(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """Assert a failure in one sentence and return it."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("matinee: ")]
    assert len(sentences) == 1, done.stderr
    return sentences[0]
