"""Links of the documentation lead somewhere, commands in it are soup's, and its blocks of code can be read."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex

import click
import pytest
import yaml

from soup.cli.app import cli
from tests.docs.pages import PAGES, ROOT, blocks, inline_commands, shell_lines, text_of, without_code


def name_of(page):
    return page.relative_to(ROOT).as_posix()


NAMES = [name_of(page) for page in PAGES]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
INCLUDED = re.compile(r'--8<-- "(.+)"')
UNFINISHED = (click.MissingParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError)
PROGRAMS = ("soup", "vlm-soup", "vllm-env/bin/soup")


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_within_the_repository_leads_to_a_file_and_a_heading(page):
    for target in LINK.findall(without_code(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_all_rows_of_a_table_have_the_cells_of_its_head(page):
    text = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^ *\|.*\n)+", text, re.MULTILINE):
        bars = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(bars)) == 1, table


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_one_that_soup_takes(page, monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *others: value)  # files need not be here
    commands = [shlex.split(line, comments=True) for line in shell_lines(page) if line.startswith(PROGRAMS)]
    refusals = [refusal_of(words[1:]) for words in commands if words and words[0] in PROGRAMS]
    assert [text for text in refusals if text] == []


# The changelog names commands of earlier versions.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_a_command_within_a_sentence_is_right_as_far_as_it_goes(page, monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *others: value)
    refusals = [refusal_of(shlex.split(line)[1:], whole=False) for line in inline_commands(page)]
    assert [text for text in refusals if text] == []


def refusal_of(words, *, whole=True):
    """Parse a command line as the program would, and run nothing; return why it is refused, or nothing."""
    command, line = cli, shlex.join(words)
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        return f"soup {line}: no such command"
    try:
        command.make_context("soup", words, click.Context(cli, **cli.context_settings))
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.UsageError as error:
        if whole or not isinstance(error, UNFINISHED):
            return f"soup {line}: {error.format_message()}"
    return ""


def file_of(included):
    return text_of(ROOT / included[1])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_python_compiles_and_what_it_imports_of_soup_is_there(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(INCLUDED.sub(file_of, code))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("soup", "evaluators", "finetune"):
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_yaml_and_json_can_be_read(page):
    assert None not in [yaml.safe_load(code) for code in blocks(page, "yaml")]
    assert None not in [json.loads(code) for code in blocks(page, "json")]


def test_every_page_is_in_the_navigation_once():
    nav = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    on_site = [name.removeprefix("docs/") for name in NAMES]
    assert sorted(nav) == sorted([*on_site, "examples/notebook.md"])


def test_every_command_is_in_use_md():
    text = text_of(ROOT / "docs/use.md")
    assert [name for name in cli.commands if not re.search(rf"\bsoup {name}\b", text)] == []


OFFERED = ["soup", "soup.search.strategies", "soup.merging.methods", "soup.evaluation.api", "soup.testing"]
CONSTANTS = {"__version__", "ALL", "LIKELIHOOD", "Part", "TargetSyntax", "TINY_SHAPES"}


def test_what_python_and_plug_ins_are_offered_is_on_the_page_of_python():
    listed = re.findall(r"^::: ([\w.]+)$", text_of(ROOT / "docs/api.md"), re.MULTILINE)
    for name in listed[:-1]:  # the last is the module of all errors
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name
    shown = {name.rpartition(".")[2] for name in listed}
    for module in OFFERED:
        assert {*importlib.import_module(module).__all__} - CONSTANTS - shown == set(), module
    assert {"Engine", "Prompt", "OnBatch"} <= shown


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150
