"""The README's Python examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def test_there_are_examples():
    assert len(EXAMPLES) == README.read_text().count("```python") > 0


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_prints_what_its_comments_say(example, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(example)
    printed = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == printed
