"""Keys, limits and routing that change while the gateway runs; what does not fit is refused and said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.config.keys import KeyConfig, read_keys
from serving.discovery.directory import Directory
from serving.errors import ConfigError
from serving.gateway import live_settings
from serving.gateway.live_settings import LiveSettings
from serving.gateway.services import Services
from serving.settings import GatewayConfig, ProcessSettings, hash_key


def entry(name: str) -> dict[str, Any]:
    return {"name": name, "hash": hash_key(name)}


def write(path: Path, *names: str) -> None:
    path.write_text(yaml.safe_dump([entry(name) for name in names]))


class Site:
    """A gateway's settings, and who is let in."""

    def __init__(self, config: GatewayConfig, in_args: tuple[KeyConfig, ...]) -> None:
        self.services = Services.build(config, lambda: Directory(()))
        self.settings = LiveSettings(config, in_args, self.services)

    @property
    def names(self) -> list[str]:
        return [key.name for key in self.services.config.keys]

    async def comes_to(self, is_so: Callable[[], bool]) -> None:
        for _ in range(400):
            if is_so():
                return
            await asyncio.sleep(0.005)
        pytest.fail(f"in force stayed {self.names}, refused {self.services.refused_changes}")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(live_settings, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(live_settings, "SETTLE_S", 0.01)
    path = tmp_path / "keys.yaml"
    write(path, "a", "b")
    return path


@pytest.fixture
async def site(file: Path) -> AsyncIterator[Site]:
    args = {"keys": [entry("first")], "keys_file": str(file)}
    config = GatewayConfig.from_args(args, ProcessSettings())
    found = Site(config, config.keys[:1])
    await found.settings.start()
    assert found.settings.follows
    yield found
    await found.settings.stop()
    assert not found.settings.follows


async def test_a_key_in_the_file_is_let_in_and_one_that_is_taken_out_is_not(
    site: Site, file: Path
) -> None:
    assert site.names == ["first", "a", "b"]
    write(file, "b", "c")
    await site.comes_to(lambda: site.names == ["first", "b", "c"])
    assert site.services.keys.identify("Bearer c").name == "c"


async def test_a_file_that_is_replaced_is_followed(site: Site, file: Path) -> None:
    other = file.with_name("new")
    write(other, "c")
    other.replace(file)
    await site.comes_to(lambda: site.names == ["first", "c"])
    # As Kubernetes does it: what the name leads to changes.
    write(file.with_name("second"), "d")
    link = file.with_name("link")
    link.symlink_to("second")
    link.replace(file)
    await site.comes_to(lambda: site.names == ["first", "d"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold a list"),
        ("[]", "holds no key"),
        ("- {name: a", "is not YAML"),
        ("- {name: a, hash: b}", "hash"),
        (yaml.safe_dump([entry("a"), entry("a")]), "appears twice"),
        (yaml.safe_dump([entry("first")]), "appears twice"),
    ],
)
async def test_a_broken_file_keeps_the_keys_and_is_said_to_be_broken(
    site: Site, file: Path, text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(text)  # noqa: ASYNC240 - a small file
    await site.comes_to(lambda: "keys_file" in site.services.refused_changes)
    assert said in site.services.refused_changes["keys_file"]
    assert "what was in force stays" in caplog.text
    assert site.names == ["first", "a", "b"]
    await asyncio.sleep(0.05)
    assert caplog.text.count("what was in force stays") == 1
    write(file, "c")
    await site.comes_to(lambda: site.names == ["first", "c"])
    assert not site.services.refused_changes


async def test_a_file_that_is_gone_for_a_moment_is_followed_again(site: Site, file: Path) -> None:
    file.unlink()  # noqa: ASYNC240 - a small file
    await site.comes_to(lambda: "keys_file" in site.services.refused_changes)
    assert site.names == ["first", "a", "b"]
    write(file, "a", "b")
    await site.comes_to(lambda: not site.services.refused_changes)


async def test_half_a_file_is_not_taken(
    site: Site, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        yaml.safe_dump([entry(name) for name in names]).encode() for names in ("a", "ab", "abc")
    ]
    monkeypatch.setattr(live_settings, "_content", lambda path: texts.pop(0) if texts else None)
    await site.settings._look(file, b"before")
    assert site.names == ["first", "a", "b"]


@pytest.mark.parametrize("before", [b"before", None])
async def test_what_is_written_while_it_is_read_is_not_taken(
    site: Site, file: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    """Also after the file was away for a moment."""

    def half(path: Path) -> Any:
        write(file, "a")
        found = read_keys(path)
        write(file, "a", "b", "c")
        return found

    await site.settings.stop()
    monkeypatch.setattr(live_settings, "read_keys", half)
    write(file, "a")
    assert await site.settings._look(file, before) == before
    assert site.names == ["first", "a", "b"]


async def test_half_a_file_where_there_was_none_is_not_taken(
    site: Site, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.settings.stop()
    write(file, "a")

    async def written(seconds: float) -> None:
        write(file, "a", "b", "c")

    monkeypatch.setattr(live_settings.asyncio, "sleep", written)
    await site.settings._look(file, None)
    assert site.names == ["first", "a", "b"]
    monkeypatch.undo()
    write(file, "a", "c")
    await site.settings._look(file, None)
    assert site.names == ["first", "a", "c"]


async def test_user_config_changes_keys_limits_routing_and_admission(site: Site) -> None:
    site.settings.take(
        {
            "keys": [entry("second")],
            "limits": {"max_n": 1},
            "routing": {"aliases": {"new": "old"}},
            "admission": {"max_waiting": 3},
        }
    )
    config = site.services.config
    assert site.names == ["second", "a", "b"]
    assert (config.limits.max_n, config.admission.max_waiting) == (1, 3)
    assert list(site.services.dispatcher.routing.aliases) == ["new"]
    site.settings.take({"limits": {"max_n": 2}})
    config = site.services.config
    assert site.names == ["first", "a", "b"]
    assert (config.limits.max_n, config.admission.max_waiting) == (2, 1024)
    assert not site.services.dispatcher.routing.aliases


@pytest.mark.parametrize(
    "change", [{"keys": [entry("a")]}, {"limits": {"max_m": 1}}, {"port": 1}, {"routing": 3}]
)
async def test_a_user_config_that_does_not_fit_changes_nothing(
    site: Site, change: dict[str, Any]
) -> None:
    before = site.services.config
    site.settings.take(
        change | {"admission": {"max_waiting": 3}} if "port" not in change else change
    )
    assert site.services.config == before
    assert "user_config" in site.services.refused_changes
    site.settings.take({})
    assert not site.services.refused_changes


async def test_a_change_never_takes_the_last_key_away() -> None:
    config = GatewayConfig(keys=(KeyConfig.model_validate(entry("a")),))
    site = Site(config, config.keys)
    assert site.settings.follows
    site.settings.take({"keys": []})
    assert site.names == ["a"]
    assert "everyone would be let in" in site.services.refused_changes["user_config"]


def test_a_change_that_opens_the_endpoint_to_other_machines_is_refused() -> None:
    keys = (KeyConfig.model_validate(entry("a")),)
    config = GatewayConfig(host="0.0.0.0", keys=keys)
    with pytest.raises(ConfigError, match="no key would be left"):
        config.changed(live_settings.LiveConfig(keys=()), (), ())


async def test_keys_that_the_file_held_at_the_start_stay_where_it_cannot_be_read(
    file: Path,
) -> None:
    config = GatewayConfig.from_args({"keys_file": str(file)}, ProcessSettings())
    os.unlink(file)
    site = Site(config, ())
    await site.settings.start()
    assert site.names == ["a", "b"]
    assert "cannot be read" in site.services.refused_changes["keys_file"]
    await site.settings.stop()
