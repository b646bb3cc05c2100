"""docs/tutorial.md: its blocks, run one after another as a reader does."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"```(bash|python|yaml)\n(.*?)```", PAGE, re.DOTALL)
OF_A_CHECKOUT = ("Snakefile", "rules", "profiles", "config", "report", "ftd")


@pytest.mark.slow
def test_the_blocks_run_as_they_stand(tmp_path):
    """In a folder as a checkout's: files are written by the name in their first line."""
    for name in OF_A_CHECKOUT:
        (tmp_path / name).symlink_to(ROOT / name)
    places = [os.path.dirname(sys.executable), os.environ["PATH"]]
    here = os.environ | {"PATH": os.pathsep.join(places), "PYTHONPATH": str(ROOT)}
    said = ""
    for kind, text in BLOCKS:
        if kind != "bash":
            (tmp_path / text.split()[1]).write_text(text)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path,
            env=here,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said += done.stdout
    assert (tmp_path / "results" / "photos" / "report.html").exists()
    assert "parameters" in said
    listed = re.search(r"^ *1\. (.*?): [-0-9.]+", said, re.MULTILINE)
    assert listed and f"ftd-nas/{listed[1]}/0/genotype.json" in said
