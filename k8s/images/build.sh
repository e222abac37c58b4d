#!/bin/sh
# Builds the images and their bills of materials with docker or podman: `build.sh [cpu] [gpu]`, by default both.
#
# IMAGE_PREFIX=host/team/    goes in front of comptoir-cpu and comptoir-gpu
# IMAGE_TAG=1.2.3            by default the package's version
# PYTHON_IMAGE=…@sha256:…    the base, pinned by its digest
# IMAGE_BUILDER=podman       which builder to use; by default docker or podman, whichever answers
# IMAGE_BUILD_OPTIONS="…"    more options for the builder, separated by spaces: --network=host, --isolation=chroot
#
# Behind a mirror (docs/kubernetes.md, Images). The builder sees these files as secrets; no layer keeps them:
# IMAGE_PIP_CONF=pip.conf    where pip finds packages
# IMAGE_CA=ca.pem            the authorities that pip trusts: `cert = /run/secrets/ca.pem` in that pip.conf
# TORCH_INDEX=https://…      asked for torch's CPU build when pip's configured sources lack it; by default PyTorch's
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "image: $*" >&2; }
fail() { say "$*"; exit 1; }

# The builder would pass over a file that is not there, and pip would ask the wrong index.
need_file() { [ -z "$2" ] || [ -f "$2" ] || fail "$1: no file '$2' (from the top of the checkout, or absolute)"; }

find_builder() {
    for candidate in ${IMAGE_BUILDER:-docker podman}; do
        # The command alone is not enough: docker's is useless without its daemon.
        if "$candidate" info >/dev/null 2>&1; then echo "$candidate"; return; fi
    done
    fail "no builder answers among: ${IMAGE_BUILDER:-docker podman}; install one, start its daemon, or set IMAGE_BUILDER"
}

build() {
    kind=$1
    shift
    [ -f "k8s/images/Dockerfile.$kind" ] || fail "unknown image '$kind': use cpu or gpu"
    if [ "$kind" = cpu ]; then
        # The same place as for an installation without containers.
        index=${TORCH_INDEX-$(sed -n 's/^TORCH_CPU_INDEX=//p' scripts/install.sh)}
        set -- "$@" --build-arg "TORCH_INDEX=$index"
    fi
    if [ -n "${PYTHON_IMAGE:-}" ]; then set -- "$@" --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"; fi
    if [ -n "${IMAGE_PIP_CONF:-}" ]; then set -- "$@" --secret "id=pip.conf,src=$IMAGE_PIP_CONF"; fi
    if [ -n "${IMAGE_CA:-}" ]; then set -- "$@" --secret "id=ca.pem,src=$IMAGE_CA"; fi
    # Unquoted: these are several words.
    set -- "$@" ${IMAGE_BUILD_OPTIONS:-}
    reference="${IMAGE_PREFIX:-}comptoir-$kind:$tag"
    say "building $reference"
    "$builder" build --file "k8s/images/Dockerfile.$kind" --tag "$reference" \
        --build-arg "VERSION=$tag" --build-arg "REVISION=$revision" "$@" .
    "$builder" build --file "k8s/images/Dockerfile.$kind" --target sbom \
        --output "type=local,dest=build/sbom" "$@" .
    say "$reference is built; its bill of materials is build/sbom/comptoir-$kind.cdx.json"
}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' serving/__init__.py)
tag=${IMAGE_TAG:-$version}
[ "$tag" != latest ] || fail "IMAGE_TAG: latest says nothing; use a version"
need_file IMAGE_PIP_CONF "${IMAGE_PIP_CONF:-}"
need_file IMAGE_CA "${IMAGE_CA:-}"
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
builder=$(find_builder)
[ $# -gt 0 ] || set -- cpu gpu
for image in "$@"; do build "$image"; done
