"""The types of the client as pyright sees them. mypy looks at the same sample with all other tests, strictly."""

import json
import shutil
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
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    # What is outside of the project's folder is passed over without a word.
    shutil.copy(SAMPLE, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    script = installed("pyright", PYRIGHT) / "node_modules" / "pyright" / "index.js"
    done = run(NODE or "", script, "--project", tmp_path, "--pythonpath", sys.executable, "--outputjson")
    report = json.loads(done.stdout)
    assert report["generalDiagnostics"] == []
    assert report["summary"]["filesAnalyzed"] == 1
