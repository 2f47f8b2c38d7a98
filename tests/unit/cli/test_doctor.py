"""`tats-ray doctor`: a healthy machine passes, and each check fails where it must."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.cli.doctor import doctor_main
from tats_ray.cli.machine_checks import CHECKS, judge_platform, judge_space
from tats_ray.config import load_config

COMMAND = (
    "import sys; from tats_ray.cli.commands import main; sys.exit(main(['doctor', *sys.argv[1:]]))"
)
ROOT = Path(__file__).resolve().parents[3]


def _checked(name, *settings):
    return list(CHECKS[name](load_config(None, ["run.name=doctor", *settings])))


def _run(*settings, **environment):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *settings],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def broken_packages(tmp_path):
    """A folder in front of the installed packages, in which some cannot be used."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "decord.py").write_text("raise OSError('libav.so: cannot open shared object file')")
    (folder / "cv2.py").write_text("raise ImportError('libGL.so.1: no such file')")
    (folder / "mlflow.py").write_text("")
    (folder / "ray.py").write_text("__version__ = '2.40.1'")
    return folder


def test_a_machine_that_runs_the_tests_is_healthy(tmp_path):
    done = _run(f"run.output_dir={tmp_path / 'runs'}")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    grades = {line[9:].partition(":")[0]: line.split()[0] for line in lines[1:-1]}
    assert grades.keys() == CHECKS.keys()
    assert set(grades.values()) <= {"ok", "warning"}
    assert {grades[name] for name in ("torch", "Ray", "decord", "PyAV", "codecs", "MLflow")} == {
        "ok"
    }
    assert lines[-1] == "nothing fails"
    assert list(tmp_path.iterdir()) == []


def test_broken_packages_fail_by_name_and_the_other_checks_go_on(broken_packages, tmp_path):
    path = os.pathsep.join([str(broken_packages), str(ROOT)])
    done = _run(
        f"run.output_dir={tmp_path}", "data.motion.source=lucas_kanade", "masking.system=trackmae",
        PYTHONPATH=path,
    )  # fmt: skip
    lines = {line[9:].partition(":")[0]: line for line in done.stdout.splitlines()[1:]}
    assert done.returncode == 1
    assert lines["Ray"].startswith("fails    Ray: Ray 2.40.1 is installed, tats_ray needs Ray 2.60")
    assert lines["decord"].startswith("fails    decord: the process for decoding ended while it st")
    assert "ImportError: cannot import name 'MlflowClient' from 'mlflow'" in lines["MLflow"]
    assert "data.motion.source=lucas_kanade needs OpenCV" in lines["OpenCV"]
    assert "libGL.so.1: no such file" in lines["OpenCV"] and "tats-ray[motion]" in lines["OpenCV"]
    assert lines["torch"].startswith("ok") and lines["token"][:7] in ("ok     ", "warning")
    assert "of the checks failed" in done.stdout.splitlines()[-1]


def test_a_folder_below_a_file_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert doctor_main([f"run.output_dir={tmp_path / 'file' / 'runs'}"]) == 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "output directory" in one]
    assert line.startswith("fails    output directory: ")
    assert line.endswith("a file is in the way of a folder: move it, or choose another place")


def test_a_disk_without_space_fails():
    """/proc is a file system with no space at all."""
    (finding,) = _checked("disk", "run.output_dir=/proc/runs")
    assert finding.grade == "fails"
    assert finding.text.startswith("0.0 GiB free for /proc/runs; free some")


@pytest.mark.parametrize(
    ("gibibytes", "grade"), [(0.9, "fails"), (1.1, "warning"), (9.9, "warning"), (10.1, "ok")]
)
def test_space_is_graded(gibibytes, grade):
    assert judge_space(Path("runs"), int(gibibytes * 2**30)).grade == grade


@pytest.mark.parametrize(
    ("machine", "grade"),
    [
        (((3, 11), "Linux", "x86_64"), "ok"),
        (((3, 10), "Linux", "x86_64"), "fails"),
        (((3, 13), "Darwin", "arm64"), "fails"),
        (((3, 12), "Linux", "aarch64"), "warning"),
    ],
)
def test_platforms_are_graded(machine, grade):
    assert [finding.grade for finding in judge_platform(*machine)] == [grade]


def test_a_store_larger_than_shared_memory_is_a_warning():
    (finding,) = _checked("shared memory", "cluster.object_store_mb=100000000")
    assert finding.grade == "warning"
    assert "the object store takes 100000000" in finding.text


def test_bf16_that_is_emulated_is_a_warning():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU may have bf16")
    assert [one.grade for one in _checked("torch", "train.precision=bf16")] == ["warning"]
    assert [one.grade for one in _checked("torch")] == ["ok"]


@pytest.mark.parametrize(("mode", "grade"), [(0o600, "ok"), (0o644, "warning")])
def test_a_token_that_others_can_read_is_a_warning(mode, grade, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("0" * 64)
    file.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (finding,) = _checked("token")
    assert finding.grade == grade
    assert ("chmod 600" in finding.text) == (mode == 0o644)
    assert file.stat().st_mode & 0o777 == mode  # it looks, it does not mend


def test_a_bad_setting_is_one_line_before_any_check(capsys):
    assert doctor_main(["rl.nothing=1"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: rl.nothing: unknown key")
