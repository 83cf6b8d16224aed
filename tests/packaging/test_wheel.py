"""The sdist and its wheel, installed outside of the source tree beside soup's own requirements alone.

Nothing is downloaded: the libraries are those of the environment that runs the tests, linked into a new one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("soup", "evaluators", "finetune")
BUILT = shutil.ignore_patterns("__pycache__", "*.so")
WITHOUT_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}


def run(*words, cwd, **environment):
    """Run a process without this environment's paths; return its stdout."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=BUILT)
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, source / "dist", cwd=source)
    (path,) = (source / "dist").glob("*.tar.gz")
    return path


def build_wheel(sdist, folder, **environment):
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, sdist, cwd=sdist.parent, **environment)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


def required(names):
    """The distributions of the libraries, and of those that they ask for."""
    distributions, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name not in distributions:
            distributions[name] = importlib.metadata.distribution(name)
            needed = map(Requirement, distributions[name].requires or [])
            waiting += [need.name for need in needed if not need.marker or need.marker.evaluate({"extra": ""})]
    return distributions.values()


def make_environment(folder, wheel):
    """An environment that holds the wheel and what it asks for; without any extra's libraries."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (libraries,) = folder.glob("lib/python*/site-packages")
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    names = [Requirement(line).name for line in setup["options"]["install_requires"].split("\n") if line]
    for distribution in required(names):
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (libraries / top).exists():
                (libraries / top).symlink_to(distribution.locate_file(top))
    python = folder / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd="/"
    )
    return folder / "bin" / "soup"


@pytest.fixture(scope="module")
def soup(wheel, tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", wheel)


@pytest.fixture(scope="module")
def demo(soup, tmp_path_factory):
    """A folder with what `soup demo` made, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(soup, "demo", cwd=folder)


def state(soup, subject, cwd):
    findings = json.loads(run(soup, "doctor", "--json", cwd=cwd))["findings"]
    return next(finding["state"] for finding in findings if finding["subject"] == subject)


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel):
    files = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    expected = {path.as_posix() for path in files if not {path.suffix, path.parent.name} & {".so", "__pycache__"}}
    held = {
        name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name and not name.endswith(".so")
    }
    assert held == expected - {"finetune/README.md"}


def test_the_sdist_holds_the_sources_of_the_kernels(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"soup/merging/kernels/kernels.c", "soup/merging/kernels/arithmetic.h", "LICENSE"} <= names


def test_the_commands_answer_outside_of_the_source_tree(soup, tmp_path):
    where = run(soup.parent / "python", "-c", "import soup; print(soup.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(soup.parents[1])
    assert "soup demo" in run(soup, cwd=tmp_path)
    assert "Start:" in run(soup, "--help", cwd=tmp_path)
    assert "greedy" in run(soup, "list", "strategies", cwd=tmp_path)
    assert "linear" in run(soup, "list", "methods", cwd=tmp_path)
    assert run(soup.with_name("vlm-soup"), "--version", cwd=tmp_path).startswith("soup, version ")


def test_doctor_finds_compiled_kernels_and_no_extra(soup, tmp_path):
    assert state(soup, "kernels", tmp_path) == "here"
    assert state(soup, "transformers", tmp_path) == "absent"
    assert state(soup, "[plot]", tmp_path) == "absent"


def test_the_demo_needs_what_soup_needs_alone(demo):
    folder, said = demo
    assert "greedy" in said
    page = (folder / "soup-demo" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page


def test_without_a_compiler_soup_is_installed_all_the_same_and_merges_the_same_bytes(sdist, demo, tmp_path):
    wheel = build_wheel(sdist, tmp_path / "wheel", **WITHOUT_COMPILER)
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    soup = make_environment(tmp_path / "venv", wheel)
    assert state(soup, "kernels", tmp_path) == "absent"
    made = demo[0] / "soup-demo"
    run(soup, "average", "--pool", made / "ckpts", "-o", tmp_path / "out", cwd=tmp_path)
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (made / "average" / weights).read_bytes()
