"""The site builds without a warning, and asks for nothing over the network."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import PAGES, ROOT

ASKING = re.compile(r'<(?:script|img|iframe|link rel="(?:stylesheet|preload|icon)")[^>]*(?:src|href)="(?:https?:)?//')


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    pytest.importorskip("mkdocs", reason="make docs installs it")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [page for page in (tmp_path / "site").rglob("*.html") if page.name != "404.html"]
    assert len(pages) == len(PAGES) + 1  # the notebook
    asking = {page.name: ASKING.findall(page.read_text(encoding="utf-8")) for page in pages}
    assert {name: addresses for name, addresses in asking.items() if addresses} == {}
    assert [page.name for page in pages if r"\|" in page.read_text(encoding="utf-8")] == []  # of code in tables
