#!/bin/sh
# Runs a worker node of a cluster in the foreground: gateways and models run on it. It joins a head that runs, and
# waits for one that does not yet.
#
#   worker.sh --head 10.0.0.1:6379 --ip 10.0.0.2              # on the machine 10.0.0.2
#   worker.sh --head 10.0.0.1:6379 --ip 10.0.0.2 --restart    # joins again by itself after it was cut off
#
# --head HOST:PORT      where head.sh runs (required)
# --ip ADDRESS          where the other nodes reach this one (required)
# --gateways N          gateway processes on this node (1)
# --resource NAME=N     something of your own that replicas can ask for; may be repeated
# --cpus N, --gpus N    what models may take here; by default all there is
# --head-timeout S      go on for so long without a head, so that it can be replaced (600)
# --token-file FILE     Ray's token, the same as on the head (~/.ray/auth_token)
# --venv DIR            where Comptoir is installed (.venv of this checkout)
# --temp-dir DIR        Ray's logs and sockets (/tmp/ray); at most 40 characters
# --restart             start Ray again when it ends; systemd's Restart=always does the same
# --dry-run             print the command instead of running it
# -- OPTIONS            further options of `ray start`
#
# A node that was cut off for longer than the head's --node-timeout is dead for the others: Ray ends on it when it is
# back, and has to be started again. Something must do that: --restart, or systemd/comptoir-worker.service.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
name=worker.sh
. "$here/common.sh"

head='' ip='' gateways=1 resources='' cpus='' gpus='' head_timeout=600
token_file='' venv='' temp_dir='' restart=no dry_run=no
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage ;;
        --restart) restart=yes; shift; continue ;;
        --dry-run) dry_run=yes; shift; continue ;;
        --) shift; break ;;
        --head | --ip | --gateways | --resource | --cpus | --gpus | --head-timeout | --token-file | --venv | \
            --temp-dir) need_value "$@" ;;
        *) fail "$1: unknown option; $name --help lists them" ;;
    esac
    case $1 in
        --head) head=$2 ;;
        --ip) ip=$2 ;;
        --gateways) need_number "$@"; gateways=$2 ;;
        --resource) need_resource "$2"; resources="$resources, \"${2%%=*}\": ${2#*=}" ;;
        --cpus) need_number "$@"; cpus=$2 ;;
        --gpus) need_number "$@"; gpus=$2 ;;
        --head-timeout) need_number "$@"; head_timeout=$2 ;;
        --token-file) token_file=$2 ;;
        --venv) venv=$2 ;;
        --temp-dir) temp_dir=$2 ;;
    esac
    shift 2
done

case $head in ?*:?*) ;; *) fail "--head: is required, as HOST:PORT: where head.sh runs" ;; esac
need_own_address --ip "$ip"
prepare
export RAY_gcs_rpc_server_reconnect_timeout_s="$head_timeout"
options=$(node_options)
newline='
'
IFS=$newline
set -f
# shellcheck disable=SC2086
run ray start --address="$head" $options "$@"
