"""Every setting in one typed object: defaults < TOML file < environment < flags.

Each room owns its frozen Config; they are nested here and nowhere else. A key is the dotted path of a
field (`api.listen`); in the environment it is FOLKMOOT_API__LISTEN, where several values are a JSON list
or stand between commas. This is the only module that reads the environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import platform
import re
import stat
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import platformdirs

from folkmoot.api import ApiConfig
from folkmoot.api.models import is_reserved
from folkmoot.api.schema import Own
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.spec import parse_spec
from folkmoot.errors import ConfigError
from folkmoot.node.config import NodeConfig
from folkmoot.node.money import MoneyConfig

PREFIX = "FOLKMOOT_"
ALIASES = {"FOLKMOOT_HOME": "home", "FOLKMOOT_MODELS": "engine.models_folder"}
"""Variables with a name of their own."""
ALIASED = {key: name for name, key in ALIASES.items()}
MAY_BE_NO_TIME = ("node.coalesce_s", "node.grace_s", "node.peer.max_wait_s")
"""The times that may be 0."""
FOREIGN = ("FOLKMOOT_SEED",)
"""Variables of that prefix that are no settings: the test suite's."""

ENVIRONMENT = "environment"
"""How the origin of a setting begins that came from a variable."""

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
    money: MoneyConfig = field(default_factory=MoneyConfig)


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


class HomeUnusable(ConfigError):
    """The folder that FOLKMOOT_HOME names cannot be a home."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings and where each came from."""

    settings: Settings
    origins: tuple[Origin, ...]

    def from_environment(self, key: str) -> bool:
        """Whether a variable set this key."""
        return any(each.name == key and each.origin.startswith(ENVIRONMENT) for each in self.origins)


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables for a library that has no other door, as long as a `with` block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
    if config is None:
        check_home(home[0])
    given |= _from_file(config, home[0] / "config.toml", leaves)
    given |= _from_environment(environ, leaves, _engine_key_variable(given, flags or {}, environ, leaves))
    for key, text in (flags or {}).items():
        if text is not None:
            given[key] = (_convert(text, leaves[key], key, strict=False), "flag")
    given = _with_engine_key(given, environ, leaves)
    values = {key: leaf.default for key, leaf in leaves.items()} | {
        key: value for key, (value, _) in given.items()
    }
    origins = tuple(_origin(leaf, given) for leaf in leaves.values())
    try:
        _refuse_nonsense(values)
        return Loaded(_checked(_build(Settings, values, "")), origins)
    except ConfigError as error:
        told = [
            f"{key} comes from: {origin}" for key, (_, origin) in given.items() if _names(str(error), key)
        ]
        raise ConfigError("; ".join([str(error), *told])) from None


def _refuse_nonsense(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        for each in numbers:
            if isinstance(each, int | float) and not (math.isfinite(each) and each >= 0):
                raise ConfigError(f"{key} is {value}; it must be a finite number and not be below 0")
            if each == 0 and key.endswith("_s") and key not in MAY_BE_NO_TIME and not isinstance(each, bool):
                raise ConfigError(f"{key} is {value}; it must be more than 0 seconds")


def check_home(home: Path) -> None:
    """Raise `HomeUnusable` where a home is no folder that this user can read; one that is missing is made later."""
    remedy = "or set FOLKMOOT_HOME to a folder of your own"
    try:
        is_folder = stat.S_ISDIR(home.stat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HomeUnusable(
            f"the home {home} cannot be used: {error.strerror}; repair the path, {remedy}"
        ) from None
    if not is_folder:
        raise HomeUnusable(f"the home {home} is no folder; move that file away, {remedy}")
    if not os.access(home, os.R_OK | os.X_OK):
        raise HomeUnusable(
            f"the home {home} cannot be read by this user; run chmod 700 {home} as its owner, {remedy}"
        )


def _checked(settings: Settings) -> Settings:
    """The settings, where those that a room checks only when it is built go together. Raises `ConfigError`."""
    try:
        settings.node.peer.membership.validate()
    except ConfigError as error:
        raise ConfigError(f"node.peer.membership: {error}") from None
    return settings


def _names(message: str, key: str) -> bool:
    """Whether an error speaks of a key: by its whole path, or by its room and its own name."""
    room, _, name = key.rpartition(".")
    return key in message or (
        f"{room}:" in message and re.search(rf"\b{re.escape(name)}\b", message) is not None
    )


def _home(environ: Mapping[str, str]) -> tuple[Path, str]:
    if environ.get("FOLKMOOT_HOME"):
        return Path(environ["FOLKMOOT_HOME"]).expanduser().absolute(), f"{ENVIRONMENT} FOLKMOOT_HOME"
    return platformdirs.user_data_path("folkmoot"), "default"


def _from_file(config: Path | None, usual: Path, leaves: Mapping[str, _Leaf]) -> dict[str, tuple[Any, str]]:
    path = config or usual
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if config is None:
            return {}
        raise ConfigError(f"--config: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; repair it, or name another with --config"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    given = {}
    for key, value in _flat(tables, leaves, ""):
        if key == "home":
            raise ConfigError(
                f"{path}: home is set by the variable FOLKMOOT_HOME alone; take it out of the file"
            )
        if key not in leaves:
            raise ConfigError(f"{path}: unknown setting {key!r}; {_nearest(key, leaves)}")
        given[key] = (_convert(value, leaves[key], f"{path}: {key}", strict=True), str(path))
    return given


def _from_environment(
    environ: Mapping[str, str], leaves: Mapping[str, _Leaf], engine_key: str
) -> dict[str, tuple[Any, str]]:
    variables = {variable_of(key): key for key in leaves} | ALIASES
    given = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in FOREIGN or name == "FOLKMOOT_HOME":
            continue
        if name in variables:
            key = variables[name]
            given[key] = (_convert(text, leaves[key], name, strict=False), f"{ENVIRONMENT} {name}")
        elif name != engine_key:
            raise ConfigError(f"unknown variable {name}; {_nearest(name, variables)}")
    return given


def _engine_key_variable(
    from_file: Mapping[str, tuple[Any, str]],
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    leaves: Mapping[str, _Leaf],
) -> str:
    """The variable that holds the engine's key, whoever names it: a variable of that prefix may be it."""
    key = "engine.api_key_env"
    named, _ = from_file.get(key, (leaves[key].default, ""))
    flag = flags.get(key)
    return environ.get(variable_of(key), str(named)) if flag is None else flag


def _with_engine_key(
    given: dict[str, tuple[Any, str]], environ: Mapping[str, str], leaves: Mapping[str, _Leaf]
) -> dict[str, tuple[Any, str]]:
    name, _ = given.get("engine.api_key_env", (leaves["engine.api_key_env"].default, ""))
    if "engine.api_key" in given or not environ.get(name):
        return given
    return given | {"engine.api_key": (environ[name], f"{ENVIRONMENT} {name}")}


def variable_of(key: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + key.replace(".", "__").upper()


def child_environ(over: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a child, with these settings (key -> text) on top."""
    taken = {ALIASED.get(key, variable_of(key)): value for key, value in over.items()}
    return {**os.environ, **taken}


# ---- the tree of configs ---------------------------------------------------------------------------


def _leaves(kind: Any, prefix: str = "", given: Any = None) -> Iterator[_Leaf]:
    """The fields of a config and of those within it; of these the outer one says what is usual."""
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):
        key, hint = prefix + each.name, hints[each.name]
        default = each.default if given is None else getattr(given, each.name)
        if given is None and each.default_factory is not dataclasses.MISSING:
            with warnings.catch_warnings():
                # Without XDG_RUNTIME_DIR platformdirs names a folder under /tmp, which serves as well.
                warnings.simplefilter("ignore", UserWarning)
                default = each.default_factory()
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, f"{key}.", default)
        else:
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
    if not strict and getattr(leaf.kind, "__origin__", None) is tuple and isinstance(value, str):
        value = _listed(value, where)
    try:
        return msgspec.convert(value, leaf.kind, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as error:
        shown = "hidden" if leaf.secret else repr(value)
        words = [word for word in get_args(leaf.kind) if get_origin(leaf.kind) is Literal]
        told = f"it must be one of {', '.join(words)}" if words else str(error)
        raise ConfigError(f"{where} is {shown}: {told}") from None


def _listed(text: str, where: str) -> Any:
    """A variable's text for a setting that holds several: a JSON list, as `config show` prints it, or `a,b`."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"{where} begins like a JSON list but is none: {error}") from None


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
