#!/bin/sh
# Creates .venv and installs the pinned packages into it: `install.sh runtime`, or `install.sh dev` for the
# test and check tools too. Does nothing when nothing has changed since it last succeeded.
#
# COMPTOIR_DEVICE=cpu|gpu   which engine to install; by default gpu where `nvidia-smi -L` finds one
# COMPTOIR_PYTHON=COMMAND   which Python to use; by default python3.11, python3.12 or python3
set -eu
cd "$(dirname "$0")/.."

# PyTorch publishes its CPU builds here and not on PyPI.
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "install: $*" >&2; }
fail() { say "$*"; exit 1; }
pip_install() {
    .venv/bin/python -m pip install --no-deps --no-input --disable-pip-version-check -qq "$@"
}

find_device() {
    case "${COMPTOIR_DEVICE:-}" in
        cpu | gpu) echo "$COMPTOIR_DEVICE" ;;
        '') if nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi ;;
        *) fail "COMPTOIR_DEVICE is '$COMPTOIR_DEVICE': use cpu or gpu, or leave it out" ;;
    esac
}

find_python() {
    for candidate in ${COMPTOIR_PYTHON:-python3.11 python3.12 python3}; do
        # Run it: a version manager leaves commands on the PATH for versions that are not active.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or later among: ${COMPTOIR_PYTHON:-python3.11 python3.12 python3};" \
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

install_cpu_torch() {
    pin=$(grep '^torch==' requirements/cpu.txt)
    if pip_install "$pin" 2>.venv/torch.log; then return; fi
    if ! grep -q 'No matching distribution found' .venv/torch.log; then
        cat .venv/torch.log >&2
        fail "pip could not install $pin (above)"
    fi
    say "pip's configured sources do not have $pin; taking it from $TORCH_CPU_INDEX"
    pip_install --index-url "$TORCH_CPU_INDEX" "$pin" ||
        fail "no $pin: neither in pip's configured sources nor at $TORCH_CPU_INDEX." \
            "Without a network, put the wheel into a folder and set PIP_FIND_LINKS to it"
}

install_runtime() {
    say "installing the runtime for the $device: about 170 packages, 2 to 5 minutes the first time"
    if [ "$device" = cpu ]; then install_cpu_torch; fi
    pip_install -r "requirements/$device.txt" || fail "pip failed (above); nothing was marked as done"
    # A leftover of an earlier version would hide the entry points of this one.
    rm -rf comptoir.egg-info
    pip_install --no-build-isolation --editable . || fail "pip could not install Comptoir itself (above)"
    # A CPU wheel satisfies the CUDA pin as well: 2.13.0+cpu counts as 2.13.0.
    built_for=$(.venv/bin/python -c 'import torch; print("gpu" if torch.version.cuda else "cpu")') ||
        fail "the installed torch cannot be imported (above)"
    [ "$built_for" = "$device" ] ||
        fail "wanted torch for the $device and pip found the one for the $built_for:" \
            "check pip's find-links and indexes, or set COMPTOIR_DEVICE=$built_for"
}

install_dev() {
    say "installing the test and check tools"
    pip_install -r requirements/dev.txt -r requirements/nixl.txt || fail "pip failed (above); nothing was marked as done"
}

# up_to_date NAME KEY: whether this part was installed from these very files.
up_to_date() { [ -e ".venv/comptoir-$1" ] && [ "$(cat ".venv/comptoir-$1")" = "$2" ]; }

main() {
    case "${1:-}" in runtime | dev) ;; *) fail "usage: install.sh runtime|dev" ;; esac
    case "$(uname -s) $(uname -m)" in
        'Linux x86_64') ;;
        *) fail "the pinned packages are for Linux on x86-64; this is $(uname -s) on $(uname -m)" ;;
    esac
    device=$(find_device)
    make_venv
    key=$(checksum "requirements/$device.txt" pyproject.toml scripts/install.sh)
    if ! up_to_date runtime "$key"; then
        rm -f .venv/comptoir-runtime
        install_runtime
        printf '%s\n' "$key" >.venv/comptoir-runtime
    fi
    [ "$1" = dev ] || return 0
    key=$(checksum requirements/dev.txt requirements/nixl.txt)
    if ! up_to_date dev "$key"; then
        rm -f .venv/comptoir-dev
        install_dev
        printf '%s\n' "$key" >.venv/comptoir-dev
    fi
}

main "$@"
