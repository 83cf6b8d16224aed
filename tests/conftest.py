"""What all tests stand on."""

from __future__ import annotations

import os
import signal

# The client of the Hub reads it when it is imported: a name that is not here is then unknown at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import pytest
import transformers  # noqa: F401  its log goes to what stderr is now, and not to a stream that a test closes

# A busy machine is no fault of an example's: none has a deadline.
hypothesis.settings.register_profile("soup", deadline=None)
hypothesis.settings.load_profile("soup")

# Started in the background of a shell without job control, a process ignores Ctrl-C, and so do its children: the tests
# of interrupts would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _default_signals():
    """What a test that runs the command line in this process leaves is not the next one's."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="module")
def one_thread():
    """Models as small as the tests' lose more to waiting for each other's threads than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, for tests whose modules are marked IN_CHROMIUM."""
    from tests.helpers.chromium import running_chromium

    with running_chromium() as running:
        yield running
