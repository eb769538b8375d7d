from __future__ import annotations

from pathlib import Path

import pytest

from folkmoot.api.schema import Own
from folkmoot.errors import ConfigError
from folkmoot.settings import DeviceConfig, HomeUnusable, child_environ, default_name, load, variable_of


def origins(loaded):
    return {origin.name: (origin.value, origin.origin) for origin in loaded.origins}


def test_each_layer_covers_the_one_below(tmp_path):
    home = {"FOLKMOOT_HOME": str(tmp_path)}
    assert load(environ=home).settings.api.listen == "127.0.0.1:4150"
    (tmp_path / "config.toml").write_text(
        '[api]\nlisten = "127.0.0.1:1"\nkeys = ["a", "b"]\n[engine]\nthreads = 3\n'
    )
    loaded = load(environ=home)
    assert loaded.settings.api.listen == "127.0.0.1:1"
    assert loaded.settings.api.keys == ("a", "b")
    assert origins(loaded)["engine.threads"] == (3, str(tmp_path / "config.toml"))
    environ = home | {"FOLKMOOT_API__LISTEN": "127.0.0.1:2", "FOLKMOOT_API__KEYS": "c, d"}
    loaded = load(environ=environ)
    assert loaded.settings.api.listen == "127.0.0.1:2"
    assert loaded.settings.api.keys == ("c", "d")
    assert origins(loaded)["api.listen"] == ("127.0.0.1:2", "environment FOLKMOOT_API__LISTEN")
    loaded = load(flags={"api.listen": "127.0.0.1:3", "device.name": None}, environ=environ)
    assert loaded.settings.api.listen == "127.0.0.1:3"
    assert origins(loaded)["api.listen"] == ("127.0.0.1:3", "flag")
    assert origins(loaded)["device.name"][1] == "default"


def test_another_file(tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('[device]\nname = "rowan"\n')
    assert load(other, environ={}).settings.device.name == "rowan"
    with pytest.raises(ConfigError, match="no file"):
        load(tmp_path / "none.toml", environ={})


def test_folders(tmp_path):
    loaded = load(environ={"FOLKMOOT_HOME": str(tmp_path / "h"), "FOLKMOOT_MODELS": str(tmp_path / "m")})
    assert loaded.settings.home == tmp_path / "h"
    assert loaded.settings.engine.models_folder == tmp_path / "m"
    assert load(environ={"FOLKMOOT_HOME": "~/x"}).settings.home == Path.home() / "x"


def test_secrets_are_not_shown(tmp_path):
    loaded = load(environ={"FOLKMOOT_API__KEYS": "hush", "FOLKMOOT_ENGINE_KEY": "hush"})
    assert loaded.settings.api.keys == ("hush",)
    assert loaded.settings.engine.api_key == "hush"
    assert "hush" not in str(loaded.origins)
    assert origins(loaded)["engine.api_key"] == ("(set)", "environment FOLKMOOT_ENGINE_KEY")


def test_the_engines_key_comes_from_the_variable_that_is_named():
    environ = {"FOLKMOOT_ENGINE__API_KEY_ENV": "MY_KEY", "MY_KEY": "hush"}
    assert load(environ=environ).settings.engine.api_key == "hush"


def test_the_engines_key_may_be_called_like_a_setting_of_ours(tmp_path):
    (tmp_path / "config.toml").write_text('[engine]\napi_key_env = "FOLKMOOT_CLOUD_KEY"\n')
    environ = {"FOLKMOOT_HOME": str(tmp_path), "FOLKMOOT_CLOUD_KEY": "hush"}
    assert load(environ=environ).settings.engine.api_key == "hush"
    environ |= {"FOLKMOOT_ENGINE__API_KEY_ENV": "FOLKMOOT_OTHER_KEY", "FOLKMOOT_OTHER_KEY": "hist"}
    with pytest.raises(ConfigError, match="unknown variable FOLKMOOT_CLOUD_KEY"):
        load(environ=environ)
    del environ["FOLKMOOT_CLOUD_KEY"]
    assert load(environ=environ).settings.engine.api_key == "hist"
    flags = {"engine.api_key_env": "FOLKMOOT_FLAG_KEY"}
    environ = {"FOLKMOOT_HOME": str(tmp_path), "FOLKMOOT_FLAG_KEY": "psst"}
    assert load(flags=flags, environ=environ).settings.engine.api_key == "psst"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[api]\nlistn = 'x'\n", r"unknown setting 'api.listn'; the nearest known is api.listen"),
        ("[aip]\nlisten = 'x'\n", r"unknown setting 'aip'"),
        ("listen = 'x'\n", r"unknown setting 'listen'"),
        ("home = '/'\n", r"home is set by the variable FOLKMOOT_HOME alone"),
        ("[api]\nlisten = 3\n", r"api.listen is 3: Expected `str`"),
        ("[engine]\nthreads = '3'\n", r"engine.threads is '3': Expected `int`"),
        ("[engine]\nthreads = -1\n", r"engine.threads is -1"),
        ("engine = 3\n", r"unknown setting 'engine'"),
        ("[api.presets.mine]\nlayrs = 3\n", r"mine: unknown key 'layrs'; the nearest known is layers"),
        ("[api.presets.mine]\nlayers = 'x'\n", r"presets"),
        ("[api]\npresets = 3\n", r"presets"),
        ("[api\n", r"cannot be read as TOML"),
        ("[device]\nname = 'moot'\n", r"device.name is 'moot'"),
        ("[device]\nname = 'a+b'\n", r"device.name is 'a\+b'"),
        ("[device]\nengine = 'magic'\n", r"magic"),
        ("[api]\nlisten = 'nowhere'\n", r"api.listen"),
        ("[api.privacy]\npatterns = ['(']\n", r"api.privacy.patterns\[0\] is no regular expression"),
        ("[money]\nserve = true\n", r"money: budgets and serve mean nothing without price_in"),
        ("[api]\nkeep_alive_s = 0\n", r"keep_alive_s"),
        (
            "[node.peer.queue]\nmax_waiting = -1\n",
            r"node.peer.queue.max_waiting is -1; it must be .* not be below 0; .* comes from: .*config.toml$",
        ),
        ("[node]\nengine_check_s = 0\n", r"node.engine_check_s is 0.0; it must be more than 0 seconds"),
        ("[node]\ngrace_s = nan\n", r"node.grace_s is nan; it must be a finite number"),
        (
            "[node]\ndiscovery = 'maybe'\n",
            r"config.toml: node.discovery is 'maybe': it must be one of auto, on, off",
        ),
        (
            "[node.network]\nlisten = 'nowhere'\n",
            r"node.network.listen is 'nowhere': give HOST:PORT .*; node.network.listen comes from: .*config.toml$",
        ),
        (
            "[node.peer.membership]\nbeat_s = 99\n",
            r"node.peer.membership: beat_s = 99.* must lie .*; node.peer.membership.beat_s comes from: .*config.toml$",
        ),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, said):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(environ={"FOLKMOOT_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FOLKMOOT_API__LISTN", "x", "the nearest known is FOLKMOOT_API__LISTEN"),
        ("FOLKMOOT_HOM", "x", "the nearest known is FOLKMOOT_HOME"),
        ("FOLKMOOT_ENGINE__THREADS", "many", "FOLKMOOT_ENGINE__THREADS is 'many'"),
        ("FOLKMOOT_API__PRESETS", "{", "is not JSON"),
        ("FOLKMOOT_API__KEYS", "[secret", "^FOLKMOOT_API__KEYS begins like a JSON list but is none"),
        ("FOLKMOOT_NODE__PEER__MEMBERSHIP__HEAL_S", "1", r"HEAL_S is \['1'\]"),
    ],
)
def test_a_wrong_variable_is_told(name, value, said):
    with pytest.raises(ConfigError, match=said):
        load(environ={name: value})


def test_an_error_names_where_the_value_came_from():
    with pytest.raises(ConfigError, match="comes from: environment FOLKMOOT_API__LISTEN"):
        load(environ={"FOLKMOOT_API__LISTEN": "nowhere"})


def test_presets_are_added_to_ours(tmp_path):
    (tmp_path / "config.toml").write_text("[api.presets.mine]\nlayers = 3\nproposers = 2\n")
    presets = load(environ={"FOLKMOOT_HOME": str(tmp_path)}).settings.api.presets
    assert presets["mine"] == Own(layers=3, proposers=2)
    assert "moot-fast" in presets
    text = '{"theirs": {"private": true}}'
    assert load(environ={"FOLKMOOT_API__PRESETS": text}).settings.api.presets["theirs"] == Own(private=True)


def test_the_test_suites_variable_is_no_setting():
    load(environ={"FOLKMOOT_SEED": "3", "PATH": "/bin"})


def test_names_for_children():
    assert variable_of("node.network.listen") == "FOLKMOOT_NODE__NETWORK__LISTEN"
    environ = child_environ({"engine.threads": "1", "engine.models_folder": "/m"})
    assert environ["FOLKMOOT_ENGINE__THREADS"] == "1"
    assert environ["FOLKMOOT_MODELS"] == "/m"
    assert environ["FOLKMOOT_HOME"]


def test_the_default_name_is_one_that_a_device_may_have():
    DeviceConfig(name=default_name())


@pytest.mark.parametrize("text", ["15.5, 25", "[15.5, 25]", ' ["15.5", "25"] '])
def test_a_variable_holds_a_list_with_commas_or_as_json(text):
    name = variable_of("node.peer.membership.heal_s")
    assert load(environ={name: text}).settings.node.peer.membership.heal_s == (15.5, 25.0)


def test_what_config_show_prints_can_be_set_again():
    assert load(environ={"FOLKMOOT_API__KEYS": '["a,b", "c"]'}).settings.api.keys == ("a,b", "c")
    assert load(environ={"FOLKMOOT_API__KEYS": "[]"}).settings.api.keys == ()


def test_a_wrong_secret_is_told_without_it():
    with pytest.raises(ConfigError, match="FOLKMOOT_API__KEYS is hidden") as told:
        load(environ={"FOLKMOOT_API__KEYS": '["hush", 3]'})
    assert "hush" not in str(told.value)


def test_a_home_that_is_no_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for home, said in (("file", "is no folder"), ("file/below", "Not a directory")):
        with pytest.raises(HomeUnusable, match=said) as told:
            load(environ={"FOLKMOOT_HOME": str(tmp_path / home)})
        assert "FOLKMOOT_HOME" in str(told.value)
        assert "TOML" not in str(told.value)


def test_a_file_that_cannot_be_read_is_no_matter_of_toml(tmp_path):
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match=r"config.toml cannot be read: Is a directory"):
        load(environ={"FOLKMOOT_HOME": str(tmp_path)})


def test_it_is_known_which_settings_are_variables():
    loaded = load(flags={"device.name": "ash"}, environ={"FOLKMOOT_API__LISTEN": "127.0.0.1:2"})
    assert [loaded.from_environment(key) for key in ("api.listen", "device.name", "api.keys")] == [
        True,
        False,
        False,
    ]
