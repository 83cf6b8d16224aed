"""Test sets from a server on loopback: whole, resumed, damaged, unreachable; and what `soup list benchmarks` says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from evaluators.vlmeval.benchmarks import BENCHMARKS
from soup.cli.app import cli
from soup.errors import EvaluatorError, OutputError
from soup.evaluation.benchmark_data import fetch_benchmarks
from soup.evaluation.progress import Progress
from soup.report.listing import list_kind
from soup.support.file_lock import FileLock
from tests.helpers.toy_test_sets import ocrbench_rows, write_tsv


class Shelf:
    """A server that sends one file, in parts if asked to. `stops_after` bytes it hangs up, once."""

    def __init__(self, data):
        self.data, self.stops_after, self.knows_ranges, self.asked = data, None, True, []
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                shelf.asked.append(wanted)
                if shelf.data is None:
                    self.send_error(404)
                    return
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and shelf.knows_ranges else 0
                if start and start >= len(shelf.data):
                    self.send_error(416)
                    return
                body = shelf.data[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                cut, shelf.stops_after = shelf.stops_after, None
                with contextlib.suppress(OSError):
                    self.wfile.write(body[:cut])

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/OCRBench.tsv"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A toy OCRBench on a server, named by VLMEvalKit's own tables; LMUData is a folder that is not there yet."""
    data = write_tsv(tmp_path / "shelf.tsv", ocrbench_rows(20)).read_bytes()
    base = BENCHMARKS["ocrbench"].data_set_class()
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    with Shelf(data) as server:
        monkeypatch.setitem(base.DATASET_URL, "OCRBench", server.url)
        monkeypatch.setitem(base.DATASET_MD5, "OCRBench", hashlib.md5(data).hexdigest())
        yield server


@pytest.fixture
def place(tmp_path):
    return tmp_path / "LMUData" / "OCRBench.tsv"


def row(name):
    return next(row for row in list_kind("benchmarks") if row["name"] == name)


def test_what_is_fetched_is_whole_and_known_from_then_on(shelf, place):
    messages = []
    listener = Progress(on_phase=lambda *phase: messages.append(phase), on_bytes=messages.append)
    assert row("ocrbench")["here"] is None
    assert fetch_benchmarks(["ocrbench"], listener) == [place]
    assert place.read_bytes() == shelf.data
    assert messages[0] == ("fetching OCRBench", len(shelf.data))
    assert sum(messages[1:]) == len(shelf.data)
    assert [path.name for path in place.parent.iterdir()] == ["OCRBench.tsv"]
    assert (row("ocrbench")["here"], row("ocrbench")["why_not"]) == (20, None)
    fetch_benchmarks(["ocrbench"])
    assert len(shelf.asked) == 1  # it is here


def test_an_interrupted_download_goes_on_from_where_it_stopped(shelf, place):
    shelf.stops_after = 1000
    with pytest.raises(EvaluatorError, match=r"can't be downloaded: .*Type the same command to go on"):
        fetch_benchmarks(["ocrbench"])
    assert not place.exists()
    assert row("ocrbench")["here"] is None
    fetch_benchmarks(["ocrbench"])
    assert shelf.asked == [None, "bytes=1000-"]
    assert place.read_bytes() == shelf.data


def test_a_server_that_knows_no_parts_sends_it_anew(shelf, place):
    shelf.stops_after, shelf.knows_ranges = 1000, False
    with pytest.raises(EvaluatorError, match="the connection ended after 1,000 of"):
        fetch_benchmarks(["ocrbench"])
    fetch_benchmarks(["ocrbench"])
    assert place.read_bytes() == shelf.data


def test_a_part_that_is_whole_already_is_taken(shelf, place):
    place.parent.mkdir()
    place.with_name(".OCRBench.tsv.part").write_bytes(shelf.data)
    fetch_benchmarks(["ocrbench"])
    assert place.read_bytes() == shelf.data


def test_what_another_process_downloads_just_now_is_left_to_it(shelf, place):
    place.parent.mkdir()
    lock = FileLock.take(place.with_name(".OCRBench.tsv.lock"), temporary=True)
    with pytest.raises(OutputError, match="another process downloads it just now"):
        fetch_benchmarks(["ocrbench"])
    assert shelf.asked == []
    lock.release()
    fetch_benchmarks(["ocrbench"])
    assert [path.name for path in place.parent.iterdir()] == ["OCRBench.tsv"]


def test_another_file_than_vlmeval_knows_is_not_kept(shelf, place):
    shelf.data = b"index\tquestion\n"
    with pytest.raises(EvaluatorError, match=r"not the file that VLMEvalKit knows: expected md5 \w{32}, found \w{32}"):
        fetch_benchmarks(["ocrbench"])
    assert not [*place.parent.iterdir()]


def test_a_file_of_ones_own_is_never_overwritten(shelf, place):
    write_tsv(place, ocrbench_rows(3))
    before = place.read_bytes()
    with pytest.raises(EvaluatorError, match="It is used as it is; move it away to fetch the other one"):
        fetch_benchmarks(["ocrbench"])
    assert place.read_bytes() == before
    assert not shelf.asked
    assert row("ocrbench")["here"] == 3


@pytest.mark.parametrize("why", ["Connection refused", "HTTP Error 404|Not Found"])
def test_a_server_that_has_nothing_is_told_with_another_way(why, shelf, place, monkeypatch):
    base = BENCHMARKS["ocrbench"].data_set_class()
    shelf.data = None
    if "refused" in why:
        monkeypatch.setitem(base.DATASET_URL, "OCRBench", "http://127.0.0.1:9/OCRBench.tsv")
    with pytest.raises(EvaluatorError, match=rf"can't be downloaded: .*({why})") as caught:
        fetch_benchmarks(["ocrbench"])
    for words in (base.DATASET_URL["OCRBench"], str(place), base.DATASET_MD5["OCRBench"]):
        assert words in str(caught.value)
    assert not place.exists()


def test_a_disk_that_is_too_small_is_told_before(shelf, place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(OutputError, match="are to come, and 100 B are free"):
        fetch_benchmarks(["ocrbench"])


def test_the_command_line_fetches_and_lists(shelf, place):
    done = CliRunner().invoke(cli, ["list", "benchmarks", "--fetch", "ocrbench", "--json"])
    assert done.exit_code == 0
    rows = {row["name"]: row for row in json.loads(done.stdout)["benchmarks"]}
    assert [*rows] == [*BENCHMARKS]
    assert rows["ocrbench"]["here"] == 20
    assert rows["ocrbench"]["questions"] == 1000
    assert rows["mmvet"]["judge"] is True
    assert rows["mmvet"]["here"] is None
    assert "mmvet: its data (MMVet of VLMEvalKit) are not here" in rows["mmvet"]["why_not"]
    shown = CliRunner().invoke(cli, ["list", "benchmarks"])
    assert re.search(r"ocrbench .*OCRBench +1000 .* no +20", shown.stdout)
    assert "--fetch mmbench,mmstar" in shown.stderr
    assert "ocrbench" not in shown.stderr


def test_data_that_are_here_and_damaged_are_told(shelf, place):
    write_tsv(place, [{**row, "answer": "no list"} for row in ocrbench_rows(2)])
    shown = CliRunner().invoke(cli, ["list", "benchmarks"])
    assert "row 1: answer 'no list' is no Python list of texts" in shown.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["benchmarks", "--fetch", "ocrbanch"], "Did you mean 'ocrbench'"),
        (["benchmarks", "--fetch", "python:a.py:f"], "nothing to fetch for python:a.py:f"),
        (["methods", "--fetch", "ocrbench"], "--fetch is for soup list benchmarks"),
    ],
)
def test_what_can_t_be_fetched_is_told(argv, words, shelf):
    done = CliRunner().invoke(cli, ["list", *argv])
    assert done.exit_code != 0
    assert words in (str(done.exception) + done.output)
