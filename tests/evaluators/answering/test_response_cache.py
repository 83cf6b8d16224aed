"""What was answered is kept by all that it depends on, read again whole, and asked for once."""

from __future__ import annotations

import json
import resource

import pytest

from evaluators.answering.response_cache import ResponseCache, cached_answers, prompt_keys
from soup.errors import EvaluatorError


def text(value):
    return {"type": "text", "value": value}


def image(value, **more):
    return {"type": "image", "value": value, **more}


PROMPTS = [
    [text("Why?")],
    [text("Why")],
    [text("Wh"), text("y?")],
    [image("/a/1.png"), text("Why?")],
    [image("/a/2.png"), text("Why?")],
    [image("/a/1.png", video="walk.mp4"), text("Why?")],
    [text("Why?"), image("/a/1.png")],
    [text("1.png"), text("Why?")],
]


def test_prompts_that_differ_in_anything_have_keys_of_their_own():
    keys = [key for facts in (["a"], ["b"], ["a", "b"]) for key in prompt_keys(facts, PROMPTS)]
    assert len(set(keys)) == len(keys) == 3 * len(PROMPTS)


def test_where_a_picture_lies_and_which_video_a_frame_is_of_are_no_part_of_a_key():
    there = [image("/elsewhere/1.png"), text("Why?")]
    video = [image("/a/1.png", video="run.mp4"), text("Why?")]
    assert prompt_keys(["a"], [there, video]) == prompt_keys(["a"], [PROMPTS[3], PROMPTS[5]])


def test_only_what_is_lacking_is_asked_and_kept_as_it_comes(tmp_path):
    asked, told = [], []

    def answer(prompts, on_batch):
        asked.append(len(prompts))
        replies = [f"to {json.dumps(prompt)}" for prompt in prompts]
        on_batch(prompts[1:], replies[1:])
        if len(asked) == 1:
            raise EvaluatorError("the line broke")
        on_batch(prompts[:1], replies[:1])
        return replies

    def ask(prompts):
        cache = ResponseCache(tmp_path / "new" / "answers.jsonl")
        return cached_answers(cache, ["a"], iter(prompts), answer, lambda *counts: told.append(counts))

    with pytest.raises(EvaluatorError, match="the line broke"):
        ask(PROMPTS)
    assert ask(PROMPTS) == [f"to {json.dumps(prompt)}" for prompt in PROMPTS]
    assert ask(PROMPTS[::-1]) == [f"to {json.dumps(prompt)}" for prompt in PROMPTS[::-1]]
    assert asked == [8, 1]
    assert told == [(7, 8), (7, 8), (8, 8)]


def test_a_line_that_is_no_record_is_lost_alone_and_the_next_one_begins_anew(tmp_path):
    path = tmp_path / "answers.jsonl"
    lines = [b'{"key": "a", "text": "A"}', b'{"key": "b", "text": 5}', b"[]", b'{"text": "x"}', b'{"key": "c", "te']
    path.write_bytes(b"\n".join(lines))
    cache = ResponseCache(path)
    assert (len(cache), cache.get("a"), cache.get("b"), cache.get("c")) == (1, "A", None, None)
    cache.add({"c": "C", "d": "\ud800"})
    cache.add({"e": ""})
    assert path.read_bytes().count(b"\n") == len(lines) + 3
    again = ResponseCache(path)
    assert [again.get(key) for key in "acde"] == ["A", "C", "?", ""] == [cache.get(key) for key in "acde"]
    assert path.read_bytes().startswith(b"\n".join(lines) + b"\n")


def test_what_is_forgotten_is_asked_for_again_in_later_runs_too(tmp_path):
    cache = ResponseCache(tmp_path / "answers.jsonl")
    cache.add({"a": "A", "b": "B"})
    cache.forget(["a", "never"])
    for each in (cache, ResponseCache(cache.path)):
        assert (len(each), each.get("a"), each.get("b")) == (1, None, "B")


def test_a_disk_that_takes_no_more_is_told_with_the_file(tmp_path):
    (tmp_path / "answers.jsonl").symlink_to("/dev/full")
    cache = ResponseCache(tmp_path / "answers.jsonl")
    with pytest.raises(EvaluatorError, match=r"answers\.jsonl: can't be appended to \(No space left on device\)"):
        cache.add({"a": "A"})
    assert cache.get("a") is None


def test_half_a_line_that_a_full_disk_took_costs_no_other(tmp_path):
    cache = ResponseCache(tmp_path / "answers.jsonl")
    cache.add({"a": "A"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(EvaluatorError, match="can't be appended to"):
            cache.add({"b": "B" * 200})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache.path.stat().st_size == 100
    cache.add({"c": "C"})
    assert [ResponseCache(cache.path).get(key) for key in "abc"] == ["A", None, "C"]
