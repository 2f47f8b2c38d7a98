"""The file system does not give a video to a run: one line, and no video is taken for broken."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.signalled import MODES
from tests.runs.command import Run

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("ordinary_environment")]


@pytest.mark.parametrize("mode", MODES)
def test_a_video_that_stays_away_ends_the_run(mode, synthetic, tmp_path):
    table = pq.read_table(synthetic.train)
    (tmp_path / "away.mp4").symlink_to("x" * 300)
    paths = [str(tmp_path / "away.mp4"), *table["path"].to_pylist()[1:]]
    place = table.column_names.index("path")
    pq.write_table(table.set_column(place, "path", pa.array(paths)), tmp_path / "train.parquet")
    run = Run(
        synthetic, tmp_path, "run", *MODES[mode], "tracking.mlflow=false",
        f"data.manifest={tmp_path}/train.parquet", "train.steps=200",
    )  # fmt: skip
    output, _ = run.start().communicate(timeout=280)
    (line,) = [line for line in output.splitlines() if "error" in line]
    assert line.startswith(f"error: {tmp_path}/away.mp4: cannot be read: File name too long, also")
    assert "Traceback" not in output
    assert not (run.path / "quarantine.json").exists()
