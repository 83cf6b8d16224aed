"""Videos in an arena's prompts: candidates see frames as VLMEvalKit shows them, people the video or its frames."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image

from evaluators.arena.ballot import Ballot
from evaluators.arena.record import Arena
from evaluators.arena.votes import VoteLog
from evaluators.vlmeval.videos import vlmeval_frame_indices
from soup.cli.app import cli
from soup.errors import SoupError
from tests.evaluators.vlmeval.test_videos import gif, mp4
from tests.helpers.scripted_models import JudgeServer
from tests.helpers.toy_pools import make_checkpoint

# It says which candidate it is, of which video each frame is, and how red each is.
WATCHER = """
from pathlib import Path

from PIL import Image
from safetensors.numpy import load_file


class Watcher:
    def __init__(self, directory):
        (file,) = Path(directory).glob("*.safetensors")
        self.number = float(load_file(file)["head"][0])

    def answer(self, prompts):
        return [f"{self.number:g}: " + " ".join(map(self.see, prompt)) for prompt in prompts]

    def see(self, part):
        if part["type"] == "text":
            return part["value"]
        return f"{part.get('video', 'no video')[:4]}/{Image.open(part['value']).getpixel((0, 0))[0]}"
"""
COMMAND = ("ckpts/a", "ckpts/b", "--prompts", "videos.jsonl", "--model", "watcher.py:Watcher")
FRAMES = 20
EIGHT = vlmeval_frame_indices(FRAMES, 8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The same video four times: as a GIF, as a folder and as a list of frames, and among words and a picture."""
    monkeypatch.chdir(tmp_path)
    gif(tmp_path / "a.gif", FRAMES)
    (tmp_path / "frames").mkdir()
    for red in range(FRAMES):
        Image.new("RGB", (16, 8), (red, 9, 9)).save(tmp_path / "frames" / f"{red}.png")
    Image.new("RGB", (16, 8), (200, 9, 9)).save(tmp_path / "still.png")
    turn = {"role": "user", "content": "Before <image> between <video> after"}
    rows = [
        {"id": "gif", "video": "a.gif", "question": "What?"},
        {"id": "folder", "video": "frames", "question": "What?"},
        {"id": "list", "video": [f"frames/{red}.png" for red in range(3)], "question": "What?"},
        {"id": "both", "images": ["still.png"], "videos": ["a.gif"], "messages": [turn]},
    ]
    write(tmp_path, rows)
    for number, name in enumerate("ab", start=1):
        make_checkpoint(tmp_path / "ckpts" / name, number, head=[number, 0, 0, 0])
    (tmp_path / "watcher.py").write_text(WATCHER)
    return tmp_path


def write(here, rows):
    (here / "videos.jsonl").write_text("\n".join(map(json.dumps, rows)))


def run(*words):
    return CliRunner().invoke(cli, ["arena", *words], catch_exceptions=False)


def reds(answer):
    return [int(word.partition("/")[2]) for word in answer.split() if "/" in word]


def test_candidates_see_the_frames_that_vlmevalkit_shows(here):
    run(*COMMAND, "--report")
    answers = Arena(here / "videos.arena").members["a"].answers
    assert reds(answers["gif"]) == reds(answers["folder"]) == EIGHT
    assert reds(answers["list"]) == [0, 0, 1, 1, 1, 2, 2, 2]
    before, between = answers["both"].split(" between ")
    assert (before, reds(between), between[-5:]) == ("1: Before no v/200", EIGHT, "after")
    videos = {word.partition("/")[0] for word in answers["gif"].split() if "/" in word}
    assert len(videos) == 1
    assert "no v" not in videos


def test_how_many_frames_are_shown_is_said_once_for_an_arena(here):
    run(*COMMAND, "--frames", "3", "--report")
    assert reds(Arena(here / "videos.arena").members["a"].answers["gif"]) == vlmeval_frame_indices(FRAMES, 3)
    with pytest.raises(SoupError, match=r"an arena of other questions \(4 differ, e.g. gif\)"):
        run(*COMMAND, "--report")


def test_the_same_videos_elsewhere_are_the_same_arena_and_others_are_not(here):
    run(*COMMAND, "--report")
    (here / "moved").mkdir()
    for name in ("a.gif", "frames", "still.png", "videos.jsonl"):
        (here / name).rename(here / "moved" / name)
    moved = ("--prompts", "moved/videos.jsonl", "--run-dir", "videos.arena", "--report")
    assert run(*moved).exit_code == 0
    gif(here / "moved" / "a.gif", FRAMES + 1)
    with pytest.raises(SoupError, match=r"an arena of other questions \(2 differ, e.g. gif\)"):
        run(*moved)


def test_a_plan_decodes_no_video_and_writes_nothing(here):
    before = sorted(here.rglob("*"))
    assert json.loads(run(*COMMAND, "--dry-run", "--json").stdout)["questions"] == 4
    assert sorted(here.rglob("*")) == before


def test_an_arena_keeps_what_is_shown_and_a_video_is_played_where_a_browser_may(here):
    pytest.importorskip("av")
    mp4(here / "b.mp4", FRAMES)
    write(here, [{"id": "gif", "video": "a.gif", "question": "?"}, {"id": "mp4", "video": "b.mp4", "question": "?"}])
    run(*COMMAND, "--report")
    video = (here / "b.mp4").read_bytes()
    for path in [*here.iterdir()]:
        if path.name != "videos.arena":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    arena = Arena(here / "videos.arena")
    ballot = Ballot(arena, VoteLog(arena.votes_path))
    parts = {}
    while pair := (state := ballot.next("ann"))["pair"]:
        (parts[pair["question"]], _) = pair["parts"]
        sides = {side: pair[side]["key"] for side in ("left", "right")}
        ballot.vote({"voter": "ann", "question": pair["question"], "choice": "tie", **sides})
    assert (state["done"], parts["gif"]["plays"], parts["mp4"]["plays"]) == (2, False, True)
    shown = [Image.open(arena.image(name)).getpixel((0, 0))[0] for name in parts["gif"]["frames"]]
    assert shown == EIGHT
    assert arena.image(parts["mp4"]["value"]).read_bytes() == video
    assert {parts["mp4"]["value"], *parts["mp4"]["frames"], *parts["gif"]["frames"]} <= ballot.images


def test_a_short_video_s_frames_are_shown_once_each(here):
    write(here, [{"video": ["frames/0.png", "frames/1.png", "frames/0.png"], "question": "?"}])
    run(*COMMAND, "--report")
    arena = Arena(here / "videos.arena")
    (part, _) = Ballot(arena, VoteLog(arena.votes_path)).next("ann")["pair"]["parts"]
    first, second, third = part["frames"]
    assert first == third != second


def test_a_judge_sees_the_frames_where_that_is_wished(here):
    with JudgeServer(lambda prompt, temperature: "tie") as server:
        run(*COMMAND, "--judge-url", server.url, "--judge-model", "wise", "--judge-images", "--report")
        contents = [body["messages"][-1]["content"] for body in server.bodies[1:]]
    by_text = {content[-1]["text"]: len(content) - 1 for content in contents}
    about = {text.partition(".")[0].rpartition("both about ")[2]: count for text, count in by_text.items()}
    assert about == {"the video": 8, "the picture and video": 9}


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("no.mp4", None, r"videos.jsonl, line 1, video 1 \(no.mp4\): .*no such file"),
        ("cut.mp4", b"\0\0\0\x20ftypisom" + b"\0" * 50, r"neither a picture nor a video that can be read"),
        ("text.mp4", b"words" * 100, r"neither a picture nor a video|a file without pictures"),
        ("cut.gif", b"GIF89a\x10\0\x08\0\x81\0\0", r"videos.jsonl, line 1, video 1 \(cut.gif\): "),
    ],
)
def test_a_video_that_can_not_be_shown_is_told_before_anybody_is_asked(here, name, data, why):
    if name.endswith("mp4"):
        pytest.importorskip("av")
    if data:
        (here / name).write_bytes(data)
    write(here, [{"video": name, "question": "What?"}])
    with pytest.raises(SoupError, match=why):
        run(*COMMAND, "--report")
    assert not (here / "videos.arena/arena.json").exists()
