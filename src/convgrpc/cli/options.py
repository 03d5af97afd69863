"""The flags of commands: one for each setting, with its twin in the environment."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any, get_args

import click

from convgrpc.settings import Address, IdPolicy, IncludePolicy, LogLevel, Settings, UnknownPolicy

_BY_NAME = {setting.name: setting for setting in fields(Settings)}


class _AddressType(click.ParamType[Address]):
    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return value if isinstance(value, Address) else Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _FiniteFloat(click.FloatRange):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


_TYPES: dict[Any, Any] = {
    str: str,
    bool: bool,
    int: click.IntRange(1, 2**31 - 1),
    float: _FiniteFloat(0, min_open=True),
    Address: _AddressType(),
    Address | None: _AddressType(),
    IncludePolicy: click.Choice(get_args(IncludePolicy)),
    IdPolicy: click.Choice(get_args(IdPolicy)),
    UnknownPolicy: click.Choice(get_args(UnknownPolicy)),
    LogLevel: click.Choice(get_args(LogLevel), case_sensitive=False),
}


# Where 0, the default, means that there is no limit.
_OR_NONE: dict[Any, Any] = {int: click.IntRange(0, 2**63 - 1), float: _FiniteFloat(0)}


def setting(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the flag of a setting to a command."""
    found = _BY_NAME[name]
    assert found.default is not MISSING
    flag = f"--{name.replace('_', '-')}"
    return click.option(
        f"{flag}/--no{flag[1:]}" if found.type is bool else flag,
        name,
        type=_OR_NONE[found.type] if found.default == 0 and found.type in _OR_NONE else _TYPES[found.type],
        default=str(found.default) if found.type is Address else found.default,
        show_default=True,
        envvar=f"CONVGRPC_{name.upper()}",
        show_envvar=True,
        metavar=found.metadata.get("unit"),
        help=found.metadata["help"],
    )


def settings(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the flags of all settings to a command."""
    for name in reversed(_BY_NAME):
        command = setting(name)(command)
    return command
