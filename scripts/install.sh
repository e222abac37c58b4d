#!/bin/sh
# Creates .venv and installs the pinned packages into it with uv: `install.sh runtime`, or `install.sh dev` for
# the test and check tools too. Does nothing when nothing has changed since it last succeeded.
#
# COMPTOIR_DEVICE=cpu|gpu   which engine to install; by default gpu where `nvidia-smi -L` finds one
# COMPTOIR_PYTHON=COMMAND   which Python to use; by default the first of python3.11 to python3.13 and python3
set -eu
cd "$(dirname "$0")/.."

# PyTorch publishes its CPU builds here and not on PyPI.
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
PYTHONS="python3.11 python3.12 python3.13 python3"

say() { printf '%s\n' "install: $*" >&2; }
fail() { say "$*"; exit 1; }

find_device() {
    case "${COMPTOIR_DEVICE:-}" in
        cpu | gpu) echo "$COMPTOIR_DEVICE" ;;
        '') if nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi ;;
        *) fail "COMPTOIR_DEVICE is '$COMPTOIR_DEVICE': use cpu or gpu, or leave it out" ;;
    esac
}

find_python() {
    for candidate in ${COMPTOIR_PYTHON:-$PYTHONS}; do
        # Run it: a version manager leaves commands on the PATH for versions that are not active.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or later among: ${COMPTOIR_PYTHON:-$PYTHONS};" \
        "install one, or set COMPTOIR_PYTHON to its path"
}

checksum() { cat "$@" | cksum | cut -d ' ' -f 1; }

# A virtual environment knows its own path, and the two engines install the same package.
make_venv() {
    origin="$device $PWD"
    if [ -x .venv/bin/pip ] && .venv/bin/python -c '' 2>/dev/null &&
        { [ ! -e .venv/comptoir-origin ] || [ "$(cat .venv/comptoir-origin)" = "$origin" ]; }; then
        printf '%s\n' "$origin" >.venv/comptoir-origin
        return
    fi
    python=$(find_python)
    rm -rf .venv
    say "creating .venv with $python for the $device"
    "$python" -m venv .venv || {
        rm -rf .venv
        fail "'$python -m venv' failed; on Debian and Ubuntu install the python3-venv package"
    }
    printf '%s\n' "$origin" >.venv/comptoir-origin
}

find_uv() {
    if uv --version >/dev/null 2>&1; then uv=uv; return; fi
    uv=.venv/bin/uv
    if "$uv" --version >/dev/null 2>&1; then return; fi
    .venv/bin/python -m pip install --no-deps --no-input --disable-pip-version-check -qq \
        -r requirements/uv.txt || fail "pip could not install uv (above); nothing was marked as done"
}

uv_install() { .venv/bin/python scripts/pip_sources.py "$uv" pip install --python .venv/bin/python --no-deps -q "$@"; }

install_cpu_torch() {
    pin=$(grep '^torch==' requirements/cpu.txt)
    if uv_install "$pin" 2>.venv/torch.log; then return; fi
    if ! grep -q 'No solution found' .venv/torch.log; then
        cat .venv/torch.log >&2
        fail "uv could not install $pin (above)." \
            "Without a network, put the wheels into a folder, and set PIP_FIND_LINKS to it and PIP_NO_INDEX=1"
    fi
    say "pip's configured sources do not have $pin; taking it from $TORCH_CPU_INDEX"
    uv_install --index-url "$TORCH_CPU_INDEX" "$pin" ||
        fail "no $pin: neither in pip's configured sources nor at $TORCH_CPU_INDEX." \
            "Without a network, put the wheel into a folder and set PIP_FIND_LINKS to it"
}

install_runtime() {
    find_uv
    if [ "$device" = cpu ]; then install_cpu_torch; fi
    uv_install -r "requirements/$device.txt" || fail "uv failed (above); nothing was marked as done"
    # A leftover of an earlier version would hide the entry points of this one.
    rm -rf comptoir.egg-info
    uv_install --no-build-isolation --editable . || fail "uv could not install Comptoir itself (above)"
    # A CPU wheel satisfies the CUDA pin as well: 2.13.0+cpu counts as 2.13.0.
    built_for=$(.venv/bin/python -c 'import torch; print("gpu" if torch.version.cuda else "cpu")') ||
        fail "the installed torch cannot be imported (above)"
    [ "$built_for" = "$device" ] ||
        fail "wanted torch for the $device and uv found the one for the $built_for:" \
            "check pip's find-links and indexes, or set COMPTOIR_DEVICE=$built_for"
}

install_dev() {
    find_uv
    uv_install -r requirements/dev.txt -r requirements/nixl.txt || fail "uv failed (above); nothing was marked as done"
}

# part NAME WHAT FILE...: installs one part, unless it was installed from these very files.
part() {
    name=$1 what=$2
    shift 2
    key=$(checksum "$@")
    if [ -e ".venv/comptoir-$name" ] && [ "$(cat ".venv/comptoir-$name")" = "$key" ]; then return; fi
    rm -f ".venv/comptoir-$name"
    began=$(date +%s)
    say "installing $what"
    "install_$name"
    say "done in $(($(date +%s) - began)) s"
    printf '%s\n' "$key" >".venv/comptoir-$name"
}

main() {
    case "${1:-}" in runtime | dev) ;; *) fail "usage: install.sh runtime|dev" ;; esac
    case "$(uname -s) $(uname -m)" in
        'Linux x86_64') ;;
        *) fail "the pinned packages are for Linux on x86-64; this is $(uname -s) on $(uname -m)" ;;
    esac
    device=$(find_device)
    if [ "$device" = cpu ]; then size='about 200 packages, 0.6 GB to fetch: 1 to 3 minutes the first time'
    else size='about 250 packages, 5 GB to fetch: 3 to 8 minutes the first time'; fi
    make_venv
    part runtime "the runtime for the $device, $size" "requirements/$device.txt" pyproject.toml scripts/install.sh
    [ "$1" = dev ] || return 0
    part dev "the test and check tools, 0.3 GB to fetch: half a minute" requirements/dev.txt requirements/nixl.txt
}

main "$@"
