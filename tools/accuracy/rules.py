"""Rules: the constants and behaviours of the counter, and how to count without each of them.

A rule is data. While it is switched off, it changes constants of families, rows of the table of models or rules for
images, or it replaces a function or a value of a module. The counter itself knows nothing of this.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from convgrpc.tokens.families import FAMILIES, IMAGES, MODELS, Family, Model, Models
from convgrpc.tokens.images import Image, Patches
from convgrpc.tokens.images import Rule as ImageRule


def _same_family(family: Family) -> Family:
    return family


def _same_model(model: Model) -> Model:
    return model


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of the counter, and what takes its place when it is switched off."""

    name: str
    description: str
    family: Callable[[Family], Family] = _same_family
    """Makes each family one without the rule."""
    model: Callable[[Model], Model] = _same_model
    """Makes each row of the table of models one without the rule."""
    images: Mapping[str, ImageRule] = field(default_factory=dict)
    """Rules for images that take the place of those of the same names."""
    replaced: Mapping[str, Any] = field(default_factory=dict)
    """Functions and values that take the place of those at these paths within `convgrpc.tokens`."""


@contextmanager
def switched_off(rule: Rule) -> Iterator[Models]:
    """Switches a rule off for as long as the context lasts, and yields the table of models without it."""
    with ExitStack() as stack:
        for path, value in rule.replaced.items():
            stack.enter_context(patch(f"convgrpc.tokens.{path}", value))
        families = {name: rule.family(family) for name, family in FAMILIES.items()}
        yield Models(list(map(rule.model, MODELS)), families, {**IMAGES, **rule.images})


class _NoTokens:
    """A rule for images that makes nothing of any."""

    def tokens(self, image: Image) -> int:
        return 0


def _constants(name: str, description: str, only: str = "", **values: Any) -> Rule:
    """Makes a rule of constants, which have other values when it is off, in one family or in all."""

    def without(family: Family) -> Family:
        return replace(family, **values) if only in ("", family.name) else family

    return Rule(name=name, description=description, family=without)


def _hosted(kind: str, description: str) -> Rule:
    def without(family: Family) -> Family:
        return replace(family, hosted={**family.hosted, kind: 0})

    return Rule(name=f"tool {kind}", description=description, family=without)


def _images(name: str) -> Rule:
    description = f"Images count by the rule '{name}' of the models that have it."
    return Rule(name=f"images {name}", description=description, images={name: _NoTokens()})


def _nothing(*_: Any) -> str:
    return ""


def _without_parallel(family: Family) -> Family:
    return replace(family, parallel=0, parallel_call=family.call)


def _like_o_series(model: Model) -> Model:
    return model._replace(family="o-series") if model.pattern.startswith("computer-use") else model


def _web_search_of_gpt_5_4(family: Family) -> Family:
    return replace(family, hosted=FAMILIES["gpt-5.4"].hosted) if family.name == "gpt-5.4-mini" else family


def _assistant(family: Family) -> Family:
    return family if family.name == "o4-mini" else replace(family, assistant=0)


_BOUNDLESS = {name: rule._replace(most=2**62) for name, rule in IMAGES.items() if isinstance(rule, Patches)}

RULES = (
    # Requests and messages
    _constants("request", "A request has some tokens by which the model begins to answer.", request=0),
    _constants("message", "A message has 4 tokens around its text.", message=0),
    Rule(name="assistant", description="From gpt-5 on, an assistant's message has 2 more.", family=_assistant),
    _constants("assistant o4-mini", "An assistant's message has 2 more on o4-mini.", only="o4-mini", assistant=0),
    _constants(
        "commentary", "From gpt-5 on, an assistant's message in the phase 'commentary' has 1 more.", commentary=0
    ),
    Rule(
        name="computer-use-preview",
        description="computer-use-preview reads requests as gpt-4o does, not as o3 does.",
        model=_like_o_series,
    ),
    # Calls and reasoning
    _constants("call", "A function call has some tokens around it.", call=0, parallel_call=0),
    _constants("output", "The output of a call has 4 tokens around it.", output=0),
    _constants("nameless output", "An output without its call has 2 tokens in place of the name.", nameless=0),
    Rule(
        name="name behind a point",
        description="The name of a called function is counted with a point before it.",
        replaced={
            "items.name_tokens": lambda name, encoding: encoding.count(name),
            "tools.name_tokens": lambda name, encoding: encoding.count(name),
        },
    ),
    _constants("stored call", "Up to gpt-5.3, a single call with the id of the API has 3 more.", stored_call=0),
    _constants(
        "stored call with status",
        "In the gpt-4 families, such a call must have its status too.",
        stored_call_has_status=False,
    ),
    Rule(
        name="parallel calls",
        description="From gpt-5.4 on, calls made together have 22 and 10 each, not 16 each.",
        family=_without_parallel,
    ),
    _constants(
        "namespaced call",
        "On gpt-5.4, a call has its namespace twice, and 3 less.",
        namespace_times=0,
        namespaced_call=0,
    ),
    _constants("compact arguments", "From gpt-5.4 on, arguments are read without spaces.", compact_arguments=False),
    Rule(
        name="reasoning of earlier turns",
        description="Reasoning from before the user's last message is not read, unless asked for or on gpt-5.6.",
        replaced={"count.keeps_reasoning": lambda *_: True},
    ),
    _constants("reasoning gpt-5.6", "From gpt-5.6 on, reasoning of all turns is read.", all_reasoning=False),
    Rule(
        name="encrypted content",
        description="Encrypted content counts by its length.",
        replaced={"items._encrypted": lambda *_: 0},
    ),
    _constants("reasoning mode pro", "Reasoning in the mode 'pro' has 1,531 more.", pro_mode=0),
    # Tools
    _constants("functions", "The declarations of functions have some tokens around them.", functions=0),
    _constants("brace", "In the gpt-4 families, a space is before the brace of the namespace.", brace="{"),
    Rule(
        name="titles and descriptions",
        description="Titles and descriptions are comments.",
        replaced={"typescript._comment": _nothing},
    ),
    Rule(
        name="object in a line",
        description="An object without comments is in one line.",
        replaced={"typescript._fit_in_a_line": lambda _: False},
    ),
    Rule(
        name="bounds",
        description="minimum and maximum are comments before a property.",
        replaced={"typescript._BOUNDS": ("minLength",)},
    ),
    Rule(
        name="default",
        description="A default is a comment behind a property.",
        replaced={"typescript._default": _nothing},
    ),
    Rule(
        name="minLength",
        description="minLength is a comment before a property.",
        replaced={"typescript._BOUNDS": ("minimum", "maximum")},
    ),
    Rule(
        name="additionalProperties",
        description="An object with comments and other properties has one more line.",
        replaced={"typescript._other_properties": _nothing},
    ),
    _constants(
        "forced function",
        "In the gpt-4 families, a function that must be called has 7 and its name.",
        forced_function=None,
    ),
    _constants("no function", "In the gpt-4 families, tool_choice 'none' has 1.", no_function=0),
    _constants("parallel_tool_calls", "On gpt-5, parallel_tool_calls=false has 78.", sequential_calls=0),
    _constants("custom tool", "A custom tool has 37, or 70 with a grammar.", custom_tool=0, custom_grammar=0),
    _constants("additional tools", "An item of additional tools has some 92.", additional_tools=0),
    _constants(
        "tool search",
        "The search of tools has 341, and 34 for each function that is not loaded yet.",
        tool_search=0,
        deferred_function=0,
    ),
    _constants(
        "tool search items",
        "A call of the search of tools has 15, and its output some 113.",
        tool_search_call=0,
        tool_search_output=0,
        client_tool_search_output=0,
    ),
    _hosted("web_search", "web_search has 294 in the gpt-4 families, and 4,295 from gpt-5 on."),
    _hosted("web_search_preview", "web_search_preview has as many as web_search."),
    Rule(
        name="web_search gpt-5.4-mini",
        description="web_search has 4,436 on gpt-5.4-mini.",
        family=_web_search_of_gpt_5_4,
    ),
    _hosted("image_generation", "image_generation has 342."),
    _hosted("apply_patch", "apply_patch has 623."),
    _hosted("code_interpreter", "code_interpreter has 640 from gpt-5 on."),
    _hosted("computer_use_preview", "computer_use_preview has 484."),
    # The response's format
    Rule(
        name="json_schema",
        description="The schema of a response's format is read as JSON under a heading.",
        replaced={"count.count_format": lambda *_: 0},
    ),
    _constants("json_schema around", "In the gpt-4 families, that has 1 more.", json_schema=0),
    Rule(
        name="json_schema keywords",
        description="Keywords that bind the answer, such as 'required', are not read in it.",
        replaced={"formats._UNREAD": frozenset()},
    ),
    # Images
    *map(_images, IMAGES),
    Rule(name="most patches", description="An image has at most 1,536 patches.", images=_BOUNDLESS),
    _constants("image beside tools", "From o1 on, images beside tools have 3 more, once.", image_beside_tools=0),
    _constants("lone image", "On gpt-4.1, a message of one image after another message has 1 more.", lone_image=0),
    # Files
    Rule(
        name="file",
        description="A file has 4 tokens around its text.",
        replaced={"files.FILE_TOKENS": 0, "reading.FILE_TOKENS": 0},
    ),
    Rule(
        name="sheet", description="A sheet of a file has 32 tokens around its text.", replaced={"files.SHEET_TOKENS": 0}
    ),
    Rule(
        name="page heading",
        description="A page of a file has a heading with its number.",
        replaced={"reading.rendered": lambda kind, pages: list(pages)},
    ),
    Rule(
        name="base64 with line breaks",
        description="Base64 of images and files may have line breaks.",
        replaced={"images.unbroken": str, "base64_text.unbroken": str},
    ),
)
"""All rules, in the order of the table."""
