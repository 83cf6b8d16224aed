"""docs/cli.md is what the commands print as their help."""

from __future__ import annotations

import runpy

from tests.docs.pages import ROOT, text_of


def test_the_command_line_reference_is_up_to_date():
    written = runpy.run_path(str(ROOT / "docs/hooks/cli_reference.py"))["reference"]()
    assert text_of(ROOT / "docs/cli.md") == written, "docs/cli.md is stale: run make docs"
