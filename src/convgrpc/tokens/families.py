"""Families of models: what stands around the text that a model reads, in numbers.

The numbers are those by which recorded requests come to the counts recorded with them. `docs/token-counting.md` lists
those that rest on recordings of one repository; they are marked here as `One source`. A file of the operator's can add
models and families: `convgrpc.tokens.models_file`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from convgrpc.tokens.images import Patches, Rule, Tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that read requests in the same form. All numbers are tokens."""

    name: str
    encoding: str
    request: int
    """Of any request: what makes the model begin to answer."""
    message: int = 4
    """Of a message, beside its text."""
    assistant: int = 0
    """Of a message of the assistant, beyond that."""
    commentary: int = 0
    """Of a message of the assistant which is in the phase of commentary, beyond that."""
    call: int
    """Of a call of a function, beside its name and arguments."""
    output: int = 4
    """Of the output of a call, beside its text and the name."""
    nameless: int = 2
    """Of the name of an output whose call is not there."""
    stored_call: int = 0
    """Of a call that a model made on its own, beyond that: one that is sent back with its id."""
    stored_call_has_status: bool = False
    """Whether such a call must be sent back with its status too."""
    parallel: int = 0
    """Of calls made together, once."""
    parallel_call: int
    """Of each call made together with others, in place of `call`."""
    namespace_times: int = 0
    """How often the namespace of a function stands in a call and its output."""
    namespaced_call: int = 0
    """Of a call of a function in a namespace, beside that."""
    functions: int
    """Of the declarations of functions, beside their text."""
    brace: str
    """What opens the declarations."""
    json_schema: int = 0
    """Of a response format with a schema, beside its text."""
    forced_function: int | None = None
    """Of a function that must be called, beside its name; nothing at all if not set."""
    no_function: int = 0
    """Of functions that must not be called."""
    custom_tool: int = 37  # One source: DataDog/dd-trace-py, 1 row.
    """Of a custom tool, beside its name and description."""
    custom_grammar: int = 70
    """Of a custom tool that has a grammar, beside its name, description and grammar."""
    sequential_calls: int = 0
    """Of keeping a model from calling several functions at once."""
    image_beside_tools: int = 0
    """Of images in a request that has tools, once."""
    lone_image: int = 0
    """Of a user's message that is one image and follows another message, beside the image."""
    additional_tools: int = 92
    """Of an item that brings more tools, beside their declarations."""
    # The search of tools: one source, pydantic/pydantic-ai, 24 rows.
    tool_search_call: int = 15
    """Of a search of tools, beside what is sought."""
    tool_search_output: int = 113
    """Of what such a search found, beside the declarations."""
    client_tool_search_output: int = 118
    """Of the same, where the client did the search."""
    tool_search: int = 341
    """Of the search of tools, as long as there is a function that was not loaded."""
    deferred_function: int = 34
    """Of each such function."""
    hosted: Mapping[str, int] = field(default_factory=dict)
    """Of tools that the model's own service runs, by their kinds."""
    hosted_default: int = 300
    """Of such tools of other kinds."""
    pro_mode: int = 1531  # One source: pydantic/pydantic-ai, 1 row.
    """Of reasoning in the mode `pro`."""
    compact_arguments: bool = False
    """Whether the arguments of a call are read without the spaces between them."""
    sees_pdf_pages: bool = False
    """Whether it is said that the pages of a PDF are read as images too; of that no counts are known."""
    all_reasoning: bool = False
    """Whether reasoning from before the user's last message is read, unless the request says otherwise."""


class Model(NamedTuple):
    """Models whose names match a pattern: their family, what they make of images, and their context window in
    tokens.
    """

    pattern: str
    family: str
    images: str
    context_window: int


class Resolved(NamedTuple):
    """What a model's name stands for; `known` tells whether the name is in the table."""

    family: Family
    images: Rule
    context_window: int
    known: bool


_HOSTED = {
    "web_search": 294,
    "web_search_preview": 294,
    "image_generation": 342,  # One source: pydantic/pydantic-ai, 2 rows.
    "apply_patch": 623,
    "computer_use_preview": 484,  # Recorded on computer-use-preview alone.
}
_GPT_4O = Family(
    name="gpt-4o",
    encoding="o200k_base",
    request=3,
    call=7,
    stored_call=3,
    stored_call_has_status=True,
    parallel_call=7,
    functions=3,
    brace=" {",
    json_schema=1,
    # One row of /v1/responses/input_tokens shows 4; all of /v1/responses show 7.
    forced_function=7,
    no_function=1,  # One source: 0xPlaygrounds/rig, 1 row.
    hosted=_HOSTED,
)
_GPT_5 = Family(
    name="gpt-5",
    encoding="o200k_harmony",
    request=2,
    assistant=2,
    commentary=1,  # One source: pydantic/pydantic-ai, 1 row.
    call=13,
    stored_call=3,
    parallel_call=13,
    functions=8,
    brace="{",
    sequential_calls=78,  # One source: crmne/ruby_llm, 4 rows.
    image_beside_tools=3,
    hosted={**_HOSTED, "web_search": 4295, "web_search_preview": 4295, "code_interpreter": 640},
)
_O_SERIES = replace(_GPT_5, name="o-series", assistant=0, functions=5)
_GPT_5_4 = replace(
    _GPT_5,
    name="gpt-5.4",
    call=16,
    stored_call=0,
    parallel=22,  # One source: posit-dev/chatlas, 2 rows.
    parallel_call=10,  # One source: posit-dev/chatlas, 2 rows.
    namespace_times=2,  # One source: pydantic/pydantic-ai, 12 rows.
    namespaced_call=-3,  # One source: pydantic/pydantic-ai, 12 rows.
    compact_arguments=True,  # One source: simonw/llm, 4 rows.
    sequential_calls=0,
    additional_tools=94,
)

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        _GPT_4O,
        replace(_GPT_4O, name="gpt-4", encoding="cl100k_base"),
        replace(_GPT_4O, name="gpt-4-0613", encoding="cl100k_base", request=2),
        replace(_GPT_4O, name="gpt-4.1", lone_image=1),
        _O_SERIES,
        replace(_O_SERIES, name="o4-mini", assistant=2),
        _GPT_5,
        _GPT_5_4,
        # One source: braintrustdata/braintrust-sdk-javascript, 4 rows, for web_search alone.
        replace(_GPT_5_4, name="gpt-5.4-mini", hosted={**_GPT_5_4.hosted, "web_search": 4436}),
        replace(
            _GPT_5_4,
            name="gpt-5.6",
            sees_pdf_pages=True,
            all_reasoning=True,
            namespace_times=0,
            namespaced_call=0,
            custom_grammar=68,
            additional_tools=90,
            tool_search_output=112,
            client_tool_search_output=114,
        ),
    )
}

IMAGES: Mapping[str, Rule] = {
    "tiles-85": Tiles(85, 170),
    "tiles-75": Tiles(75, 150),
    "tiles-70": Tiles(70, 140),
    "tiles-65": Tiles(65, 129),
    "tiles-2833": Tiles(2833, 5667),
    "patches-1.2": Patches(1.2, 2),
    "patches-1.5": Patches(1.5, 0),  # One source: crmne/ruby_llm, 5 rows.
    "patches-1.62": Patches(1.62, 2),  # One source: tidyverse/ellmer, 1 row.
    "patches-1.72": Patches(1.72, 1),  # One source: crewAIInc/crewAI, 2 rows.
    "patches-2.46": Patches(2.46, 2),
}

_REST = r"(?:-.*)?"

# The first pattern that matches a whole name decides.
MODELS: Sequence[Model] = (
    Model(r"gpt-5\.4-mini" + _REST, "gpt-5.4-mini", "patches-1.2", 400_000),
    Model(r"gpt-5\.[45]-(?:mini|nano)" + _REST, "gpt-5.4", "patches-1.2", 400_000),
    Model(r"gpt-5\.[45]" + _REST, "gpt-5.4", "patches-1.2", 1_050_000),
    Model(r"gpt-5\.(?:[6-9]|\d\d)" + _REST, "gpt-5.6", "patches-1.2", 1_050_000),
    Model(r"gpt-5(?:\.\d)?-chat" + _REST, "gpt-5", "tiles-70", 128_000),
    Model(r"gpt-5(?:\.\d)?(?:-codex)?-mini" + _REST, "gpt-5", "patches-1.2", 400_000),
    Model(r"gpt-5(?:\.\d)?-nano" + _REST, "gpt-5", "patches-1.5", 400_000),
    Model(r"gpt-5(?:\.\d)?" + _REST, "gpt-5", "tiles-70", 400_000),
    Model(r"gpt-oss" + _REST, "gpt-5", "tiles-70", 131_072),
    Model(r"gpt-4\.1-mini" + _REST, "gpt-4.1", "patches-1.62", 1_047_576),
    Model(r"gpt-4\.1-nano" + _REST, "gpt-4.1", "patches-2.46", 1_047_576),
    Model(r"gpt-4\.1" + _REST, "gpt-4.1", "tiles-85", 1_047_576),
    Model(r"(?:chat)?gpt-4o-mini" + _REST, "gpt-4o", "tiles-2833", 128_000),
    Model(r"(?:chat)?gpt-4o" + _REST, "gpt-4o", "tiles-85", 128_000),
    Model(r"gpt-(?:4\.5|audio|realtime)" + _REST, "gpt-4o", "tiles-85", 128_000),
    Model(r"gpt-4(?:-0\d{3})?", "gpt-4-0613", "tiles-85", 8_192),
    Model(r"gpt-4-32k" + _REST, "gpt-4", "tiles-85", 32_768),
    Model(r"gpt-4" + _REST, "gpt-4", "tiles-85", 128_000),
    Model(r"gpt-3\.5" + _REST, "gpt-4", "tiles-85", 16_385),
    Model(r"computer-use-preview" + _REST, "gpt-4o", "tiles-65", 8_192),
    Model(r"codex-mini" + _REST, "o-series", "patches-1.72", 200_000),
    Model(r"o1-(?:mini|preview)" + _REST, "o-series", "tiles-75", 128_000),
    Model(r"o4-mini" + _REST, "o4-mini", "patches-1.72", 200_000),
    Model(r"o\d+-mini" + _REST, "o-series", "patches-1.72", 200_000),
    Model(r"o\d+" + _REST, "o-series", "tiles-75", 200_000),
)

DEFAULT = "gpt-5.6"
"""The model for which requests count that name none, or one of which nothing is known."""


class Models:
    """The table of models, by which a name leads to what is known of it."""

    def __init__(
        self,
        models: Sequence[Model] = MODELS,
        families: Mapping[str, Family] = FAMILIES,
        images: Mapping[str, Rule] = IMAGES,
    ) -> None:
        self._families = families
        self._images = images
        self._models = [(re.compile(model.pattern), model) for model in models]
        self.resolve = lru_cache(maxsize=1024)(self._resolve)

    def _resolve(self, name: str) -> Resolved:
        # The name of a fine-tuned model holds that of the model it comes from: ft:gpt-4o-mini-2024-07-18:acme::1.
        wanted = name.split(":")[1] if name.startswith("ft:") else name
        for pattern, model in self._models:
            if pattern.fullmatch(wanted):
                return Resolved(self._families[model.family], self._images[model.images], model.context_window, True)
        return self._resolve(DEFAULT)._replace(known=False)
