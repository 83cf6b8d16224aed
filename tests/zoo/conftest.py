"""Gathers what the zoo's tests see, and writes the table to $ZOO_TABLE where that is set and the whole zoo was run."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers.tiny_architectures import CLASSES
from tests.zoo.table import COLUMNS, Row, write_table

rows = defaultdict(Row)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Say which cell of the table a test fills, before a fixture skips it."""
    if item.get_closest_marker("zoo"):
        parameters = item.callspec.params
        properties = {"architecture": parameters["models"], "layout": parameters["pool"], "test": item.originalname}
        item.user_properties += properties.items()


def pytest_runtest_logreport(report):
    properties = dict(report.user_properties)
    if "architecture" not in properties or (report.when != "call" and report.passed):
        return
    row = rows[properties["architecture"]]
    row.tensors = properties.get("tensors", row.tensors)
    column = COLUMNS[properties["test"]]
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if report.when == "setup" and reason.startswith("unmade: "):
            row.unmade = reason.removeprefix("unmade: ")
        outcome = "" if reason == "not run" else reason
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        outcome = "**FAILED** " + (crash.message if crash else str(report.longrepr)).splitlines()[0]
    else:
        outcome = properties.get("detail", "ok")
    row.cells.setdefault(column, {})[properties["layout"]] = outcome


def pytest_terminal_summary(terminalreporter):
    path = os.environ.get("ZOO_TABLE")
    if not path:
        return
    if unseen := CLASSES.keys() - rows.keys():
        terminalreporter.write_line(f"{path} is left as it is: {len(unseen)} architectures were not run")
        return
    versions = {name: version(name) for name in ("transformers", "torch")}
    if interpreter := os.environ.get("ZOO_MERGEKIT"):
        ask = "from importlib.metadata import version; print(version('mergekit'))"
        versions["mergekit"] = subprocess.check_output([interpreter, "-c", ask], text=True).strip()
    write_table(Path(path), rows, CLASSES, {**versions, "Python": platform.python_version()})
