#!/bin/sh
# Writes requirements/*.txt from the .in files with uv: `make lock`, or `lock.sh [--upgrade] [cpu] [gpu] [dev] [nixl] [uv]`.
# Nothing is installed. Today's pins are kept unless `--upgrade` is given. The lists are complete, for Linux on
# x86-64, and installed without dependencies: what is not listed is not there.
set -eu
cd "$(dirname "$0")/../requirements"

uv=$(command -v uv || echo ../.venv/bin/uv)
upgrade=
NEWER_PYTHONS="3.12 3.13" # the lists are made for the oldest, 3.11
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo torch >"$scratch/torch"
if [ "${1:-}" = --upgrade ]; then upgrade=--upgrade; shift; fi

# compile PYTHON ARGUMENT...: uv resolves for this Python, and says nothing.
compile() {
    python=$1
    shift
    ../.venv/bin/python ../scripts/pip_sources.py "$uv" pip compile --quiet --no-annotate --excludes left-out.txt \
        --python-version "$python" --python-platform x86_64-manylinux_2_34 "$@"
}

# lock NAME ARGUMENT...: writes NAME.txt.
lock() {
    name=$1
    shift
    compile 3.11 --custom-compile-command 'make lock (complete: install with --no-deps)' $upgrade \
        --output-file "$name.txt" "$@"
    echo "requirements/$name.txt: $(grep -c == "$name.txt") packages"
    for newer in $NEWER_PYTHONS; do check "$newer" "$@"; done
}

# One list serves every supported Python: its pins have wheels there, and nothing else is needed. torch is taken on
# trust in the lists for the CPU, because the sources that are configured need not have its CPU wheels for all.
check() {
    without=
    if [ "$name" != gpu ]; then without="--excludes $scratch/torch"; fi
    # shellcheck disable=SC2086 # nothing, or an option
    compile "$@" --constraints "$name.txt" --only-binary :all: --no-header $without >"$scratch/$name" ||
        { echo "lock: $name.txt does not resolve on Python $1 (above)" >&2; exit 1; }
    more=$(grep == "$scratch/$name" | grep -vxFf "$name.txt" | tr '\n' ' ') || true
    [ -z "$more" ] || { echo "lock: on Python $1 $name.txt lacks $more" >&2; exit 1; }
}

# Installed on top of a runtime list: it keeps to that list's versions, and holds only what that does not.
lock_on_top() {
    # shellcheck disable=SC2046 # names of packages
    lock "$1" --constraints cpu.txt "$1.in" $(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' cpu.txt)
}

for list in ${*:-cpu gpu dev nixl uv}; do
    case "$list" in
        cpu) lock cpu --excludes left-out-cpu.txt common.in cpu.in ;;
        gpu) lock gpu common.in gpu.in ;;
        uv) lock uv uv.in ;;
        dev | nixl) lock_on_top "$list" ;;
        *) echo "lock: unknown list '$list': use cpu, gpu, dev, nixl or uv" >&2; exit 1 ;;
    esac
done
