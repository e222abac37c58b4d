"""The Dockerfiles: pinned, without root, complete; and the script that builds them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from serving import __version__
from serving.environment import cluster_environment
from serving.kubernetes.overlays import OVERLAYS, site_config
from serving.kubernetes.pods import HOME, USER
from tests.k8s import dockerfile
from tests.k8s.checking import ROOT

IMAGES = ROOT / "k8s" / "images"
each_image = pytest.mark.parametrize("kind", ["cpu", "gpu"])


def text(kind: str) -> str:
    return (IMAGES / f"Dockerfile.{kind}").read_text(encoding="utf-8")


def final(kind: str) -> dockerfile.Stage:
    return dockerfile.parse(text(kind))[1][-1]


@each_image
def test_nothing_is_wrong_with_it(kind: str) -> None:
    assert dockerfile.problems(text(kind), ROOT) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("FROM ${PYTHON_IMAGE}\n", "FROM python:3.11.14\n", "must be an ARG"),
        ("python:3.11.14-slim-bookworm\n", "python:latest\n", "must be an exact version"),
        ("python:3.11.14-slim-bookworm\n", "python\n", "must be an exact version"),
        ("USER 10001:10001\n", "", "must end as"),
        ("USER 10001:10001\n", "USER comptoir\n", "must end as"),
        ("WORKDIR /home", "RUN true\nWORKDIR /home", "installed after it"),
        ("COPY serving/ serving/", "COPY servings/ serving/", "servings/: is not in the checkout"),
        ("COPY serving/ serving/", "ADD https://a.example/x /x", "use COPY"),
        ("-r requirements/gpu.txt", "-r requirements/gup.txt", "gup.txt: is not in the checkout"),
        ("install --no-deps --no-compile -r", "install -r", "pip chooses versions itself"),
        ("cyclonedx-bom==7.5.0", "cyclonedx-bom", "pip chooses versions itself"),
        ("ARG VERSION=0", "ARG VERSION=0\nARG HF_TOKEN", "HF_TOKEN: is kept in the image"),
        ("ENV PATH=", "ENV API_KEY=x PATH=", "API_KEY: is kept in the image"),
        (" wget \\\n", " \\\n", "does not install wget"),
        ("--no-install-recommends ", "", "without --no-install-recommends"),
        ("/var/lib/apt/lists/* ", "", "leaves its lists"),
        ("org.opencontainers.image.revision", "revision", "no org.opencontainers.image.revision"),
        ("RUN python3 -m venv /app/venv", "RUN wget https://a.example/x | sh", "nobody has pinned"),
        ("cyclonedx", "nothing", "no stage makes a bill of materials"),
        (
            "COPY loadtests/ loadtests/\n",
            "",
            "loadtests: is a package of Comptoir and is not copied",
        ),
        ("RUN comptoir --version\n", "", "nothing in the build starts comptoir"),
        (
            ",id=ca.pem \\\n    /app/venv/bin/pip install",
            ",id=ca.crt \\\n    pip install",
            "mirror",
        ),
        ("USER 10001:10001\n", "ARG VERSION\nRUN a\nUSER 10001:10001\n", "ARG VERSION: before"),
    ],
)
def test_what_is_wrong_is_found(old: str, new: str, problem: str) -> None:
    good = text("gpu")
    assert old in good
    found = dockerfile.problems(good.replace(old, new), ROOT)
    assert any(problem in one for one in found), found


def test_a_digest_is_a_pin() -> None:
    pinned = text("cpu").replace("3.11.14-slim-bookworm\n", "3@sha256:" + "0" * 64 + "\n", 1)
    assert dockerfile.problems(pinned, ROOT) == []


def test_both_have_the_same_base_and_so_the_same_python() -> None:
    bases = {dockerfile.parse(text(kind))[0][0].rest for kind in ("cpu", "gpu")}
    assert len(bases) == 1
    pins = [(ROOT / "requirements" / f"{kind}.txt").read_text().split() for kind in ("cpu", "gpu")]
    rays = {next(pin for pin in found if pin.startswith("ray==")) for found in pins}
    assert len(rays) == 1


@pytest.mark.parametrize(("cuda", "status"), [("'13.0'", 0), ("None", 1)])
def test_the_gpu_image_is_not_built_with_torch_for_the_cpu(
    tmp_path: Path, cuda: str, status: int
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"cuda = {cuda}\n", encoding="utf-8")
    code = next(
        one.arguments[2]
        for stage in dockerfile.parse(text("gpu"))[1]
        for one in stage.instructions
        if one.word == "RUN" and "torch.version" in one.rest
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == status


@each_image
def test_it_runs_as_the_user_that_pods_run_as(kind: str) -> None:
    assert f"{USER}:{USER}" == dockerfile.USER
    last = final(kind)
    assert next(one.rest for one in last.instructions if one.word == "WORKDIR") == HOME
    run = next(one.rest for one in last.instructions if one.word == "RUN")
    assert f"--uid {USER}" in run


@each_image
def test_it_reports_to_nobody_even_outside_a_cluster(kind: str) -> None:
    env = " ".join(one.rest for one in final(kind).instructions if one.word == "ENV")
    for name in ("RAY_USAGE_STATS_ENABLED", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        assert f"{name}={cluster_environment()[name]}" in env


@each_image
def test_the_context_holds_what_is_copied_and_no_more(kind: str) -> None:
    lines = (IMAGES / f"Dockerfile.{kind}.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source.partition("/")[0]
        for stage in dockerfile.parse(text(kind))[1]
        for one in stage.instructions
        if one.word == "COPY" and "from" not in one.flags
        for source in one.arguments[:-1]
    }
    assert kept == copied
    assert any(fnmatch("serving/__pycache__", rule) for rule in rules if rule.startswith("**/"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_name_the_images_that_are_built(overlay: str) -> None:
    images = site_config(overlay).images
    assert (images.cpu, images.gpu) == (
        f"comptoir-cpu:{__version__}",
        f"comptoir-gpu:{__version__}",
    )


# ---- build.sh ----------------------------------------------------------------------------------------


def build(
    folder: Path, *words: str, builder: str = "", **environment: str
) -> tuple[int, str, list[str]]:
    """Run it with a builder that only writes down what it is asked."""
    log = folder / "log"
    if builder:
        script = folder / builder
        script.write_text(f'#!/bin/sh\n[ "$1" = info ] || echo "$@" >>"{log}"\n', encoding="utf-8")
        script.chmod(0o755)
    path = f"{folder}:/usr/bin:/bin"
    done = subprocess.run(
        [str(IMAGES / "build.sh"), *words],
        env={"PATH": path, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    asked = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return done.returncode, done.stderr, asked


def test_it_builds_both_and_their_bills_of_materials(tmp_path: Path) -> None:
    status, _, asked = build(tmp_path, builder="podman", IMAGE_BUILDER="podman")
    assert status == 0
    tags = [re.search(r"--tag (\S+)", line) for line in asked]
    assert [tag[1] for tag in tags if tag] == [
        f"comptoir-cpu:{__version__}",
        f"comptoir-gpu:{__version__}",
    ]
    assert sum("--target sbom --output type=local,dest=build/sbom" in line for line in asked) == 2
    with_index = [line for line in asked if "TORCH_INDEX=https://" in line]
    assert len(with_index) == 2
    assert all("Dockerfile.cpu" in line for line in with_index)


def test_name_tag_and_base_can_be_given(tmp_path: Path) -> None:
    base = "python@sha256:" + "0" * 64
    status, said, asked = build(
        tmp_path,
        "gpu",
        builder="podman",
        IMAGE_BUILDER="podman",
        IMAGE_PREFIX="host.example/team/",
        IMAGE_TAG="1.2.3",
        PYTHON_IMAGE=base,
    )
    assert status == 0
    assert "host.example/team/comptoir-gpu:1.2.3 is built" in said
    assert all(f"--build-arg PYTHON_IMAGE={base}" in line for line in asked)
    assert "TORCH_INDEX" not in " ".join(asked)


def test_a_mirror_reaches_the_build_as_secrets_and_options(tmp_path: Path) -> None:
    conf, authority = tmp_path / "pip.conf", tmp_path / "ca.pem"
    conf.write_text("[global]\n", encoding="utf-8")
    authority.write_text("", encoding="utf-8")
    status, _, asked = build(
        tmp_path,
        "cpu",
        builder="podman",
        IMAGE_BUILDER="podman",
        IMAGE_PIP_CONF=str(conf),
        IMAGE_CA=str(authority),
        IMAGE_BUILD_OPTIONS="--network=host --isolation=chroot",
        TORCH_INDEX="",
    )
    assert status == 0
    assert len(asked) == 2  # the bill of materials needs the mirror too
    for line in asked:
        assert f"--secret id=pip.conf,src={conf} --secret id=ca.pem,src={authority}" in line
        assert "--network=host --isolation=chroot" in line
        assert "--build-arg TORCH_INDEX= " in line


@pytest.mark.parametrize(
    ("words", "environment", "complaint"),
    [
        ((), {"IMAGE_BUILDER": "no-such-builder"}, "no builder answers among: no-such-builder"),
        ((), {"IMAGE_TAG": "latest"}, "latest says nothing"),
        (("tpu",), {}, "unknown image 'tpu'"),
        ((), {"IMAGE_PIP_CONF": "absent.conf"}, "IMAGE_PIP_CONF: no file 'absent.conf'"),
        ((), {"IMAGE_CA": "absent.pem"}, "IMAGE_CA: no file 'absent.pem'"),
    ],
)
def test_it_says_why_it_cannot(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], complaint: str
) -> None:
    chosen = {"IMAGE_BUILDER": "podman"} | environment
    status, said, asked = build(tmp_path, *words, builder="podman", **chosen)
    assert status == 1
    assert complaint in said
    assert asked == []


def test_it_can_be_run() -> None:
    assert os.access(IMAGES / "build.sh", os.X_OK)
