"""Downloads when the Hub, the line or the token fail."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.forked_cli import Forge
from tests.helpers.hub_server import Fault, HubClient, HubServer, digest
from tests.helpers.toy_pools import make_checkpoint


@pytest.fixture(scope="module")
def forge():
    with Forge() as forge:
        yield forge


@pytest.fixture
def hub(tmp_path):
    with HubServer({"team/a": make_checkpoint(tmp_path / "there", 1)}) as server:
        yield server


@pytest.fixture
def soup(forge, hub, tmp_path):
    return HubClient(forge, hub, tmp_path)


def gate(repository):
    repository.is_gated = True


def hide(repository):
    repository.is_private = True


@pytest.mark.parametrize(
    ("change", "token", "text"),
    [
        (gate, None, "the repository is gated: ask for access"),
        (hide, "", "no such repository, or hides it"),
        (None, "hf_wrong", "the Hub refuses the token, or wants one (401)"),
    ],
)
def test_what_may_not_be_read_is_one_sentence_that_says_what_to_do(soup, hub, change, token, text):
    if change:
        change(hub.repositories["team/a"])
    changed = {} if token is None else {"HF_TOKEN": token}
    done = soup("inspect", "team/a", code=1, **changed)
    assert done.stderr.startswith(f"error: team/a: {'' if 'no such' not in text else 'the Hub has '}{text}"), (
        done.stderr
    )
    assert len(done.stderr.splitlines()) == 1
    assert "log in" in done.stderr


def test_a_private_repository_is_read_by_who_may(soup, hub):
    hide(hub.repositories["team/a"])
    assert "head" in soup("inspect", "team/a").stdout, "its tensors are listed"


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_busy_is_asked_again(soup, hub, status):
    busy = {"Retry-After": "0"}
    hub.faults += [Fault("HEAD .*config", status, headers=busy), Fault("GET .*/revision/", status, headers=busy)]
    soup("inspect", "team/a")
    assert not any(fault.times for fault in hub.faults)


def test_a_hub_that_stays_busy_is_told_with_what_to_do(soup, hub):
    hub.faults += [Fault("GET .*/revision/", 429, times=100, headers={"Retry-After": "0"})]
    done = soup("inspect", "team/a", code=1)
    assert "error: team/a: the Hub has had too many requests (429): wait some minutes" in done.stderr


def test_a_hub_that_wants_to_be_left_alone_for_an_hour_is_told_at_once(soup, hub):
    fault = Fault("GET .*/revision/", 429, times=100, headers={"Retry-After": "3600"})
    hub.faults += [fault]
    done = soup("inspect", "team/a", code=1)
    assert "too many requests (429): wait some minutes" in done.stderr


def test_a_download_that_was_cut_goes_on_where_it_ended(soup, hub, tmp_path):
    hub.add("team/large", make_checkpoint(tmp_path / "large", tensors={"a": np.zeros(6_000_000, np.float32)}))
    hub.faults += [Fault("GET /cdn/", after_bytes=15_000_000)]
    soup("inspect", "team/large")
    [start] = hub.ranges
    assert 0 < start <= 15_000_000


def test_files_that_came_whole_are_not_fetched_again_after_a_stop(soup, hub, tmp_path):
    hub.add("team/shards", make_checkpoint(tmp_path / "shards", 1, shards=2))
    first, second = (digest(data) for name, data in hub.files("team/shards").items() if name.endswith("safetensors"))
    hub.faults += [Fault(f"GET /cdn/{second}", 404)]
    done = soup("inspect", "team/shards", code=1)
    assert "error: team/shards: " in done.stderr
    hub.asked.clear()
    soup("inspect", "team/shards")
    assert hub.requests("GET /cdn/") == [f"GET /cdn/{second}"], first


def test_nothing_is_fetched_where_the_hub_can_not_be_reached(soup, hub):
    done = soup("inspect", "team/a", code=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stderr.startswith("error: team/a: the Hub can't be reached"), done.stderr
    done = soup("inspect", "team/a", code=1, HF_HUB_OFFLINE="1")
    assert done.stderr.startswith("error: team/a: $HF_HUB_OFFLINE keeps it from the Hub"), done.stderr


def test_a_mistyped_path_in_a_folder_that_is_here_is_told(soup):
    (soup.folder / "ckpts").mkdir()
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = soup("inspect", "ckpts/b", code=1, **environment)
        assert done.stderr.endswith(". As a path: ckpts/ is here, and holds no b.\n"), done.stderr
    assert "As a path" not in soup("inspect", "team/b", code=1).stderr


def test_what_the_cache_has_in_part_is_refused_offline(soup, hub):
    hub.faults += [Fault("GET /cdn/", 404)]
    soup("inspect", "team/a", code=1)
    done = soup("inspect", "team/a", code=1, HF_HUB_OFFLINE="1")
    assert done.stderr.startswith("error: team/a: $HF_HUB_OFFLINE keeps it from the Hub, and the cache has not all"), (
        done.stderr
    )


def test_what_the_cache_has_is_taken_while_the_hub_is_down(soup, hub):
    whole = soup("inspect", "team/a").stdout
    hub.faults += [Fault("/api/", 503, times=100, headers={"Retry-After": "0"})]
    assert soup("inspect", "team/a").stdout == whole
    assert soup("inspect", "team/a", HF_ENDPOINT="http://127.0.0.1:9").stdout == whole
