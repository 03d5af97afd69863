"""Names of models, and a file that adds more."""

import re
from pathlib import Path

import pytest
import tiktoken

from convgrpc.tokens.encodings import ENCODINGS
from convgrpc.tokens.families import DEFAULT, FAMILIES, IMAGES, MODELS, Models
from convgrpc.tokens.images import Patches, Tiles
from convgrpc.tokens.models_file import BadModelsFile, read_models
from tests.tokens.asking import asked

NAMES = [
    ("gpt-4o", "gpt-4o", "tiles-85", 128_000),
    ("gpt-4o-2024-08-06", "gpt-4o", "tiles-85", 128_000),
    ("chatgpt-4o-latest", "gpt-4o", "tiles-85", 128_000),
    ("gpt-4o-mini", "gpt-4o", "tiles-2833", 128_000),
    ("gpt-4o-mini-2024-07-18", "gpt-4o", "tiles-2833", 128_000),
    ("ft:gpt-4o-mini-2024-07-18:ferns::Ab1", "gpt-4o", "tiles-2833", 128_000),
    ("ft:gpt-4.1-nano-2025-04-14:ferns:shade:Ab1", "gpt-4.1", "patches-2.46", 1_047_576),
    ("gpt-4.1", "gpt-4.1", "tiles-85", 1_047_576),
    ("gpt-4.1-mini-2025-04-14", "gpt-4.1", "patches-1.62", 1_047_576),
    ("gpt-4.1-nano", "gpt-4.1", "patches-2.46", 1_047_576),
    ("gpt-4.5-preview", "gpt-4o", "tiles-85", 128_000),
    ("gpt-4", "gpt-4-0613", "tiles-85", 8_192),
    ("gpt-4-0613", "gpt-4-0613", "tiles-85", 8_192),
    ("gpt-4-32k", "gpt-4", "tiles-85", 32_768),
    ("gpt-4-turbo-2024-04-09", "gpt-4", "tiles-85", 128_000),
    ("gpt-3.5-turbo", "gpt-4", "tiles-85", 16_385),
    ("gpt-5", "gpt-5", "tiles-70", 400_000),
    ("gpt-5-2025-08-07", "gpt-5", "tiles-70", 400_000),
    ("gpt-5-pro", "gpt-5", "tiles-70", 400_000),
    ("gpt-5-mini", "gpt-5", "patches-1.2", 400_000),
    ("gpt-5-mini-2025-08-07", "gpt-5", "patches-1.2", 400_000),
    ("gpt-5-nano", "gpt-5", "patches-1.5", 400_000),
    ("gpt-5.1", "gpt-5", "tiles-70", 400_000),
    ("gpt-5.2-chat-latest", "gpt-5", "tiles-70", 128_000),
    ("gpt-5.2-2025-12-11", "gpt-5", "tiles-70", 400_000),
    ("gpt-5.4", "gpt-5.4", "patches-1.2", 1_050_000),
    ("gpt-5.4-mini", "gpt-5.4-mini", "patches-1.2", 400_000),
    ("gpt-5.4-nano-2026-03-17", "gpt-5.4", "patches-1.2", 400_000),
    ("gpt-5.5", "gpt-5.4", "patches-1.2", 1_050_000),
    ("gpt-5.6", "gpt-5.6", "patches-1.2", 1_050_000),
    ("gpt-5.6-sol", "gpt-5.6", "patches-1.2", 1_050_000),
    ("gpt-5.7", "gpt-5.6", "patches-1.2", 1_050_000),
    ("gpt-5.10", "gpt-5.6", "patches-1.2", 1_050_000),
    ("o1", "o-series", "tiles-75", 200_000),
    ("o1-mini", "o-series", "tiles-75", 128_000),
    ("o3-2025-04-16", "o-series", "tiles-75", 200_000),
    ("o3-mini", "o-series", "patches-1.72", 200_000),
    ("o4-mini-2025-04-16", "o4-mini", "patches-1.72", 200_000),
    ("o5-mini", "o-series", "patches-1.72", 200_000),
    ("computer-use-preview", "gpt-4o", "tiles-65", 8_192),
    ("gpt-oss-120b", "gpt-5", "tiles-70", 131_072),
]


@pytest.mark.parametrize(("name", "family", "images", "window"), NAMES, ids=[row[0] for row in NAMES])
def test_a_name_leads_to_what_is_known(name: str, family: str, images: str, window: int) -> None:
    """Snapshots, fine-tuned models and members of a family that is known already."""
    assert Models().resolve(name) == (FAMILIES[family], IMAGES[images], window, True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "fern",
        "gpt",
        "gpt-",
        "gpt-4ofern",
        "gpt-5.fern",
        "xgpt-5",
        "GPT-5",
        "ft:",
        "ft:fern:gpt-5",
        "o",
        "o3mini",
        "5",
    ],
)
def test_a_name_of_which_nothing_is_known_counts_as_the_default(name: str) -> None:
    """It says so."""
    models = Models()
    assert models.resolve(name) == models.resolve(DEFAULT)._replace(known=False)
    assert models.resolve(DEFAULT).known


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_encodings_are_those_that_tiktoken_knows(encoding: str) -> None:
    """For the names that tiktoken knows too; of fine-tuned models it looks at no more than the first letters."""
    checked = 0
    for name in (row[0] for row in NAMES if not row[0].startswith("ft:")):
        try:
            theirs = tiktoken.encoding_name_for_model(name)
        except KeyError:
            continue
        ours = Models().resolve(name).family.encoding.replace("o200k_harmony", "o200k_base")
        assert ours == theirs.replace("o200k_harmony", "o200k_base"), name
        checked += theirs == encoding
    assert checked > 2


def test_the_table_leads_somewhere() -> None:
    """Every row has a family and a rule for images, every family an encoding."""
    for model in MODELS:
        assert model.family in FAMILIES, model
        assert model.images in IMAGES, model
        assert model.context_window > 0
    assert {family.encoding for family in FAMILIES.values()} <= set(ENCODINGS)
    assert {name: family.name for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}


def test_no_row_of_the_table_is_hidden() -> None:
    """Some name is decided by each."""
    names = [row[0] for row in NAMES] + ["codex-mini-latest"]
    plain = [name.split(":")[1] if name.startswith("ft:") else name for name in names]
    decided = {next(model for model in MODELS if re.fullmatch(model.pattern, name)) for name in plain}
    assert decided == set(MODELS)


ADDED = """
[families.fern]
like = "gpt-5"
request = 7
encoding = "cl100k_base"

[images.leaves]
base = 11
tile = 13

[images.spores]
per_patch = 2.5
extra = 3
most = 9

[[models]]
pattern = "fern-.*"
family = "fern"
images = "leaves"
context_window = 1000

[[models]]
pattern = "moss"
family = "gpt-4o"
images = "spores"
context_window = 2000

[[models]]
pattern = "lichen"
family = "o-series"
context_window = 3000

[[models]]
pattern = 'gpt-5\\.6'
family = "gpt-4o"
context_window = 4000
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(ADDED)
    return path


def test_a_file_adds_models_families_and_rules_for_images(file: Path) -> None:
    """A family is like another but for what is said of it; images are tiles where nothing is said."""
    models = read_models(file)
    fern = models.resolve("fern-1")
    assert fern[1:] == (Tiles(11, 13), 1000, True)
    assert (fern.family.name, fern.family.request, fern.family.encoding) == ("fern", 7, "cl100k_base")
    assert fern.family.assistant == FAMILIES["gpt-5"].assistant == 2
    assert models.resolve("moss") == (FAMILIES["gpt-4o"], Patches(2.5, 3, 9), 2000, True)
    assert models.resolve("lichen") == (FAMILIES["o-series"], Tiles(85, 170), 3000, True)
    assert models.resolve("gpt-5") == Models().resolve("gpt-5")


def test_a_file_goes_before_the_table(file: Path) -> None:
    """Also for the default, and so for what is not known."""
    models = read_models(file)
    assert models.resolve("gpt-5.6") == (FAMILIES["gpt-4o"], Tiles(85, 170), 4000, True)
    assert models.resolve("unheard-of") == (FAMILIES["gpt-4o"], Tiles(85, 170), 4000, False)
    assert models.resolve("gpt-5.6-sol") == Models().resolve("gpt-5.6-sol")


def test_models_of_a_file_count(file: Path) -> None:
    """By the numbers of the file."""
    answer = asked(read_models(file), model="fern-1", input="Tell me a joke.")
    assert (answer.family, answer.encoding, answer.input_tokens) == ("fern", "cl100k_base", 7 + 4 + 5)
    assert (answer.context_window, answer.context_left, list(answer.estimates)) == (1000, 984, [])


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    """It is the table."""
    (tmp_path / "models.toml").touch()
    models = read_models(tmp_path / "models.toml")
    assert [models.resolve(row[0]) for row in NAMES] == [Models().resolve(row[0]) for row in NAMES]


MODEL = '[[models]]\npattern = "fern"\nfamily = "gpt-5"\ncontext_window = 9\n'
MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "no TOML": ("models = [", "Invalid value"),
    "no UTF-8": (b'[families.f]\nlike = "\xff"', "utf-8"),
    "another table": ("[modells]\n", "modells"),
    "a family that is not there": (MODEL.replace("gpt-5", "gpt-55"), "gpt-55"),
    "a rule for images that is not there": (MODEL + 'images = "tiels"\n', "tiels"),
    "a model with another key": (MODEL + "window = 3\n", "window"),
    "a model without a pattern": (MODEL.replace("pattern", "images").replace("fern", "tiles-85"), "pattern"),
    "a model without a context window": (MODEL.replace("context_window = 9\n", ""), "context_window"),
    "a pattern that is none": (MODEL.replace("fern", "fern("), "unterminated"),
    "a pattern that is no text": (MODEL.replace('"fern"', "3"), "pattern"),
    "a context window that is no number": (MODEL.replace("9", '"9"'), "context_window"),
    "a context window that is no whole number": (MODEL.replace("9", "9.5"), "context_window"),
    "a context window of nothing": (MODEL.replace("9", "-9"), "context_window"),
    "models that are no list": ('[models]\npattern = "fern"\n', "models"),
    "models that are no tables": ("models = [3]\n", "models"),
    "families that are no table": ("families = 3\n", "families"),
    "a family that is no table": ("[families]\nfern = 3\n", "fern"),
    "a family like none": ("[families.fern]\nrequest = 3\n", "like"),
    "a family like one that is not there": ('[families.fern]\nlike = "gpt-55"\n', "gpt-55"),
    "a family with another key": ('[families.fern]\nlike = "gpt-5"\nreqest = 3\n', "reqest"),
    "a number that is none": ('[families.fern]\nlike = "gpt-5"\nrequest = "3"\n', "request"),
    "a number that is not whole": ('[families.fern]\nlike = "gpt-5"\nmessage = 3.5\n', "message"),
    "an encoding that is not there": ('[families.fern]\nlike = "gpt-5"\nencoding = "o300k"\n', "o300k"),
    "a brace that is no text": ('[families.fern]\nlike = "gpt-5"\nbrace = 3\n', "brace"),
    "images that are no table": ("images = 3\n", "images"),
    "a rule with another key": ("[images.leaves]\nbase = 1\ntile = 2\nleaf = 3\n", "leaf"),
    "a rule without a base": ("[images.leaves]\ntile = 2\n", "base"),
    "a rule of nothing": ("[images.leaves]\n", "per_patch"),
    "a rule whose numbers are none": ('[images.leaves]\nbase = "1"\ntile = 2\n', "base"),
}


@pytest.mark.parametrize(("content", "wrong"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_file_is_told(content: str | bytes, wrong: str, tmp_path: Path) -> None:
    """When the file is read, with its name and what is wrong in it."""
    path = tmp_path / "models.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadModelsFile) as told:
        read_models(path)
    assert str(told.value).startswith(f"{path}: ")
    assert wrong in str(told.value).removeprefix(f"{path}: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """So is a folder in its place."""
    for path in (tmp_path / "models.toml", tmp_path):
        with pytest.raises(BadModelsFile, match="models.toml" if path != tmp_path else "directory"):
            read_models(path)
