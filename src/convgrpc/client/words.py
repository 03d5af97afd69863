"""The words of the contract's enums, as the API spells them.

Generated from the contract by scripts/generate: what is changed here is lost.
"""

from typing import Literal, TypeAlias

IncludeWord: TypeAlias = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]

OrderWord: TypeAlias = Literal[
    "asc",
    "desc",
]

ToolChoiceModeWord: TypeAlias = Literal[
    "none",
    "auto",
    "required",
]

TruncationWord: TypeAlias = Literal[
    "auto",
    "disabled",
]
