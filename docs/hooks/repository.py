"""Put pages that stand beside their code (README.md, finetune/README.md, ...) into the site, with links that hold.

In the repository a page links another by the way from file to file, so that the links hold on a code host, too. On the
site the folder `docs/` is the root: a link's target is looked up from the page's place in the repository, and then
written as the way from page to page.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from notebook import page_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "finetune/README.md", "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/README.md"))
NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*.ipynb"))
LINKED_FILES = ("benchmarks/img/*", "examples/*/*.py", "examples/*/*.yaml", "examples/*/*.sbatch")
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside `docs/`, and files that pages show or link to."""
    linked = sorted(file for pattern in LINKED_FILES for file in ROOT.glob(pattern))
    for path in [*PAGES, *(file.relative_to(ROOT).as_posix() for file in linked)]:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for path in NOTEBOOKS:
        files.append(File.generated(config, as_page(path), content=page_of(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between pages of the repository, but not within code."""
    uri = page.file.src_uri
    at = uri if uri in [*PAGES, *map(as_page, NOTEBOOKS)] else f"docs/{uri}"
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(lambda link: link[1] + site_link(link[2], at, uri), part) for part in parts[::2]]
    parts[1::2] = [with_pipes(code) for code in parts[1::2]]
    return "".join(parts)


def with_pipes(code: str) -> str:
    r"""Return code of a table's cell so that the site shows `\|` as the `|` that a code host shows."""
    if code.startswith("```") or r"\|" not in code:
        return code
    shown = html.escape(code.strip("`")).replace(r"\|", "&#124;")
    return f"<code>{shown}</code>"


def site_link(target: str, at: str, uri: str) -> str:
    """Return the link on the site's page `uri` for a link in the repository's file `at`."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(at), target)).removeprefix("docs/")
    return posixpath.relpath(as_page(path), posixpath.dirname(uri) or ".")


def as_page(path: str) -> str:
    """Return the name of a notebook's page; of any other file its own."""
    return path.removesuffix(".ipynb") + ".md" if path.endswith(".ipynb") else path
