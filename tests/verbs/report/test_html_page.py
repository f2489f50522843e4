"""The HTML page: its content, and how a browser without a network shows it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from matinee.display import plotting
from matinee.verbs.report import figures
from matinee.verbs.report.comparison import compare
from matinee.verbs.report.output import report
from matinee.verbs.report.significance import differences

REFERENCE = Path(__file__).resolve().parents[3] / "lightning_logs" / "reference"
HOSTILE = 'Amélie, "the <script>alert(1)</script>" & $\\frac{1}$\tone\ntwo — 映画'
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Parses a page, checks that its elements nest, and keeps what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attributes) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "td" in self.open:
            self.cells[-1] += data


def made(folder: Path, file: Path) -> Page:
    report([folder], html=file)
    return Page(file.read_text())


@pytest.fixture(scope="module")
def reference_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    report([REFERENCE], save=folder, html=folder / "report.html")
    return folder / "report.html"


def test_the_page_contains_everything_and_requests_nothing(reference_page: Path) -> None:
    page = Page(reference_page.read_text())
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.count["section"] == 4 and page.count["svg"] == 12
    for line in (reference_page.parent / "report.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| model"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            start = page.cells.index(cells[0])
            while page.cells[start : start + len(cells)] != cells:
                start = page.cells.index(cells[0], start + 1)


def test_any_text_survives(write_run, tmp_path: Path) -> None:
    dataset = {"name": HOSTILE}
    write_run("a", overrides=(f"model.title={HOSTILE}",), dataset=dataset)
    write_run("b", model="best", validation=0.5, dataset=dataset, model_title=HOSTILE)
    run = write_run("c", model="c", validation=0.4, dataset=dataset, protocol={"ties": HOSTILE})
    (run / "metrics.csv").write_text("epoch,val/rmse\n0,2.0\n1,1.0\n")
    (tmp_path / "b/metrics.csv").write_text("epoch,val/rmse\n0,2.0\n1,1.0\n")
    page = made(tmp_path, tmp_path / "page.html")
    assert page.count["script"] == 1 and page.count["section"] == 2
    assert page.cells.count(f"mf model.title={HOSTILE}") == 2


def test_what_is_missing_is_left_out(write_run, tmp_path: Path) -> None:
    write_run("a", model="a")
    (write_run("b", model="b") / "per_user.npz").unlink()
    other = write_run("c", model="c", protocol={"ties": "of another kind"})
    result = json.loads((other / "result.json").read_text())
    result["metrics"] = {"test/other": 0.5}
    (other / "result.json").write_text(json.dumps(result))
    page = made(tmp_path, tmp_path / "new/page.html")
    assert page.count["section"] == 2 and page.count["svg"] == 1
    text = (tmp_path / "new/page.html").read_text()
    assert "per_user.npz is missing" in text
    assert "How differences are computed" not in text


def test_curves_are_means_of_what_all_seeds_reached(write_run, tmp_path: Path) -> None:
    for seed, values in ((0, (4, 2, 1)), (1, (6, 4))):
        rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values))
        (write_run(f"{seed}", seed=seed) / "metrics.csv").write_text(f"epoch,val/rmse\n{rows}")
    (comparison,), _ = compare([tmp_path])
    figure = figures.curves(comparison)
    assert figure is not None
    (line,) = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1, 5], [2, 3]]


def test_figures_show_the_tables_numbers() -> None:
    (comparison,), _ = compare([REFERENCE / "ml-100k/random"])
    board = figures.leaderboard(comparison).axes[0]
    labels = [label.get_text() for label in board.get_yticklabels()]
    assert labels == [experiment.label for experiment in comparison.groups]
    centres = {(round(x, 6), y) for line in board.lines for x, y in line.get_xydata()}
    for row, experiment in enumerate(comparison.groups):
        assert (round(experiment.mean("test/rmse"), 6), row) in centres
        assert {(round(v, 6), row - 0.25) for v in experiment.values("test/rmse")} <= centres
    assert (0.9924, labels.index("mf_bias")) in centres
    found, _ = differences(comparison)
    apart = figures.differences(comparison, found).axes[0]
    ends = [tuple(line.get_xdata()) for line in apart.lines]
    assert all((entry.low, entry.high) in ends for entry in found.values())


def test_a_tall_figure_has_its_scale_at_both_ends(write_run, tmp_path: Path) -> None:
    for index in range(figures.TALL):
        write_run(f"{index}", model=f"m{index}", validation=float(index))
    ((comparison,), _) = compare([tmp_path])
    ticks = figures.leaderboard(comparison).axes[0].xaxis.get_tick_params()
    assert ticks["top"] and ticks["labeltop"] and ticks["bottom"] and ticks["labelbottom"]
    (short,), _ = compare([tmp_path / "0", tmp_path / "1"])
    assert not figures.leaderboard(short).axes[0].xaxis.get_tick_params()["labeltop"]


def test_the_caption_of_the_curves_says_which_are_drawn(write_run, tmp_path: Path) -> None:
    for index in range(figures.MOST_CURVES + 1):
        folder = write_run(f"{index}", model=f"m{index}", validation=float(index))
        (folder / "metrics.csv").write_text("epoch,val/rmse\n0,2.0\n1,1.0\n")
    made(tmp_path, tmp_path / "page.html")
    assert "the best 7 of those with at least two epochs" in (tmp_path / "page.html").read_text()
    made(tmp_path / "0", tmp_path / "page.html")
    assert "all of those with at least two epochs" in (tmp_path / "page.html").read_text()


# ---- in a browser

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
WIDTHS = {1280: "a desktop", 688: "a printed sheet", 400: "a phone"}
FRAMES = """<!DOCTYPE html><title>frames</title><body><script>
const found = {};
addEventListener("message", (event) => {
  found[event.data.width] = event.data;
  document.body.dataset.found = JSON.stringify(found);
});
</script>""" + "".join(
    f'<iframe src="page.html" width="{width}" height="900" style="border: 0"></iframe>'
    for width in WIDTHS
)
PROBE = """<script>
addEventListener("load", () => {
  const table = document.querySelector("table");
  const models = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const buttons = [...table.querySelectorAll("th button")];
  const click = (title) => buttons.find((button) => button.textContent === title).click();
  const found = {
    width: innerWidth, needed: document.documentElement.scrollWidth, orders: [models()],
    asked: performance.getEntriesByType("resource").length,
  };
  for (const title of ["fit s", "fit s", "model"]) { click(title); found.orders.push(models()); }
  found.sorted = table.querySelectorAll("[aria-sort=ascending]").length;
  found.broken = [];
  const overlap = (a, b) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    return wide > 1 && high > 0.3 * Math.min(a.height, b.height);
  };
  const check = (elements, inside) => {
    const boxes = elements.filter((one) => one.textContent.trim() && one.checkVisibility())
      .map((one) => [one.textContent.trim(), one.getBoundingClientRect()]);
    boxes.forEach(([text, box], index) => {
      if (inside && (box.left < inside.left - 1 || box.right > inside.right + 1))
        found.broken.push(`${text} is cut`);
      for (const [other, place] of boxes.slice(index + 1))
        if (overlap(box, place)) found.broken.push(`${text} is on ${other}`);
    });
  };
  check([...document.querySelectorAll("h1, h2, h3, p, dt, dd, li, td, th, figcaption, summary")]);
  for (const svg of document.querySelectorAll("svg"))
    check([...svg.querySelectorAll("text")], svg.getBoundingClientRect());
  parent.postMessage(found, "*");
});
</script>"""


def browse(file: Path) -> tuple[str, list[str]]:
    """Load a file without a network; return the document it became and what the console said."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000",
            f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@in_browser
def test_a_browser_reports_no_errors(reference_page: Path) -> None:
    document, console = browse(reference_page)
    assert console == []
    assert '<button type="button">' in document and "disabled=" not in document


@in_browser
def test_no_other_script_runs(reference_page: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    shown = reference_page.read_text()
    file.write_text(shown.replace("</body>", "<script>document.title='taken'</script></body>"))
    document, console = browse(file)
    assert "<title>matinee report</title>" in document and len(console) == 1


def every_figure() -> dict[str, Figure]:
    """Draw every figure of the package with as many and as long labels as they may get."""
    rng = np.random.default_rng(0)
    counts, errors = rng.integers(0, 2**15, 9000), rng.normal(size=9000)
    counts[0] = 1  # the only one in its bin
    stars = rng.integers(1, 6, 9000).astype(float)
    line = pd.DataFrame({"value": 2 ** np.arange(8), "mean": 0.5, "deviation": 0.1})
    line["parameters"] = line["value"] * 12_345
    rates = np.geomspace(1e-6, 1, 99)
    return {
        "by": plotting.metric_by(counts, errors**2, "times the item is in train", "squared error"),
        "errors": plotting.rating_errors(stars, stars + errors),
        "halves": plotting.rating_errors(stars / 2 - (counts % 2) / 4, stars + errors),
        "ranks": plotting.rank_histogram(np.sort(counts + 1.0), 2**15),
        "tail": plotting.long_tail(np.sort(counts)[::-1] + 1, "users, the most active first"),
        "histogram": plotting.histogram(stars, "rating"),
        "rates": plotting.learning_rate_curve(rates, rates, rates, 50, 0.003),
        "sweep": plotting.sweep_curve(
            "model.embedding_dim", {"loss mse": line, "loss huber": line}, "validation RMSE"
        ),
    }


@in_browser
def test_the_page_fits_and_its_tables_sort(reference_page: Path, tmp_path: Path) -> None:
    """On a desktop, on paper and on a phone; frames, because windows cannot be so narrow.

    No text is cut or lies on another one, in the page and in the figures of TensorBoard.
    """
    text = re.sub(r"<meta http-equiv[^>]*>", "", reference_page.read_text())
    assert "@media print" in text
    text = text.replace("@media print", "@media (width: 688px)")
    drawn = (f"<figure>{plotting.as_svg(f, name)}</figure>" for name, f in every_figure().items())
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{''.join(drawn)}{PROBE}</body>"))
    (tmp_path / "frames.html").write_text(FRAMES)
    document, console = browse(tmp_path / "frames.html")
    assert console == []
    quoted = re.search(r'data-found="([^"]*)"', document)
    assert quoted is not None
    every = json.loads(quoted[1].replace("&quot;", '"'))
    assert set(every) == set(map(str, WIDTHS))
    for width, found in every.items():
        assert found["needed"] <= int(width) and found["asked"] == 0
        assert found["broken"] == [], WIDTHS[int(width)]
        before, ascending, descending, by_name = found["orders"]
        assert before[0] == "blend" and before[-1] == "popularity"
        assert ascending == descending[::-1] and ascending[:2] == ["popularity", "markov"]
        assert by_name == sorted(before) and found["sorted"] == 1
