"""What `soup doctor` finds, with things taken away one by one."""

from __future__ import annotations

import errno
from collections import namedtuple

import pytest

from soup.errors import EvaluatorError
from soup.report import doctor
from soup.report.doctor import examine
from soup.support import file_lock


def find(subject, folder):
    (finding,) = (finding for finding in examine(folder) if finding.subject == subject)
    return finding


def test_locks_are_tried_on_the_disk_of_the_run(tmp_path, monkeypatch):
    assert find("locks", tmp_path / "ckpts.soup").state == "here"
    assert list(tmp_path.iterdir()) == []

    def no_locks(fd, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", no_locks)
    finding = find("locks", tmp_path)
    assert (finding.state, "nothing keeps two runs apart" in finding.text) == ("problem", True)


def test_a_directory_that_can_t_be_written_to_is_told(tmp_path, monkeypatch):
    def refuse(**arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert find("locks", tmp_path).mend == "--run-dir DIR"


def test_a_small_disk_is_a_problem(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    assert (find("run's disk", tmp_path).state, find("Hub's cache", tmp_path).mend) == ("problem", "export HF_HOME=DIR")


def test_kernels_that_were_not_compiled_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "has_kernels", lambda: False)
    assert "the same bytes, slower" in find("kernels", tmp_path).text


@pytest.mark.parametrize("library", ["transformers", "matplotlib", "ms-vlmeval"])
def test_what_is_not_installed_is_told_with_its_line(library, tmp_path, monkeypatch):
    from soup.support import extras

    here = extras.distribution

    def distribution(name):
        if name == library:
            raise extras.PackageNotFoundError(name)
        return here(name)

    monkeypatch.setattr(extras, "distribution", distribution)
    monkeypatch.setattr("importlib.metadata.version", lambda name: distribution(name).version)
    subject = {"transformers": "transformers", "matplotlib": "[plot]", "ms-vlmeval": "[vlmeval-light]"}[library]
    finding = find(subject, tmp_path)
    extra = {"matplotlib": "plot"}.get(library, "vlmeval-light")
    assert (finding.state, f'pip install "vlm-soup[{extra}]"' in finding.mend) == ("absent", True)


def test_data_of_benchmarks_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path))
    before = find("benchmarks", tmp_path)
    assert before.text.startswith("0 of ")
    (tmp_path / "MMStar.tsv").write_text("index\n")
    after = find("benchmarks", tmp_path)
    assert after.text.startswith("1 of ")
    assert "mmstar" in before.mend.split(",")
    assert "mmstar" not in after.mend.split(",")


def test_data_that_no_harness_can_look_for_are_no_finding_of_another_name(tmp_path, monkeypatch):
    def build(harness):
        raise EvaluatorError("This benchmark is scored by nobody.")

    monkeypatch.setattr(doctor, "build_evaluator", build)
    finding = find("benchmarks", tmp_path)
    assert (finding.state, finding.text) == ("absent", "their data are looked for once [vlmeval] is here, see above")
