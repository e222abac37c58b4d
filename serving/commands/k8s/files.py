"""Files of manifests: read from folders, Kustomize's layout and standard input, and written."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

from serving.commands.output import note
from serving.errors import ConfigError
from serving.kubernetes import kustomize
from serving.kubernetes.names import Manifest
from serving.kubernetes.render import HEADER


def read_manifests(path: str) -> list[Manifest]:
    """The manifests of a file, a folder, or standard input (`-`).

    Raises:
        ConfigError: it cannot be read, or contains something else.
    """
    if path == "-":
        try:
            return kustomize.documents(sys.stdin.read(), "standard input")
        except UnicodeDecodeError:
            raise ConfigError("standard input: is not text", param="paths") from None
    place = Path(path)
    if not place.is_dir():
        return kustomize.documents(_read(place), path)
    if (place / kustomize.KUSTOMIZATION).is_file():
        return kustomize.build(PurePosixPath(place), _read)
    files = sorted(one for one in place.rglob("*") if one.suffix in (".yaml", ".yml"))
    if not files:
        raise ConfigError(f"{path}: there are no YAML files in it", param="paths")
    return [one for file in files for one in kustomize.documents(_read(file), str(file))]


def read_folder(folder: Path) -> dict[str, str]:
    """Texts of an earlier run, by file name.

    Raises:
        ConfigError: it is no folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"--diff {folder}: is not a folder", param="diff")
    return {path.name: _read(path) for path in sorted(folder.glob("*.yaml"))}


def write_folder(folder: Path, files: dict[str, str]) -> None:
    """Write the files, and remove what an earlier run wrote and this one does not.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in folder.glob("*.yaml"):
            # What an earlier run wrote and this one does not would be applied with the rest.
            if path.name not in files and path.read_bytes().startswith(HEADER.encode()):
                path.unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}", param="out") from None
    note(f"{len(files)} files in {folder}")


def _read(path: Path | PurePosixPath) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", param=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text", param=str(path)) from None
