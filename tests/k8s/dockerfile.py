"""Parses Dockerfiles, and says what is wrong with them."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "10001:10001"
LABELS = {"title", "description", "licenses", "version", "revision"}
NEEDED = {"bash", "wget"}  # KubeRay's start command, the probes
_MIRROR = {"pip.conf", "ca.pem"}  # the secrets of k8s/images/build.sh: what reaches a mirror
_SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|access_?key|private_?key)")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, and the rest with lines joined and comments gone."""

    word: str
    rest: str

    @property
    def flags(self) -> dict[str, str]:
        return dict(re.findall(r"--([a-z]+)=(\S+)", self.rest))

    @property
    def arguments(self) -> list[str]:
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    image: str
    name: str | None
    instructions: tuple[Instruction, ...]


def parse(text: str) -> tuple[list[Instruction], list[Stage]]:
    """What stands before the first FROM, and the stages."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    before: list[Instruction] = []
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        one = Instruction(word.upper(), rest.strip())
        if one.word == "FROM":
            image, _, name = one.rest.partition(" AS ")
            stages.append(Stage(image, name or None, ()))
        elif stages:
            last = stages[-1]
            stages[-1] = Stage(last.image, last.name, (*last.instructions, one))
        else:
            before.append(one)
    return before, stages


def problems(text: str, root: Path) -> list[str]:
    """Everything that is wrong; `root` is the build's context."""
    before, stages = parse(text)
    found = [*_bases(before, stages), *_last(stages[-1]), *_all(stages, root)]
    found += [*_packages(stages, root), *_order(stages[-1])]
    if not any("cyclonedx" in one.rest for stage in stages for one in stage.instructions):
        found.append("no stage makes a bill of materials")
    return found


def _bases(before: list[Instruction], stages: list[Stage]) -> Iterator[str]:
    defaults = dict(
        one.rest.split("=", 1) for one in before if one.word == "ARG" and "=" in one.rest
    )
    named = {stage.name for stage in stages} | {"scratch"}
    for stage in stages:
        if stage.image in named:
            continue
        variable = re.fullmatch(r"\$\{(\w+)\}", stage.image)
        if variable is None:
            yield f"FROM {stage.image}: must be an ARG, so that it can be pinned by its digest"
            continue
        default = defaults.get(variable[1], "")
        name, _, digest = default.partition("@")
        tag = name.rsplit("/", 1)[-1].partition(":")[2]
        if not digest and (not re.search(r"\d+\.\d+\.\d+", tag) or tag == "latest"):
            yield f"ARG {variable[1]}={default}: must be an exact version"


def _last(stage: Stage) -> Iterator[str]:
    users = [one.rest for one in stage.instructions if one.word == "USER"]
    if not users or users[-1] != USER:
        yield f"USER: the image must end as {USER}, a number that Kubernetes can see is not root"
    after = [one.word for one in stage.instructions]
    if users and {"RUN", "COPY", "ADD"} & set(after[len(after) - after[::-1].index("USER") :]):
        yield "USER: something is installed after it"
    text = " ".join(one.rest for one in stage.instructions if one.word == "LABEL")
    missing = LABELS - set(re.findall(r"org\.opencontainers\.image\.(\w+)=", text))
    if missing:
        yield f"LABEL: no org.opencontainers.image.{', '.join(sorted(missing))}"
    installed = " ".join(one.rest for one in stage.instructions if one.word == "RUN").split()
    if NEEDED - set(installed):
        yield f"RUN: does not install {', '.join(sorted(NEEDED - set(installed)))}"


def _packages(stages: list[Stage], root: Path) -> Iterator[str]:
    """Every package that pyproject.toml names is copied: a missing one shows when the command starts."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    named = project["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = {
        source.rstrip("/")
        for stage in stages
        for one in stage.instructions
        if one.word == "COPY" and "from" not in one.flags
        for source in one.arguments[:-1]
    }
    for package in sorted({name.partition(".")[0] for name in named} - copied):
        yield f"{package}: is a package of Comptoir and is not copied"


def _order(stage: Stage) -> Iterator[str]:
    """In the last stage: what changes with every commit comes after what takes minutes."""
    if not any(
        one.word == "RUN" and one.rest == "comptoir --version" for one in stage.instructions
    ):
        yield "RUN: nothing in the build starts comptoir"
    words = [one.word for one in stage.instructions]
    for at, one in enumerate(stage.instructions):
        if one.word == "ARG" and {"RUN", "COPY"} & set(words[at:]):
            yield f"ARG {one.rest}: before RUN or COPY, which it makes run again"


def _all(stages: list[Stage], root: Path) -> Iterator[str]:
    for stage in stages:
        for one in stage.instructions:
            if one.word == "ADD":
                yield f"ADD {one.rest}: use COPY; what comes from elsewhere is not pinned"
            if one.word in ("ENV", "ARG"):
                names = re.findall(r"(?:^|\s)(\w+)=?", re.sub(r"=(\"[^\"]*\"|\S+)", "=", one.rest))
                yield from (
                    f"{one.word} {n}: is kept in the image" for n in names if _SECRET.search(n)
                )
            if one.word == "RUN":
                yield from _run(one.rest, root)
                if "pip install" in one.rest and "--no-index" not in one.rest:
                    secrets = set(re.findall(r"--mount=type=secret,id=(\S+)", one.rest))
                    if _MIRROR - secrets:
                        yield f"RUN {one.rest}: pip sees no mirror without {_MIRROR - secrets}"
            if one.word == "COPY" and "from" not in one.flags:
                for source in one.arguments[:-1]:
                    if not (root / source).exists():
                        yield f"COPY {source}: is not in the checkout"


def _run(command: str, root: Path) -> Iterator[str]:
    for part in re.split(r"&&|;|\|", command):
        if re.search(r"\b(curl|wget)\b.*https?://", part):
            yield f"RUN {part.strip()}: downloads what nobody has pinned"
        if "apt-get install" in part and "--no-install-recommends" not in part:
            yield "RUN apt-get install: without --no-install-recommends"
        if "pip install" in part:
            yield from _pip(part, root)
    if "apt-get install" in command and "/var/lib/apt/lists" not in command:
        yield "RUN apt-get install: leaves its lists in the image"
    if "sudo " in command:
        yield "RUN: sudo in an image"


def _pip(command: str, root: Path) -> Iterator[str]:
    listed = re.findall(r"-r (\S+)", command)
    for name in listed:
        if not (root / name).is_file():
            yield f"pip install -r {name}: is not in the checkout"
    exact = re.search(r"\S==\d", command)
    if not exact and "--no-deps" not in command:
        yield f"RUN {command.strip()}: pip chooses versions itself; use --no-deps"
