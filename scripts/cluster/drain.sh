#!/bin/sh
# Takes this worker node out of service: its replicas are started elsewhere where there is room, open requests
# finish, and nothing new is placed here. Then stop worker.sh (or the service).
#
#   drain.sh --head 10.0.0.1:6379                   # on the node that leaves
#   drain.sh --head 10.0.0.1:6379 --deadline 600    # long streams
#
# --head HOST:PORT     where head.sh runs (required)
# --deadline S         replicas that could not be placed elsewhere stop so long from now (180)
# --token-file FILE    Ray's token (~/.ray/auth_token)
# --venv DIR           where Comptoir is installed (.venv of this checkout)
#
# It returns when no replica is left on this machine, with 1 if some are a minute after the deadline. A node that
# has been drained takes nothing any more; to use it again, start worker.sh again.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
name=drain.sh
. "$here/common.sh"

head='' deadline=180 token_file='' venv=''
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage ;;
        --head | --deadline | --token-file | --venv) need_value "$@" ;;
        *) fail "$1: unknown option; $name --help lists them" ;;
    esac
    case $1 in
        --head) head=$2 ;;
        --deadline) need_number "$@"; deadline=$2 ;;
        --token-file) token_file=$2 ;;
        --venv) venv=$2 ;;
    esac
    shift 2
done

case $head in ?*:?*) ;; *) fail "--head: is required, as HOST:PORT: where head.sh runs" ;; esac
prepare

replicas() { pgrep -u "$(id -u)" -c '^ray::ServeRepl' || :; }

# Serve moves replicas off a node that Ray calls preempted.
RAY_ADDRESS=$head ray drain-node --address "$head" --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message "drain.sh" --deadline-remaining-seconds "$deadline"
say "draining; $(replicas) replicas are here"
waited=0
while [ "$(replicas)" -gt 0 ]; do
    if [ "$waited" -gt $((deadline + 60)) ]; then
        say "$(replicas) replicas are still here"
        exit 1
    fi
    sleep 1
    waited=$((waited + 1))
done
say "no replica is left here after $waited s; stop worker.sh now"
