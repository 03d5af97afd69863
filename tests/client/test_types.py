"""The types of the client as pyright sees them. mypy looks at the same sample with all other tests, strictly."""

import json
import sys
from pathlib import Path

from tests.node_packages import NODE, installed, needs_node, run

SAMPLE = Path(__file__).parent / "typed_sample.py"
ROOT = Path(__file__).parents[2]
PYRIGHT = "1.1.414"


@needs_node
def test_pyright(tmp_path: Path) -> None:
    """What is right passes, and each mistake is one: a comment that hides none is an error."""
    config = {
        "include": [str(SAMPLE)],
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    script = installed("pyright", PYRIGHT) / "node_modules" / "pyright" / "index.js"
    done = run(NODE or "", script, "--project", tmp_path, "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
