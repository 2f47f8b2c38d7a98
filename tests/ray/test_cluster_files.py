"""configs/cluster: Ray's own check of the file for `ray up`, tokens everywhere, jobs that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "cluster"


def _read(name):
    return yaml.safe_load((FOLDER / name).read_text())


def test_ray_up_takes_the_file_and_gives_every_node_the_token():
    config = prepare_config(_read("ray_up.yaml"))
    validate_config(config)
    starts = [
        command
        for part in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[part]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_the_job_script_is_a_shell_script_with_the_token_on():
    script = FOLDER / "ray_job.sh"
    subprocess.run(["sh", "-n", script], check=True)
    assert "export RAY_AUTH_MODE=token" in script.read_text()


SHIPPED = [
    path
    for folder in ("configs", "docs", "jobs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".md", ".yaml", ".sh"}
]


@pytest.mark.parametrize(
    "file", [ROOT / "README.md", *SHIPPED], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_start_turns_tokens_off_or_opens_the_dashboard(file):
    text = file.read_text()
    assert not re.search(r"RAY_AUTH_MODE=(?!token)", text)
    assert set(re.findall(r"--dashboard-host=(\S+)", text)) <= {"127.0.0.1"}
    if re.search(r"ray (start --head|job submit) ", text):
        assert "RAY_AUTH_MODE=token" in text
