"""Settings in files: presets, TOML with only their differences from the defaults, and the whole of a run, JSON.

No torch here, so that the command line answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from nerfkit.config import SCHEMA, Config, ConfigError, check

Settings = TypeVar("Settings")
_DEFAULTS = Config()


def from_dict(cls: type, data: dict[str, Any], prefix: str = "", base: Any = None) -> Any:
    """Build a config dataclass from plain data, laid over its defaults, or over another one of its kind.

    Raises ConfigError for an unknown key (with the nearest known one) or a value of another type.
    """
    hints = get_type_hints(cls)
    values = {}
    for name, value in data.items():
        key = f"{prefix}.{name}" if prefix else name
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(hints)}"
            raise ConfigError(f"unknown setting {key}{hint}")
        values[name] = _convert(value, hints[name], key, getattr(base, name, None))
    return cls(**values) if base is None else dataclasses.replace(base, **values)


def _convert(value: Any, hint: Any, key: str, base: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{key}: expected a table of settings, found {value!r}")
        return from_dict(hint, value, key, base)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{key}: expected one of {', '.join(map(str, get_args(hint)))}, found {value!r}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{key}: expected a list, found {value!r}")
        return tuple(_convert(one, get_args(hint)[0], key, None) for one in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{key}: expected {hint.__name__}, found {value!r}")
    return value


def load_preset(path: Path, base: Settings = _DEFAULTS) -> Settings:
    """Read a TOML preset over the defaults, or over settings of another kind. Raises ConfigError, naming the file."""
    try:
        found = from_dict(type(base), tomllib.loads(path.read_text()), base=base)
        return check(found) if isinstance(found, Config) else found
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except (ConfigError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def load_resolved(path: Path) -> Config:
    """Read a run's ``config.json``. Raises ConfigError, naming the file."""
    try:
        data = json.loads(path.read_text())
        schema = data.pop("schema", None)
        if schema != SCHEMA:
            raise ConfigError(f"schema {schema!r} is not {SCHEMA}, the one this version reads")
        return from_dict(Config, data)
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
