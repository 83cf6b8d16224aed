"""The page in a real browser: keys, phones, reloads, two tabs, double clicks, and a server that dies.

Needs playwright (extra [page-test]) and a Chromium of the system's: make test-page.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from evaluators.arena.task import serving
from evaluators.arena.votes import read_votes
from tests.helpers.arenas import made_arena
from tests.helpers.chromium import CONTRAST, IN_CHROMIUM, sync_api

pytestmark = IN_CHROMIUM
HOSTILE = "<img src=x onerror='window.hacked = 1'><b>bold</b>\n  second line"
ANSWERS = {
    "alpha": [HOSTILE, *(f"alpha says {n}" for n in range(1, 12))],
    "beta": ["", *(f"beta says {n}" for n in range(1, 12))],
}
WAIT = 450
"""Milliseconds after which a pair that is shown takes a vote."""


@contextmanager
def served(arena, port=0):
    with serving(arena, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def arena(tmp_path):
    return made_arena(tmp_path / "x.arena", ANSWERS)


@pytest.fixture
def server(arena):
    with served(arena) as running:
        yield running


@pytest.fixture
def open_tab(browser):
    contexts = []

    def open_at(link, context=None, **options):
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.faults = []
        page.on("console", lambda message: page.faults.append(message.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(link)
        return page

    yield open_at
    for context in contexts:
        context.close()


def enter(page, name):
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#pair:visible")
    page.wait_for_timeout(WAIT)


def done(page):
    return int(page.text_content("#progress").split(": ")[1].split()[0])


def press(page, key):
    """Press a key, and wait until the next pair takes a vote."""
    before = done(page)
    page.keyboard.press(key)
    sync_api.expect(page.locator("#progress")).not_to_contain_text(f": {before} of")
    page.wait_for_timeout(WAIT)


def question(page):
    return page.text_content("#question p").removeprefix("What of ").removesuffix("?")


def sides(page):
    """Which candidate stands on which side."""
    texts = {side: page.text_content(f"#{side}") for side in ("left", "right")}
    return {("beta" if "beta" in text or text == "no answer" else "alpha"): side for side, text in texts.items()}


def test_a_whole_arena_is_voted_by_keys_alone(open_tab, server, arena):
    page = open_tab(server.link)
    enter(page, "Ann")
    assert page.text_content("#progress") == "Ann: 0 of 12 pairs"
    keys, seen = {"left": "1", "right": "2"}, []
    for turn in range(12):
        choice = {10: "0", 11: "x"}.get(turn, keys[sides(page)["beta"]])
        seen.append(question(page))
        press(page, choice)
    assert page.text_content("#message") == "You have seen every pair. Thank you."
    assert not page.is_visible("#choices")
    votes = read_votes(arena.votes_path)
    assert [vote.question for vote in votes] == [f"q{number}" for number in seen]
    assert [vote.choice for vote in votes[10:]] == ["tie", "skip"]
    better = [vote.left if vote.choice == "left" else vote.right for vote in votes[:10]]
    assert better == [arena.members["beta"].keys[vote.question] for vote in votes[:10]]
    assert {vote.choice for vote in votes[:10]} == {"left", "right"}  # sides are random
    assert page.faults == []


def test_answers_are_text_and_pictures_are_shown(open_tab, server, arena):
    page = open_tab(server.link)
    enter(page, "Ann")
    while question(page) != "0":
        press(page, "x")
    side = sides(page)["alpha"]
    assert page.text_content(f"#{side}") == HOSTILE
    other = {"left": "right", "right": "left"}[side]
    assert page.text_content(f"#{other}") == "no answer"
    sync_api.expect(page.locator("#question img")).to_have_js_property("naturalWidth", 40)
    assert page.evaluate("window.hacked") is None
    assert "alpha says" not in page.text_content("header")
    assert page.faults == []


def test_buttons_name_four_choices_and_each_is_what_it_says(open_tab, server, arena):
    page = open_tab(server.link)
    enter(page, "Ann")
    buttons = page.locator("#choices button")
    assert buttons.all_text_contents() == [
        "1 Answer 1 is better",
        "2 Answer 2 is better",
        "0 Tie, or both bad",
        "x I can't tell",
    ]
    for index in range(4):
        before = done(page)
        buttons.nth(index).click()
        page.wait_for_function(
            "(n) => !document.querySelector('#progress').textContent.includes(`: ${n} of`)", arg=before
        )
        page.wait_for_timeout(WAIT)
    assert [vote.choice for vote in read_votes(arena.votes_path)] == ["left", "right", "tie", "skip"]


@pytest.mark.parametrize("width", [360, 320])
def test_a_phone_needs_no_scrolling_sideways_and_reaches_all_buttons(open_tab, tmp_path, width):
    long = {name: [f"{name} says so, and adds {'a long word' * 9} " * 12] for name in ("alpha", "beta")}
    with served(made_arena(tmp_path / "long.arena", long)) as server:
        page = open_tab(server.link, viewport={"width": width, "height": 640}, has_touch=True)
        enter(page, "Ann")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.documentElement.scrollHeight") > 1000
        for box in (button.bounding_box() for button in page.locator("#choices button").all()):
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= 640  # they stay at the lower edge
            assert box["height"] >= 40
        first, second = (page.locator(f"#{side}").bounding_box() for side in ("left", "right"))
        assert first["y"] + first["height"] < second["y"]  # one below the other
        page.locator("#choices button").first.tap()
        sync_api.expect(page.locator("#progress")).to_contain_text(": 1 of")
        assert page.faults == []


def test_the_second_click_of_a_double_click_is_no_vote_on_the_next_pair(open_tab, server, arena):
    page = open_tab("about:blank")
    page.clock.install()
    page.goto(server.link)
    page.fill("#name", "Ann")
    page.keyboard.press("Enter")
    button, progress = page.locator("#choices button").first, page.locator("#progress")
    sync_api.expect(progress).to_contain_text(": 0 of")
    page.clock.pause_at(time.time() + 3600)
    button.click()
    sync_api.expect(progress).to_contain_text(": 1 of")
    button.click()  # at the same moment, as the page's clock has it
    page.keyboard.press("1")
    page.clock.fast_forward(1000)
    button.click()
    sync_api.expect(progress).to_contain_text(": 2 of")
    assert len(read_votes(arena.votes_path)) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_background(open_tab, server, scheme):
    page = open_tab(server.link, color_scheme=scheme)
    enter(page, "Ann")
    page.evaluate("document.querySelector('#message').append('a word'); message.className = 'bad'")
    assert page.evaluate(CONTRAST) == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is (scheme == "light")


def test_double_clicks_and_held_keys_are_one_vote_each(open_tab, server, arena):
    page = open_tab(server.link)
    enter(page, "Ann")
    for _ in range(2):
        page.locator("#choices button").first.dblclick()
        page.wait_for_timeout(2 * WAIT)
    page.keyboard.down("1")
    for _ in range(4):
        page.keyboard.down("1")  # held down, it repeats
        page.wait_for_timeout(WAIT)
    page.keyboard.up("1")
    assert len(read_votes(arena.votes_path)) == done(page) == 3


def test_a_reload_shows_the_same_pair_on_the_same_sides_and_counts_nothing_again(open_tab, server, arena):
    page = open_tab(server.link)
    enter(page, "Ann")
    press(page, "1")
    before = page.text_content("main")
    page.reload()
    page.wait_for_selector("#pair:visible")
    assert page.text_content("main") == before
    assert page.text_content("#progress") == "Ann: 1 of 12 pairs"
    assert len(read_votes(arena.votes_path)) == 1


def test_two_tabs_of_one_person_count_each_pair_once(open_tab, server, arena):
    first = open_tab(server.link)
    enter(first, "Ann")
    second = open_tab(server.link, first.context)
    second.wait_for_selector("#pair:visible")
    second.wait_for_timeout(WAIT)
    assert question(second) == question(first)
    press(first, "1")
    second.keyboard.press("2")  # on the pair that the first tab has voted on
    sync_api.expect(second.locator("#progress")).to_contain_text(": 1 of")
    assert question(second) == question(first)
    assert [vote.choice for vote in read_votes(arena.votes_path)] == ["left"]
    assert first.faults == second.faults == []


def test_several_people_vote_each_under_a_name(open_tab, server, arena):
    for name in ("Ann", "Max 2"):  # whose letters are keys of votes
        page = open_tab(server.link)
        page.focus("#name")
        page.keyboard.type(name)
        enter(page, page.input_value("#name"))
        press(page, "1")
    page.click("#leave")
    enter(page, "Cat")
    press(page, "2")
    assert [vote.voter for vote in read_votes(arena.votes_path)] == ["Ann", "Max 2", "Cat"]


def test_a_server_that_is_gone_is_told_and_the_vote_can_be_sent_again(open_tab, arena):
    with served(arena) as server:
        page, port = open_tab(server.link), server.server_port
        enter(page, "Ann")
        asked = question(page)
    page.keyboard.press("1")
    page.wait_for_selector("#message.bad")
    assert page.text_content("#message") == "Not kept: the arena does not answer. Vote again."
    with served(arena, port):
        page.keyboard.press("1")
        sync_api.expect(page.locator("#progress")).to_contain_text(": 1 of")
    assert [(vote.question, vote.choice) for vote in read_votes(arena.votes_path)] == [(f"q{asked}", "left")]


def test_a_link_without_its_token_shows_nothing(open_tab, server):
    page = open_tab(server.link.partition("#")[0])
    assert "Open the whole link" in page.text_content("#message")
    page = open_tab(f"{server.link}x")
    page.fill("#name", "Ann")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message.bad")
    assert "token is missing or wrong" in page.text_content("#message")
    assert not page.is_visible("#pair")


def start(arena, port):
    """The command itself, on an arena whose candidates have answered; it prints its link when it listens."""
    words = [sys.executable, "-m", "soup", "arena", "--run-dir", str(arena.path), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, process.stdout.readline().strip()


def test_kill_9_in_the_middle_of_votes_loses_none_that_was_confirmed(open_tab, arena):
    process, link = start(arena, 0)
    port = int(link.split(":")[2].split("/")[0])
    page, kills = open_tab(link), 0
    enter(page, "Ann")
    try:
        while done(page) < 12 and page.is_visible("#pair"):
            press(page, "1")
            if done(page) in (3, 6):
                page.keyboard.press("1")
                time.sleep(0.002 * kills)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                process.stdout.close()
                kills += 1
                process, again = start(arena, port)
                assert again == link
                page.wait_for_timeout(WAIT)
                page.reload()
                page.wait_for_selector("#pair:visible")
                page.wait_for_timeout(WAIT)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        process.stdout.close()
    votes = read_votes(arena.votes_path)
    assert kills == 2
    assert Counter(vote.question for vote in votes) == dict.fromkeys(arena.questions, 1)
    assert len(arena.votes_path.read_text().splitlines()) == 12
    assert process.returncode == 130
