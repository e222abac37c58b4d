"""uv is given the sources that pip is configured with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import pip_sources

ROOT = Path(__file__).resolve().parents[2]
EXTRA = "extra-" + "index-url"


def test_the_environment_overrides_the_file_and_the_command_the_global_section() -> None:
    listing = (
        ":env:.find-links='/c'\nglobal.find-links='/a'\nglobal.timeout='5'\n"
        "install.timeout='9'\nfreeze.timeout='77'\n"
    )
    assert pip_sources.parse(listing) == {"find-links": "/c", "timeout": "9"}


@pytest.mark.parametrize(
    ("option", "value", "variable", "expected"),
    [
        ("index-url", "https://a.example/simple", "UV_INDEX_URL", "https://a.example/simple"),
        (EXTRA, "\nhttps://a.example/x\nb", "UV_EXTRA_INDEX_URL", "https://a.example/x b"),
        ("find-links", "/a /b", "UV_FIND_LINKS", "/a,/b"),
        ("cert", "/ca.pem", "SSL_CERT_FILE", "/ca.pem"),
        ("client-cert", "/me.pem", "SSL_CLIENT_CERT", "/me.pem"),
        ("constraint", "/limits.txt", "UV_CONSTRAINT", "/limits.txt"),
        ("trusted-host", "a.example b.example", "UV_INSECURE_HOST", "a.example b.example"),
        ("proxy", "http://p.example:3128", "ALL_PROXY", "http://p.example:3128"),
        ("timeout", "30", "UV_HTTP_TIMEOUT", "30"),
        ("default-timeout", "180", "UV_HTTP_TIMEOUT", "180"),
        ("no-cache-dir", "true", "UV_NO_CACHE", "1"),
    ],
)
def test_an_option_of_pip_becomes_a_variable_of_uv(
    option: str, value: str, variable: str, expected: str
) -> None:
    assert pip_sources.environment({option: value}, {})[variable] == expected
    assert variable not in pip_sources.environment({option: value}, {variable: "mine"})


def test_a_default_index_of_uv_is_not_contradicted() -> None:
    found = pip_sources.environment({"index-url": "https://a.example"}, {"UV_DEFAULT_INDEX": "b"})
    assert "UV_INDEX_URL" not in found


def test_a_keyring_that_uv_does_not_know_is_not_named_to_it() -> None:
    assert "UV_KEYRING_PROVIDER" not in pip_sources.environment({"keyring-provider": "auto"}, {})


def test_all_sources_are_equal_as_they_are_to_pip() -> None:
    assert pip_sources.environment({}, {})["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_without_authorities_of_its_own_it_trusts_those_of_the_system() -> None:
    bundle = {"REQUESTS_CA_BUNDLE": "/ca.pem"}
    assert pip_sources.environment({}, bundle)["SSL_CERT_FILE"] == "/ca.pem"
    assert ("UV_SYSTEM_CERTS" in pip_sources.environment({}, {})) is pip_sources.has_system_store()
    assert "UV_SYSTEM_CERTS" not in pip_sources.environment({"cert": "/ca.pem"}, {})


@pytest.mark.parametrize(
    ("value", "words"), [("1", "pip install x --no-index"), ("0", "pip install x")]
)
def test_uv_runs_with_pips_configuration(tmp_path: Path, value: str, words: str) -> None:
    fake = tmp_path / "uv"
    fake.write_text('#!/bin/sh\necho "$* from $UV_FIND_LINKS"\n', encoding="utf-8")
    fake.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/pip_sources.py"), str(fake), "pip", "install", "x"],
        env=clean
        | {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(tmp_path), "PIP_NO_INDEX": value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{words} from {tmp_path}\n"
