"""Runs uv with the package sources that pip is configured with: `pip_sources.py UV ARGUMENT...`.

A site says in pip.conf or PIP_* where its packages are, and uv reads neither. What is set for uv itself
(UV_*, SSL_CERT_FILE, proxies) stays as it is.
"""

from __future__ import annotations

import ast
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Each overrides the one before, as pip does it.
SECTIONS = ("global", "install", ":env:")
# pip's name: uv's variable. pip separates several values by white space.
VARIABLES = {
    "index-url": "UV_INDEX_URL",
    "extra-" + "index-url": "UV_EXTRA_INDEX_URL",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "keyring-provider": "UV_KEYRING_PROVIDER",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
KEYRINGS = {"subprocess", "disabled"}


def parse(listing: str) -> dict[str, str]:
    """The options that hold for `pip install`, out of what `pip config list` prints."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in found and value:
            found[section][option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def is_on(value: str | None) -> bool:
    """How pip reads a switch."""
    return (value or "").lower() in ("1", "true", "t", "yes", "y", "on")


def environment(options: Mapping[str, str], outer: Mapping[str, str]) -> dict[str, str]:
    """What uv needs in its environment, beside what is there already.

    Args:
        options: pip's, by their long names.
        outer: the environment of this process; what it sets for uv wins.
    """
    wanted = {
        variable: " ".join(options[option].split())
        for option, variable in VARIABLES.items()
        if options.get(option)
    }
    if wanted.get("UV_KEYRING_PROVIDER") not in KEYRINGS:
        wanted.pop("UV_KEYRING_PROVIDER", None)
    if links := options.get("find-links"):
        wanted["UV_FIND_LINKS"] = ",".join(links.split())
    # The option has no variable of uv's own; `no-cache-dir` is what PIP_NO_CACHE_DIR is called.
    if is_on(options.get("no-cache-dir")):
        wanted["UV_NO_CACHE"] = "1"
    # To pip all sources are equal, and the lists pin every version.
    wanted["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    # uv brings authorities of its own; a company's stand in the system's store.
    if not any("SSL_CERT_FILE" in names for names in (wanted, outer)):
        if bundle := outer.get("REQUESTS_CA_BUNDLE"):
            wanted["SSL_CERT_FILE"] = bundle
        elif has_system_store():
            wanted["UV_SYSTEM_CERTS"] = "1"
    if "UV_DEFAULT_INDEX" in outer:
        wanted.pop("UV_INDEX_URL", None)
    return {name: value for name, value in wanted.items() if name not in outer}


def has_system_store() -> bool:
    """Whether the system keeps certificates of authorities where OpenSSL looks for them."""
    # Each is None where nothing is there, whatever typeshed says.
    bundle, folder = ssl.get_default_verify_paths()[:2]
    return Path(bundle or os.devnull).is_file() or any(Path(folder or os.devnull).glob("*.0"))


def main(command: list[str]) -> None:
    """Become uv."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    options = parse(listing.stdout)
    # No variable says this to uv.
    alone = ["--no-index"] if is_on(options.get("no-index")) else []
    outer = os.environ
    os.execvpe(command[0], [*command, *alone], outer | environment(options, outer))  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
