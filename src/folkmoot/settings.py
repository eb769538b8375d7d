"""Every setting in one typed object: defaults < TOML file < environment < flags.

Each room owns its frozen Config; they are nested here and nowhere else. A key is the dotted path of a
field (`api.listen`); in the environment it is FOLKMOOT_API__LISTEN. This is the only module that reads
the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import platform
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import platformdirs

from folkmoot.api import ApiConfig
from folkmoot.api.models import is_reserved
from folkmoot.api.schema import Own
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.spec import parse_spec
from folkmoot.errors import ConfigError
from folkmoot.node.config import NodeConfig

PREFIX = "FOLKMOOT_"
ALIASES = {"FOLKMOOT_HOME": "home", "FOLKMOOT_MODELS": "engine.models_folder"}
"""Variables with a name of their own."""
ALIASED = {key: name for name, key in ALIASES.items()}
FOREIGN = ("FOLKMOOT_SEED",)
"""Variables of that prefix that are no settings: the test suite's."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


def default_name() -> str:
    """The machine's own name, as far as a device may be called so."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().partition(".")[0])[:32].strip("._-")
    return f"at-{name}"[:32] if is_reserved(name) else name or "device"


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """Who this device is: its name in the moot and the engine SPEC that it serves with."""

    name: str = field(default_factory=default_name)
    engine: str = "embedded"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or is_reserved(self.name):
            raise ConfigError(
                f"device.name is {self.name!r}: use 1 to 32 letters, digits, dots, dashes or underscores, "
                "and not local, moot or moot-…, which are models"
            )
        parse_spec(self.engine)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one device. `home` holds its state; it comes from FOLKMOOT_HOME alone."""

    home: Path
    device: DeviceConfig = field(default_factory=DeviceConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    node: NodeConfig = field(default_factory=NodeConfig)


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting as `folkmoot config show` prints it; a secret's value is hidden."""

    name: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class _Leaf:
    key: str
    kind: Any
    default: Any
    secret: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings and where each came from."""

    settings: Settings
    origins: tuple[Origin, ...]


def load(
    config: Path | None = None,
    flags: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read all layers. `flags`: key -> value as text, None where the flag was not given. Raises `ConfigError`."""
    given: dict[str, tuple[Any, str]] = {}
    leaves = {leaf.key: leaf for leaf in _leaves(Settings)}
    home = _home(environ)
    given["home"] = home
    given |= _from_file(config, home[0] / "config.toml", leaves)
    given |= _from_environment(environ, leaves)
    for key, text in (flags or {}).items():
        if text is not None:
            given[key] = (_convert(text, leaves[key], key, strict=False), "flag")
    given = _with_engine_key(given, environ, leaves)
    values = {key: leaf.default for key, leaf in leaves.items()} | {
        key: value for key, (value, _) in given.items()
    }
    origins = tuple(_origin(leaf, given) for leaf in leaves.values())
    try:
        return Loaded(_build(Settings, values, ""), origins)
    except ConfigError as error:
        told = [f"{key} comes from: {origin}" for key, (_, origin) in given.items() if key in str(error)]
        raise ConfigError("; ".join([str(error), *told])) from None


def _home(environ: Mapping[str, str]) -> tuple[Path, str]:
    if environ.get("FOLKMOOT_HOME"):
        return Path(environ["FOLKMOOT_HOME"]).expanduser().absolute(), "environment FOLKMOOT_HOME"
    return platformdirs.user_data_path("folkmoot"), "default"


def _from_file(config: Path | None, usual: Path, leaves: Mapping[str, _Leaf]) -> dict[str, tuple[Any, str]]:
    path = config or usual
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if config is None:
            return {}
        raise ConfigError(f"--config: there is no file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    given = {}
    for key, value in _flat(tables, leaves, ""):
        if key not in leaves or key == "home":
            raise ConfigError(f"{path}: unknown setting {key!r}; {_nearest(key, leaves)}")
        given[key] = (_convert(value, leaves[key], f"{path}: {key}", strict=True), str(path))
    return given


def _from_environment(environ: Mapping[str, str], leaves: Mapping[str, _Leaf]) -> dict[str, tuple[Any, str]]:
    variables = {variable_of(key): key for key in leaves} | ALIASES
    given = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in FOREIGN or name == "FOLKMOOT_HOME":
            continue
        if name in variables:
            key = variables[name]
            given[key] = (_convert(text, leaves[key], name, strict=False), f"environment {name}")
        elif name != environ.get("FOLKMOOT_ENGINE__API_KEY_ENV", leaves["engine.api_key_env"].default):
            raise ConfigError(f"unknown variable {name}; {_nearest(name, variables)}")
    return given


def _with_engine_key(
    given: dict[str, tuple[Any, str]], environ: Mapping[str, str], leaves: Mapping[str, _Leaf]
) -> dict[str, tuple[Any, str]]:
    name, _ = given.get("engine.api_key_env", (leaves["engine.api_key_env"].default, ""))
    if "engine.api_key" in given or not environ.get(name):
        return given
    return given | {"engine.api_key": (environ[name], f"environment {name}")}


def variable_of(key: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + key.replace(".", "__").upper()


def child_environ(over: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a child, with these settings (key -> text) on top."""
    taken = {ALIASED.get(key, variable_of(key)): value for key, value in over.items()}
    return {**os.environ, **taken}


# ---- the tree of configs ---------------------------------------------------------------------------


def _leaves(kind: Any, prefix: str = "") -> Iterator[_Leaf]:
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):
        key, hint = prefix + each.name, hints[each.name]
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, f"{key}.")
            continue
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            with warnings.catch_warnings():
                # Without XDG_RUNTIME_DIR platformdirs names a folder under /tmp, which serves as well.
                warnings.simplefilter("ignore", UserWarning)
                default = each.default_factory()
        yield _Leaf(key, hint, default, secret=not each.repr)


def _flat(table: Mapping[str, Any], leaves: Mapping[str, _Leaf], prefix: str) -> Iterator[tuple[str, Any]]:
    rooms = {key.rpartition(".")[0] for key in leaves}
    rooms |= {room.rpartition(".")[0] for room in rooms}
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and key in rooms:
            yield from _flat(value, leaves, f"{key}.")
        else:
            yield key, value


def _convert(value: Any, leaf: _Leaf, where: str, *, strict: bool) -> Any:
    if leaf.kind == dict[str, Own]:
        return leaf.default | _presets(value, where)
    if not strict and leaf.kind not in (str, Path) and isinstance(value, str):
        value = _parsed(value, leaf)
    try:
        return msgspec.convert(value, leaf.kind, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where} is {value!r}: {error}") from None


def _parsed(text: str, leaf: _Leaf) -> Any:
    """A variable's text for a setting that holds several: `a,b` is a tuple."""
    if getattr(leaf.kind, "__origin__", None) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _presets(value: Any, where: str) -> dict[str, Own]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}: give one table for each preset")
    for name, table in value.items():
        for key in table if isinstance(table, dict) else ():
            if key not in Own.__struct_fields__:
                raise ConfigError(
                    f"{where}.{name}: unknown key {key!r}; {_nearest(key, Own.__struct_fields__)}"
                )
    try:
        return msgspec.convert(value, dict[str, Own])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None


def _path(kind: Any, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser().absolute()
    raise msgspec.ValidationError(f"Expected `{kind}`")


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(kind)
    arguments = {}
    for each in dataclasses.fields(kind):
        key = prefix + each.name
        if dataclasses.is_dataclass(hints[each.name]):
            arguments[each.name] = _build(hints[each.name], values, f"{key}.")
        else:
            arguments[each.name] = values[key]
    return kind(**arguments)


def _origin(leaf: _Leaf, given: Mapping[str, tuple[Any, str]]) -> Origin:
    value, origin = given.get(leaf.key, (leaf.default, "default"))
    plain = msgspec.to_builtins(value, enc_hook=str)
    return Origin(leaf.key, "(set)" if leaf.secret and value else plain, origin)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, [str(each) for each in known], n=1, cutoff=0.5)
    return f"the nearest known is {close[0]}" if close else "see `folkmoot config show`"
