"""Extras: what each holds is read from the package, and every library that is imported anywhere has one."""

from __future__ import annotations

import ast
import re
import sys
from configparser import ConfigParser
from pathlib import Path

from packaging.utils import canonicalize_name

from soup.support.extras import EXTRAS, absent_requirements, distribution_of, extra_of, install_line, missing_extra

ROOT = Path(__file__).parents[2]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
PACKAGES = ("soup", "evaluators", "finetune")
FOR_TESTS = {"all", "test", "fuzz", "page-test", "notebook-test", "docs"}
WITHOUT_EXTRA = {
    "IPython": "there in a notebook, and used nowhere else",
    "wandb": "named in log_to, and told by its own name",
    "trackio": "the same",
    "deepspeed": "a configuration of accelerate, and told by its own name",
    "pyarrow": "a part of datasets",
    "pydantic_core": "a part of pydantic",
    "markupsafe": "a part of jinja2",
    "tokenizers": "a part of transformers",
    "torchvision": "used where it is there",
}


def names_in(text):
    return {canonicalize_name(re.split(r"[<>=\[;]", line.strip())[0]) for line in text.split("\n") if line.strip()}


def test_each_extra_of_the_package_has_its_purpose():
    assert set(EXTRAS) == set(SETUP["options.extras_require"]) - FOR_TESTS


def imported_libraries():
    ours = {*PACKAGES, *sys.stdlib_module_names}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                yield from (name.partition(".")[0] for name in names if name.partition(".")[0] not in ours)


def test_every_library_that_is_imported_is_asked_for_or_in_an_extra():
    asked_for = names_in(SETUP["options"]["install_requires"])
    libraries = set(imported_libraries())
    assert len(libraries) > 15
    without = {name for name in libraries if distribution_of(name) not in asked_for and extra_of(name) is None}
    assert without <= set(WITHOUT_EXTRA), without


def test_every_extra_that_a_message_or_a_page_names_exists():
    known = set(SETUP["options.extras_require"])
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("finetune/**/*.md")]
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in (*pages, *modules)]
    named = [names for text in texts for names in re.findall(r"vlm-soup\[([\w,-]+)\]", text)]
    assert len(named) > 5
    assert {name for names in named for name in names.split(",")} <= known


def test_of_several_extras_the_light_one_or_the_preferred_one_is_named():
    assert install_line("PIL.Image") == 'pip install "vlm-soup[vlmeval-light]"'
    assert install_line("transformers", "finetune") == 'pip install "vlm-soup[finetune]"'
    assert install_line("matplotlib", "finetune") == 'pip install "vlm-soup[plot]"'
    assert install_line("wandb") == "pip install wandb"


def test_a_library_that_is_here_and_broken_is_no_missing_extra():
    assert missing_extra(ModuleNotFoundError("x", name="matplotlib.gumbo")) is None
    assert missing_extra(ImportError("x", name="matplotlib")) is None
    assert missing_extra(ValueError("x")) is None


def test_what_an_extra_lacks_is_told_with_what_it_asks_for_in_turn(monkeypatch):
    from soup.support import extras

    here = extras.distribution

    def distribution(name):
        if name in ("peft", "pyarrow"):  # the second is asked for by datasets
            raise extras.PackageNotFoundError(name)
        return here(name)

    assert absent_requirements("finetune") == []
    monkeypatch.setattr(extras, "distribution", distribution)
    assert absent_requirements("finetune") == ["peft", "pyarrow"]
