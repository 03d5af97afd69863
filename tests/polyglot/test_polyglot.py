"""Programs in other languages live through a conversation, against a real server, and see the same."""

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.json_format import MessageToJson

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.server.app import Running
from convgrpc.v1.conversations_service_pb2 import ConversationItemList
from convgrpc.v1.item_pb2 import ConversationItem

from .life import Life

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "polyglot"
CORPUS = HERE.parent / "corpus" / "items.jsonl"
GOLDEN = HERE / "golden.json"

BUILD_TIMEOUT = 1800
RUN_TIMEOUT = 120

MEMBERS = ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields
# A reference needs an item to refer to: the programs make it themselves.
SENT = [field for field in MEMBERS if not (options.kind(field) or options.Kind()).reference]


class Language(NamedTuple):
    """What a language needs to be installed, and the commands, in the program's folder, that build and run it."""

    tools: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]


LANGUAGES = {
    "go": Language(("go",), (("go", "build", "-o", "life", "."),), ("./life",)),
    "typescript": Language(
        ("node", "npm"),
        (("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"), ("npx", "--no-install", "tsc")),
        ("node", "out/life.js"),
    ),
    "java": Language(
        ("java", "mvn"),
        (("mvn", "--batch-mode", "--quiet", "process-classes"),),
        ("java", "-cp", "target/classes:target/lib/*", "Life"),
    ),
}


def items() -> list[ConversationItem]:
    """An item of each kind that can be sent on its own: the one in the corpus that says the most."""
    longest: dict[str, str] = {}
    for line in CORPUS.read_text().splitlines():
        row = json.loads(line)
        longest[row["kind"]] = max(longest.get(row["kind"], ""), json.dumps(row["value"]), key=len)
    return [decode(ConversationItem, json.loads(longest[field.name])) for field in SENT]


def settled(seen: object) -> Any:
    """What a program saw, with times left out, and ids that the server made numbered as they appear."""
    text = re.sub(r'"createdAt": "\d+"', '"createdAt": "0"', json.dumps(seen, sort_keys=True))
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"{match[1]}_#{numbers.setdefault(match[0], len(numbers) + 1)}"

    return json.loads(re.sub(r"\b([a-z]+)_[0-9a-f]{48}\b", numbered, text))


def check(language: str, seen: object) -> None:
    """Compares with golden.json. Where that is to change, what was seen is at hand to take its place."""
    found = settled(seen)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / f"{language}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text()), f"unlike build/polyglot/{language}.json"


def run(*command: str | Path, folder: Path = ROOT, timeout: int = BUILD_TIMEOUT) -> str:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def built(language: str) -> Path:
    """The folder where the program is built, from its sources and the stubs; made anew when one of these changes."""
    sources = sorted((HERE / language).iterdir())
    made_of = [*sources, *sorted((ROOT / "protos").rglob("*.proto")), ROOT / "buf.gen.yaml", ROOT / "scripts" / "stubs"]
    digest = hashlib.sha256(repr(LANGUAGES[language]).encode())
    for path in made_of:
        digest.update(path.read_bytes())
    folder = BUILD / language
    folder.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{language}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "built-from"
        if not stamp.exists() or stamp.read_text() != digest.hexdigest():
            stamp.unlink(missing_ok=True)
            shutil.rmtree(folder / "gen", ignore_errors=True)
            for source in sources:
                shutil.copy(source, folder)
            run(sys.executable, ROOT / "scripts" / "stubs", "--out", folder, language)
            for command in LANGUAGES[language].build:
                run(*command, folder=folder)
            stamp.write_text(digest.hexdigest())
    return folder


def test_golden_has_every_kind_of_item() -> None:
    """Those that were appended are of every kind but references, and what a reference stands for came back."""
    golden = json.loads(GOLDEN.read_text())
    appended = [key for page in golden["appended"] for item in page["data"] for key in item]
    assert [field.name for field in SENT if appended.count(field.json_name) != 1] == []
    assert golden["copied"]["data"] == [golden["item"]]


def test_python(server: Running) -> None:
    """The committed stubs see what golden.json has, whichever other languages are installed."""
    with grpc.insecure_channel(str(server.grpc)) as channel:
        check("python", Life(channel).live(items()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_program(language: str, server: Running, tmp_path: Path) -> None:
    """Stubs made afresh see the same; where the language is installed, that they cannot be made is a failure too."""
    for tool in LANGUAGES[language].tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    folder = built(language)
    (tmp_path / "items.json").write_text(MessageToJson(ConversationItemList(data=items())))
    command = LANGUAGES[language].run
    printed = run(*command, str(server.grpc), tmp_path / "items.json", folder=folder, timeout=RUN_TIMEOUT)
    check(language, json.loads(printed))
