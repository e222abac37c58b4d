#!/bin/sh
# Builds the images and their bills of materials with docker or podman: `build.sh [cpu] [gpu]`, by default both.
#
# IMAGE_PREFIX=host/team/    goes in front of comptoir-cpu and comptoir-gpu
# IMAGE_TAG=1.2.3            by default the package's version
# PYTHON_IMAGE=…@sha256:…    the base, pinned by its digest
# IMAGE_BUILDER=podman       which builder to use; by default docker or podman, whichever answers
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "image: $*" >&2; }
fail() { say "$*"; exit 1; }

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
        set -- "$@" --build-arg "TORCH_INDEX=$(sed -n 's/^TORCH_CPU_INDEX=//p' scripts/install.sh)"
    fi
    if [ -n "${PYTHON_IMAGE:-}" ]; then set -- "$@" --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"; fi
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
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
builder=$(find_builder)
[ $# -gt 0 ] || set -- cpu gpu
for image in "$@"; do build "$image"; done
