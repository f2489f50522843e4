"""A service: answers equal to the run's, limits, malformed questions, reloads, and its page."""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from matinee.errors import MatineeError
from matinee.experiment import building
from matinee.verbs.export.command import write_artefact
from matinee.verbs.predict import predict_ratings
from matinee.verbs.recommend import recommend
from matinee.verbs.serve.app import create_app
from matinee.verbs.serve.batching import Batcher
from matinee.verbs.serve.command import listen
from matinee.verbs.serve.limits import MOST_BYTES
from matinee.verbs.serve.sources import ArtefactSource, Asked, RunSource, Source

SEQUENCE = ("model=markov", "split=user_based", "data=sequence", "task=next_item", "loss=softmax")
GRU = ("model=gru", "model.embedding_dim=8", "data.eval_length=6", "data.eval_targets=last",
       "data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out")  # fmt: skip
JOINT = ("model=joint", "task=joint", "task.headline=mrr", "data=live", "split=chronological")
LISTENING = ("model=listening", "data=live", "task=live", "split=chronological")
ROOT = Path(__file__).parents[2]
NASTY = '<img src=x onerror="document.title=1">'


@pytest.fixture
def loaded(_trained_once) -> building.Experiment:
    return building.load_run(_trained_once(*SEQUENCE))


@pytest.fixture
def rated(_trained_once) -> building.Experiment:
    return building.load_run(_trained_once("model=mf_bias", "trainer.max_epochs=8", "split=random"))


@pytest.fixture(scope="session")
def _artefact_once(_trained_once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = _trained_once(*SEQUENCE)
    folder = tmp_path_factory.mktemp("served") / "artefact"
    write_artefact(building.load_run(run), run, folder, checks=20)
    return folder


@pytest.fixture
def artefact(_artefact_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_artefact_once, tmp_path / "artefact"))


class Asking:
    """A client of a service in this process; an error inside becomes a status of 500."""

    def __init__(self, source: Source, token: str | None = None) -> None:
        self.app = create_app(lambda: source, source, token)

    def request(self, method: str, path: str, **options) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as asking:
                return await asking.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str, **options) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return self.request("POST", path, **options)


def test_recommendations_are_those_of_the_verb(loaded, artefact: Path) -> None:
    for source in (RunSource(loaded), ArtefactSource(artefact)):
        asking = Asking(source)
        for question in ({"user": "u7"}, {"history": [103, 110, 121]}, {}):
            answer = asking.post("/recommend", json={**question, "top_k": 7}).json()
            expected = recommend(loaded, top_k=7, **question)
            assert [item["item"] for item in answer["items"]] == expected["item"].tolist()
            assert [item["title"] for item in answer["items"]] == expected["title"].tolist()
            found = [item["value"] for item in answer["items"]]
            assert found == pytest.approx(expected["score"].tolist(), abs=1e-5)


def test_ratings_of_a_newcomer_count_at_once(rated) -> None:
    asking = Asking(RunSource(rated))
    for stars in (5.0, 1.0):
        ratings = [{"item": item, "rating": stars} for item in (100, 101, 102)]
        answer = asking.post("/recommend", json={"ratings": ratings, "top_k": 5}).json()
        expected = recommend(rated, ratings=dict.fromkeys((100, 101, 102), stars), top_k=5)
        assert [item["item"] for item in answer["items"]] == expected["item"].tolist()
        assert answer["measure"] == "predicted_rating"
    answer = asking.post("/predict", json={"users": ["u3", "nobody"], "items": [100, 102]}).json()
    expected = predict_ratings(rated, ["u3", "nobody"], [100, 102])
    assert answer["ratings"] == pytest.approx(expected.tolist())
    assert asking.post("/predict", json={"users": [], "items": []}).json() == {"ratings": []}


@pytest.mark.parametrize(
    ("run", "kind"), [(GRU, "history"), (LISTENING, "ratings"), (JOINT, "ratings")]
)
def test_one_more_item_takes_one_step(
    finished: Callable[..., Path], run: tuple[str, ...], kind: str
) -> None:
    """A gru that is evaluated on the newest five items, and two that listen to all ratings."""
    folder = finished(*run)
    fresh, source = building.load_run(folder), RunSource(building.load_run(folder))
    asking, steps = Asking(source), [0]
    met = [104, 120, 101, 133, 109, 117, 102]
    stars = [5.0, 1.0, 4.5, 2.0, 5.0, 3.0, 1.0]
    for count in range(1, 8):
        if kind == "history":
            given, known = met[:count], met[:count]
        else:
            pairs = list(zip(met[:count], stars[:count], strict=True))
            given, known = [{"item": item, "rating": rating} for item, rating in pairs], dict(pairs)
        answer = asking.post("/recommend", json={kind: given, "top_k": 5}).json()["items"]
        expected = recommend(fresh, **{kind: known}, top_k=5)
        assert [one["item"] for one in answer] == expected["item"].tolist()
        values = expected[fresh.task.score_name].tolist()
        assert [one["value"] for one in answer] == pytest.approx(values, abs=1e-5)
        steps.append(source.experiment.task.network.carried.steps)
    # the empty history is a step as well; a window that slides has another first item, so it is read again
    once = [2, 1, 1, 1, 1]
    assert np.diff(steps).tolist() == [*once, *([6, 6] if kind == "history" else [1, 1])]
    answer = asking.post("/recommend", json={"user": "u7", "top_k": 5}).json()["items"]
    assert [one["item"] for one in answer] == recommend(fresh, user="u7", top_k=5)["item"].tolist()


def test_allowed_denied_and_met_items(loaded) -> None:
    asking = Asking(RunSource(loaded))

    def items(**question) -> list:
        return [one["item"] for one in asking.post("/recommend", json=question).json()["items"]]

    assert set(items(allow=[105, 106, 107], deny=[106])) == {105, 107}
    assert 103 not in items(history=[103], top_k=100)
    assert 103 in items(history=[103], top_k=100, repeat=True)
    assert items(history=[103], allow=[103]) == []


def test_why_leaves_one_item_out_at_a_time(loaded) -> None:
    source = RunSource(loaded)
    history = [103, 110, 121]
    ids = loaded.datamodule.interactions.encode_items(history).astype(np.int64)
    whole = source.score([Asked(0, ids)])[0]
    item = int(np.argmax(whole))
    falls = [whole[item] - source.score([Asked(0, np.delete(ids, k))])[0][item] for k in range(3)]
    falls = np.maximum(falls, 0)
    raw = source.raw_items[item - 1]
    answer = Asking(source).post("/why", json={"history": history, "item": raw}).json()["items"]
    found = {one["item"]: one["share"] for one in answer}
    for met, fall in zip(history, falls, strict=True):
        assert found[met] == pytest.approx(fall / max(falls.sum(), 1e-9), abs=1e-5)


def test_a_model_that_ranks_after_ratings_needs_them(finished: Callable[..., Path]) -> None:
    asking = Asking(RunSource(building.load_run(finished(*JOINT))))
    ratings = [{"item": item, "rating": stars} for item, stars in ((103, 5.0), (110, 1.0))]
    assert asking.get("/health").json()["rating_scale"] == [1.0, 5.0]
    outside = {"ratings": [{"item": 103, "rating": 1e30}]}
    assert "outside the scale" in asking.post("/recommend", json=outside).json()["error"]
    item = asking.post("/recommend", json={"ratings": ratings}).json()["items"][0]["item"]
    shares = asking.post("/why", json={"ratings": ratings, "item": item}).json()["items"]
    assert {one["item"] for one in shares} == {103, 110}
    unexplained = asking.post("/why", json={"user": "u7", "item": item})
    assert unexplained.status_code == 422 and "give ratings" in unexplained.text
    assert sum(one["share"] for one in shares) == pytest.approx(1)


def test_an_item_that_is_not_in_train_is_like_no_other(rated, monkeypatch) -> None:
    warm = rated.task.warm_items.clone()
    warm[rated.datamodule.interactions.encode_items([104])] = False
    monkeypatch.setattr(rated.task, "warm_items", warm)
    answer = Asking(RunSource(rated)).post("/similar", json={"item": 104})
    assert 400 <= answer.status_code < 500 and "not in train" in answer.text


def test_similar_items_titles_health_and_metrics(loaded, rated, artefact: Path) -> None:
    for source, measure in (
        (RunSource(loaded), "score"),
        (RunSource(rated), "cosine"),
        (ArtefactSource(artefact), "score"),
    ):
        asking = Asking(source)
        answer = asking.post("/similar", json={"item": 104, "top_k": 3}).json()
        assert answer["measure"] == measure and len(answer["items"]) == 3
        assert 104 not in [one["item"] for one in answer["items"]]
        found = asking.get("/items", params={"query": "12"}).json()["items"]
        assert found and all("12" in one["title"] for one in found)
        assert asking.get("/items", params={"query": "no such title"}).json() == {"items": []}
        assert asking.get("/health").json()["items"] == 40
        assert 'path="/similar",status="200"' in asking.get("/metrics").text
        assert "/recommend" in asking.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("path", "question", "status", "sentence"),
    [
        ("/recommend", {"user": "nobody"}, 404, "user 'nobody' is not in the data"),
        ("/recommend", {"history": [9]}, 404, "item 9 is not in the data"),
        ("/recommend", {"history": ["\ud800"]}, 422, "history.0"),
        ("/recommend", {"user": "u1", "history": [100]}, 422, "user and history cannot be comb"),
        ("/recommend", {"ratings": [{"item": 100, "rating": 3}]}, 422, "cannot use ratings"),
        ("/recommend", {"top_k": 0}, 422, "top_k: "),
        ("/recommend", {"top_k": True}, 422, "top_k: "),
        ("/recommend", {"history": [True]}, 422, "history"),
        ("/recommend", {"history": [100] * 1001}, 422, "at most 1000"),
        ("/recommend", {"typo": 1}, 422, "typo"),
        ("/predict", {"users": ["u1"], "items": [100]}, 422, "rates none"),
        ("/predict", {"users": [], "items": []}, 422, "rates none"),
        ("/predict", {"users": ["u1"], "items": []}, 422, "different lengths"),
        ("/similar", {"item": 9}, 404, "item 9 is not in the data"),
        ("/nothing", {}, 404, "no such path"),
        ("/health", {}, 405, "another method"),
        ("/reload", {}, 403, "reloading is off"),
    ],
)
def test_bad_questions_get_one_sentence(loaded, path, question, status, sentence) -> None:
    body = json.dumps(question).encode()
    headers = {"content-type": "application/json"}
    answer = Asking(RunSource(loaded)).post(path, content=body, headers=headers)
    assert answer.status_code == status and sentence in answer.json()["error"]


def test_a_large_body_is_not_read(loaded) -> None:
    answer = Asking(RunSource(loaded)).post("/recommend", content=b" " * (MOST_BYTES + 1))
    assert answer.status_code == 413 and "more than 1048576 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{'user': 1}", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/x-www-form-urlencoded"),  # what curl -d sends unless told otherwise
    ],
)
def test_a_body_that_is_no_json_object(loaded, body, kind) -> None:
    headers = {"content-type": kind}
    answer = Asking(RunSource(loaded)).post("/recommend", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(
        "the body is no JSON object; send one, with content-type"
    )


def test_malformed_requests_never_break_the_service(loaded) -> None:
    """1,000 random bodies, paths and methods: no 5xx, nothing leaks, each 4xx is one sentence."""
    leaks = ("Traceback", socket.gethostname(), str(Path.home()), sys.prefix, str(ROOT), ".py")
    refused = 0
    draw = random.Random(0)
    asking = Asking(RunSource(loaded), token="secret")
    paths = [
        "/recommend",
        "/predict",
        "/similar",
        "/why",
        "/items",
        "/health",
        "/reload",
        "/x",
        "/",
    ]
    keys = [
        "user",
        "history",
        "ratings",
        "allow",
        "deny",
        "top_k",
        "repeat",
        "users",
        "items",
        "item",
    ]
    leaves = [
        None, True, -1, 0, 7, 1.5, 1e308, 10**30, "", "u1", "\x00", "\ud800", NASTY, "9" * 300,
        100, 101, "100", [], {}, [[]], {"item": 100, "rating": 3}, float("nan"), float("inf"),
    ]  # fmt: skip

    def value():
        return (
            draw.choice(leaves)
            if draw.random() < 0.6
            else draw.choices(leaves, k=draw.randrange(4))
        )

    for _ in range(1000):
        content = json.dumps(
            {draw.choice(keys): value() for _ in range(draw.randrange(4))}
        ).encode()
        kind = draw.randrange(6)
        if kind == 0:
            content = draw.randbytes(draw.randrange(60))
        elif kind == 1:
            content = content[: draw.randrange(len(content) + 1)]
        elif kind == 2:
            content = b"[" * 5000
        answer = asking.request(
            draw.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE"]),
            draw.choice(paths),
            content=content,
            params={draw.choice(["query", "limit"]): draw.choice(["1", "-1", "x" * 300, NASTY])},
            headers={"content-type": draw.choice([b"application/json", b"text/plain", b"\xff"])},
        )
        assert answer.status_code < 500, (answer.text, content)
        if answer.status_code >= 400:
            refused += 1
            ((name, sentence),) = answer.json().items()
            assert name == "error" and re.fullmatch(r"\S[^\n]*[^.\n]\.", sentence), sentence
            assert not [leak for leak in leaks if leak in answer.text], answer.text
    assert refused > 500
    assert asking.post("/recommend", json={"user": "u1"}).status_code == 200


def test_a_failure_inside_tells_no_details(loaded, monkeypatch, capsys) -> None:
    source = RunSource(loaded)
    monkeypatch.setattr(source, "find_items", lambda *_: os.stat("/secret/of/this/machine"))
    asking = Asking(source)
    answer = asking.get("/items")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the service failed to answer; its log says why."}
    assert answer.headers["cache-control"] == "no-store"
    assert "/secret/of/this/machine" in capsys.readouterr().err
    assert 'path="/items",status="500"' in asking.get("/metrics").text


def test_an_answer_that_takes_too_long_is_given_up(loaded, monkeypatch) -> None:
    monkeypatch.setattr("matinee.verbs.serve.limits.SECONDS", 0.0)
    answer = Asking(RunSource(loaded)).post("/recommend", json={"history": [103]})
    assert answer.status_code == 503 and "took too long" in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"


def test_waiting_questions_share_a_batch(loaded) -> None:
    source, sizes = RunSource(loaded), []

    async def ask() -> list:
        batcher = Batcher(source, sizes.append)
        asked = [Asked(0, np.array([item], np.int64)) for item in range(1, 21)]
        return await asyncio.gather(*(batcher.answer(one, np.copy) for one in asked))

    together = asyncio.run(ask())
    assert sum(sizes) == 20 and max(sizes) > 1
    for item, scores in enumerate(together, start=1):
        alone = source.score([Asked(0, np.array([item], np.int64))])[0]
        np.testing.assert_allclose(scores, alone, atol=1e-6)


def test_a_question_that_fails_does_not_fail_others(loaded) -> None:
    source = RunSource(loaded)

    async def ask() -> list:
        batcher = Batcher(source, lambda size: None)
        asked = [Asked(0, np.array([1])), Asked(0, np.array([10**6])), Asked(0, np.array([2]))]
        return await asyncio.gather(
            *(batcher.answer(one, np.copy) for one in asked), return_exceptions=True
        )

    first, wrong, last = asyncio.run(ask())
    assert isinstance(wrong, Exception)
    assert len(first) == len(last) == 41


def test_a_reload_loses_no_request(loaded, artefact: Path, capsys) -> None:
    sources = iter([RunSource(loaded), *(ArtefactSource(artefact) for _ in range(5))])
    made = create_app(lambda: next(sources), token="secret")
    headers = {"authorization": "Bearer secret"}

    async def load() -> list[int]:
        transport = httpx.ASGITransport(made)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as asking:
            questions = [asking.post("/recommend", json={"history": [103]}) for _ in range(60)]
            reloads = [asking.post("/reload", headers=headers) for _ in range(5)]
            answers = await asyncio.gather(*questions[:20], *reloads, *questions[20:])
            wrong = await asking.post("/reload", headers={"authorization": "Bearer public"})
            assert wrong.status_code == 401
            return [answer.status_code for answer in answers]

    assert set(asyncio.run(load())) == {200}
    assert isinstance(made.state.batcher.source, ArtefactSource)
    assert capsys.readouterr().out.count("now serving") == 5


def test_a_changed_artefact_is_refused(artefact: Path) -> None:
    with (artefact / "items.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(Exception, match=r"items\.jsonl is not what the manifest records"):
        ArtefactSource(artefact)
    with pytest.raises(Exception, match="is no artefact"):
        ArtefactSource(artefact.parent)


class Server:
    """A service in a process of its own, at a free port."""

    def __init__(self, *arguments: str, token: str = "secret") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "matinee", "serve", *arguments, "port=0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "MATINEE_TOKEN": token},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.split()[-1]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()


@pytest.mark.slow
def test_reloads_kills_and_ends_lose_no_request(artefact: Path) -> None:
    questions = ({"history": [103]}, {"history": [110, 121], "top_k": 5}, {"user": "u7"}, {})
    with Server(f"artefact={artefact}") as server:
        assert "serving the artefact" in server.line
        first = [server.client.post("/recommend", json=one).json() for one in questions]
        server.process.kill()
    with Server(f"artefact={artefact}") as server:
        again = [server.client.post("/recommend", json=one).json() for one in questions]
        assert again == first
        done, answers = threading.Event(), []

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=60) as asking:
                while not done.is_set():
                    answers.append(asking.post("/recommend", json=questions[0]))

        def reloads() -> int:
            counted = re.search(r"matinee_reloads_total (\d+)", server.client.get("/metrics").text)
            return int(counted[1]) if counted else 0

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for count in range(10):
            if count % 2:
                server.process.send_signal(signal.SIGHUP)
            else:
                headers = {"authorization": "Bearer secret"}
                assert server.client.post("/reload", headers=headers).status_code == 200
            assert "now serving" in server.process.stdout.readline()
            assert reloads() == count + 1
        with (artefact / "items.jsonl").open("a") as file:
            file.write("\n")  # no longer what the manifest records
        server.process.send_signal(signal.SIGHUP)
        assert "the old model stays: " in server.process.stdout.readline()
        done.set()
        for thread in threads:
            thread.join()
        assert len(answers) >= 3 and {answer.status_code for answer in answers} == {200}
        expected = [one["item"] for one in first[0]["items"]]
        for answer in answers:
            assert [one["item"] for one in answer.json()["items"]] == expected

        body = json.dumps(questions[0]).encode()
        head = "POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as begun:
            begun.sendall(head.encode() + body[:3])
            server.client.get("/health")  # the request has begun before this is answered
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                while True:  # until no connection is accepted any more
                    socket.create_connection(("127.0.0.1", port)).close()
            begun.sendall(body[3:])
            assert begun.recv(100).startswith(b"HTTP/1.1 200")
        assert server.process.wait(60) in (0, 143, -signal.SIGTERM)


def test_the_command_needs_one_source(tmp_path: Path) -> None:
    from command_line import failed, matinee

    assert "give run=FOLDER or artefact=FOLDER" in failed(matinee("serve", cwd=tmp_path))
    assert "is no artefact" in failed(matinee("serve", "artefact=nowhere", cwd=tmp_path))


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            MatineeError, match=rf"port={port}: Address already in use; give another"
        ):
            listen("127.0.0.1", port)


@pytest.fixture
def browser(tmp_path: Path):
    """Return a function that opens headless Chromium; the test is skipped only where there is none."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    opened = []

    def open_browser(width: int = 1200, dark: bool = False):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
            options.add_argument(f"--{option}")
        options.add_argument(f"--user-data-dir={tmp_path / f'profile{len(opened)}'}")
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        opened.append(chrome)
        chrome.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        return chrome

    yield open_browser
    for chrome in opened:
        chrome.quit()


@pytest.fixture
def serving():
    """Serve a source at a free port in a thread of this process; return its address."""
    import uvicorn

    running = []

    def serve(source: Source) -> str:
        app = create_app(lambda: source, source)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.listen()  # a browser may be faster than the thread
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{bound.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join()


def texts(chrome, css: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return chrome.execute_script(script, css)


@pytest.mark.slow
def test_the_page_in_a_browser(browser, serving, loaded, rated) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    source = RunSource(loaded)
    source.titles = [NASTY, *source.titles[1:]]
    source.index(loaded.datamodule.interactions.users["raw_id"].tolist())
    chrome = browser()
    wait = WebDriverWait(chrome, 120)
    chrome.get(serving(source))
    wait.until(lambda _: len(texts(chrome, "#list li")) == 10)
    query = chrome.find_element(By.ID, "query")
    query.send_keys("img src")
    wait.until(lambda _: texts(chrome, "#found .title") == [NASTY])  # a text, not an image
    assert not chrome.find_elements(By.CSS_SELECTOR, "main img") and chrome.title == "matinee"
    query.send_keys(Keys.TAB)
    chrome.switch_to.active_element.send_keys(Keys.ENTER)  # by keyboard
    wait.until(lambda _: texts(chrome, "#mine .title") == [NASTY])
    assert texts(chrome, "#found button") == ["Added"]
    expected = recommend(loaded, history=[source.raw_items[0]])["title"].tolist()
    wait.until(lambda _: texts(chrome, "#list .title") == expected)
    assert texts(chrome, "#measure") == ["By score, higher is better"]
    chrome.find_element(By.CSS_SELECTOR, "#list button").click()
    wait.until(lambda _: texts(chrome, "#list .why"))
    query.send_keys(" no such title")
    wait.until(lambda _: texts(chrome, "#found li") == ["No title holds these words."])
    chrome.find_element(By.CSS_SELECTOR, "#mine button").click()
    wait.until(lambda _: not texts(chrome, "#mine li"))
    source.find_items = lambda *_: 1 / 0  # type: ignore[method-assign]
    query.send_keys("x")
    wait.until(lambda _: chrome.find_element(By.ID, "error").is_displayed())

    narrow = browser(width=400, dark=True)
    wait = WebDriverWait(narrow, 120)
    narrow.get(serving(RunSource(rated)))
    wait.until(lambda _: texts(narrow, "#found button"))
    narrow.find_element(By.CSS_SELECTOR, "#found button").click()
    wait.until(lambda _: texts(narrow, "#mine select"))
    wait.until(lambda _: texts(narrow, "#list button"))
    before = texts(narrow, "#list .value")
    Select(narrow.find_element(By.CSS_SELECTOR, "#mine select")).select_by_value("1")
    wait.until(lambda _: texts(narrow, "#list .value") not in (before, []))
    assert narrow.execute_script("return document.documentElement.scrollWidth") <= 400
    body = narrow.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert body == "rgba(23, 24, 28, 1)"
