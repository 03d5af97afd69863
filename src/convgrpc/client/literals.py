"""The strings of the contract's enums, as the API spells them.

Generated from the contract by scripts/generate: what is changed here is lost.
"""

from typing import Literal, TypeAlias

IncludeLiteral: TypeAlias = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]

OrderLiteral: TypeAlias = Literal[
    "asc",
    "desc",
]

ToolChoiceModeLiteral: TypeAlias = Literal[
    "none",
    "auto",
    "required",
]

TruncationLiteral: TypeAlias = Literal[
    "auto",
    "disabled",
]
