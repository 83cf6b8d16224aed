"""The page in a real browser: keys, phones, reloads, two tabs, double clicks, and a server that dies.

Needs playwright (extra [page-test]) and a Chromium of the system's: make test-page.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from io import BytesIO

import pytest
from PIL import Image

from evaluators.arena.record import Arena, Member, Question
from evaluators.arena.task import serving
from evaluators.arena.votes import read_votes
from tests.finetune.media.test_images import video
from tests.helpers.arenas import made_arena
from tests.helpers.chromium import CONTRAST, IN_CHROMIUM, sync_api
from tests.helpers.threaded_servers import in_thread

pytestmark = IN_CHROMIUM
PATIENCE = 60_000
"""Milliseconds that a busy machine may need for anything."""
sync_api.expect.set_options(timeout=PATIENCE)
HOSTILE = "<img src=x onerror='window.hacked = 1'><b>bold</b>\n  second line"
ANSWERS = {
    "alpha": [HOSTILE, *(f"alpha says {n}" for n in range(1, 12))],
    "beta": ["", *(f"beta says {n}" for n in range(1, 12))],
}
LEAST, HURRIED = "const LEAST_MILLISECONDS = 400;", "const LEAST_MILLISECONDS = 30;"
"""How long the page takes no vote on a pair that it has just shown; less where a test is of something else."""
WAIT = 40
"""Milliseconds after which a pair that is shown takes a vote, in a hurry."""
WHOLE_WAIT = 450


def hurry(route):
    reply = route.fetch()
    assert reply.text().count(LEAST) == 1
    route.fulfill(response=reply, body=reply.text().replace(LEAST, HURRIED))


@contextmanager
def served(arena, port=0):
    with serving(arena, "127.0.0.1", port) as server, in_thread(server):
        yield server


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

    def open_at(link, context=None, in_hurry=True, **options):
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
            if in_hurry:
                context.route("**/page.js", hurry)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
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
    page = open_tab("about:blank", in_hurry=False)
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
    page = open_tab(server.link, in_hurry=False)
    enter(page, "Ann")
    page.wait_for_timeout(WHOLE_WAIT)
    page.locator("#choices button").first.dblclick()
    page.wait_for_timeout(WHOLE_WAIT)
    page.keyboard.down("1")
    for _ in range(2):
        page.wait_for_timeout(WHOLE_WAIT)
        page.keyboard.down("1")  # held down, it repeats
    page.keyboard.up("1")
    sync_api.expect(page.locator("#progress")).to_contain_text(": 2 of")
    assert len(read_votes(arena.votes_path)) == 2


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


def png(color):
    data = BytesIO()
    Image.new("RGB", (64, 48), color).save(data, "PNG")
    return data.getvalue()


def arena_of_video(path, name, video):
    """An arena of one question, on a video of two frames."""
    parts = (("video", name), ("text", "What of 0?"))
    images = {name: video.read_bytes} if video else {}
    arena = Arena.make(path, [(Question("q0", parts), images, {name: lambda: [png("navy"), png("teal")]})])
    for member in ("alpha", "beta"):
        arena.add(Member(member, f"recipe of {member}", {}, {"q0": f"{member} says 0"}))
    return Arena(path)


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "libvpx-vp9"), (".mp4", "libx264")])
def test_a_video_is_played(open_tab, tmp_path, suffix, codec):
    arena = arena_of_video(tmp_path / "x.arena", f"{'ab' * 32}-2{suffix}", video(tmp_path / f"a{suffix}", codec))
    with served(arena) as server:
        page = open_tab(server.link)
        enter(page, "Ann")
        player = page.locator("#question video")
        sync_api.expect(player).to_have_js_property("videoWidth", 64)
        assert player.evaluate("async (video) => { await video.play(); return video.controls && !video.paused; }")
        assert page.locator(".strip").count() == 0
        assert page.faults == []


@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_a_video_that_the_browser_can_not_play_is_a_strip_of_its_frames(open_tab, tmp_path, suffix):
    unplayable = video(tmp_path / "a.mp4", "mpeg4") if suffix else None
    arena = arena_of_video(tmp_path / "x.arena", f"{'ab' * 32}-2{suffix}", unplayable)
    with served(arena) as server:
        page = open_tab(server.link, viewport={"width": 375, "height": 700})
        enter(page, "Ann")
        sync_api.expect(page.locator(".strip img").first).to_have_js_property("naturalWidth", 64)
        assert page.locator("#question video").count() == 0
        assert page.locator(".strip img").count() == 2
        assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_a_candidate_that_joins_is_shown_by_the_page_that_is_open(open_tab, tmp_path):
    arena = made_arena(tmp_path / "x.arena", {name: texts[1:3] for name, texts in ANSWERS.items()})
    with served(arena) as server:
        page = open_tab("about:blank")
        page.clock.install()
        page.goto(server.link)
        enter(page, "Ann")
        press(page, "1")
        press(page, "1")
        assert page.text_content("#message") == "You have seen every pair. Thank you."
        gamma = Member("gamma", "recipe of gamma", {}, {f"q{number}": f"gamma says {number}" for number in range(2)})
        Arena(arena.path).add(gamma)
        page.clock.run_for(16_000)
        sync_api.expect(page.locator("#progress")).to_have_text("Ann: 2 of 6 pairs")
        page.wait_for_timeout(WAIT)
        press(page, "1")
        assert len(read_votes(arena.votes_path)) == 3


def start(arena, port):
    """The command itself, on an arena whose candidates have answered; it prints its link when it listens."""
    words = [sys.executable, "-m", "soup", "arena", "--run-dir", str(arena.path), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, process.stdout.readline().strip()


def test_kill_9_in_the_middle_of_votes_loses_none_that_was_confirmed(open_tab, tmp_path):
    arena = made_arena(tmp_path / "x.arena", {name: texts[:6] for name, texts in ANSWERS.items()})
    process, link = start(arena, 0)
    port = int(link.split(":")[2].split("/")[0])
    page, kills = open_tab(link), 0
    enter(page, "Ann")
    try:
        while done(page) < 6 and page.is_visible("#pair"):
            press(page, "1")
            if done(page) in (1, 3):
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
    assert len(arena.votes_path.read_text().splitlines()) == 6
    assert process.returncode == 130
