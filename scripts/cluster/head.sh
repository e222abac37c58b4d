#!/bin/sh
# Runs the head node of a cluster in the foreground: Ray's state (GCS), its dashboard, Serve's controller; and
# gateways and models, if this node is to have some. Start it before the workers.
#
#   head.sh --ip 10.0.0.1                           # on the machine 10.0.0.1
#   head.sh --ip 10.0.0.1 --gateways 0 --cpus 0     # no gateway and no model on the head
#   head.sh --ip 10.0.0.1 --redis 10.0.0.9:6379     # its state outlives it
#
# --ip ADDRESS          where the other nodes reach this one (required)
# --port PORT           of Ray's state (6379)
# --gateways N          gateway processes on this node (1)
# --resource NAME=N     something of your own that replicas can ask for; may be repeated
# --cpus N, --gpus N    what models may take here; by default all there is
# --node-timeout S      a node that has not answered for so long counts as dead (20)
# --redis HOST:PORT     keep the state there; its password is RAY_REDIS_PASSWORD in the environment, and can be seen
#                       in this machine's list of processes
# --cluster-name NAME   keeps several clusters in one Redis apart (comptoir)
# --token-file FILE     Ray's token (~/.ray/auth_token)
# --venv DIR            where Comptoir is installed (.venv of this checkout)
# --temp-dir DIR        Ray's logs and sockets (/tmp/ray); at most 40 characters
# --restart             start Ray again when it ends; systemd's Restart=always does the same
# --dry-run             print the command instead of running it
# -- OPTIONS            further options of `ray start`
#
# Then, on this machine: serve deploy deployments/two-nodes.yaml. docs/bare-metal.md tells the rest.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
name=head.sh
. "$here/common.sh"

ip='' port=6379 gateways=1 resources='' cpus='' gpus='' node_timeout=20 redis='' cluster=comptoir
token_file='' venv='' temp_dir='' restart=no dry_run=no
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage ;;
        --restart) restart=yes; shift; continue ;;
        --dry-run) dry_run=yes; shift; continue ;;
        --) shift; break ;;
        --ip | --port | --gateways | --resource | --cpus | --gpus | --node-timeout | --redis | --cluster-name | \
            --token-file | --venv | --temp-dir) need_value "$@" ;;
        *) fail "$1: unknown option; $name --help lists them" ;;
    esac
    case $1 in
        --ip) ip=$2 ;;
        --port) need_number "$@"; port=$2 ;;
        --gateways) need_number "$@"; gateways=$2 ;;
        --resource) need_resource "$2"; resources="$resources, \"${2%%=*}\": ${2#*=}" ;;
        --cpus) need_number "$@"; cpus=$2 ;;
        --gpus) need_number "$@"; gpus=$2 ;;
        --node-timeout) need_number "$@"; node_timeout=$2 ;;
        --redis) redis=$2 ;;
        --cluster-name) cluster=$2 ;;
        --token-file) token_file=$2 ;;
        --venv) venv=$2 ;;
        --temp-dir) temp_dir=$2 ;;
    esac
    shift 2
done

need_own_address --ip "$ip"
[ "$node_timeout" -ge 5 ] || fail "--node-timeout: $node_timeout s is too short: a busy node would be taken for dead"
prepare
# Dead after five checks in a row; one takes as long as it may, then there is a pause.
export RAY_health_check_period_ms=$((node_timeout * 100)) RAY_health_check_timeout_ms=$((node_timeout * 100))
export RAY_health_check_failure_threshold=5
if [ -n "$redis" ]; then
    export RAY_REDIS_ADDRESS="$redis" RAY_external_storage_namespace="$cluster"
    # Ray takes it from its command line only.
    set -- ${RAY_REDIS_PASSWORD:+--redis-password="$RAY_REDIS_PASSWORD"} "$@"
fi
# Ray's dashboard asks the metadata services of three clouds where it is, with statistics off too, unless this
# file says so.
bootstrap=$HOME/ray_bootstrap_config.yaml
if [ "$dry_run" = no ] && [ ! -e "$bootstrap" ]; then
    echo '{}' > "$bootstrap" || say "$bootstrap cannot be written: Ray will look for a cloud's metadata service"
fi
options=$(node_options)
newline='
'
IFS=$newline
set -f
# The dashboard is for this machine only. Ray Client (10001) cannot be switched off; it asks for the token.
# shellcheck disable=SC2086
run ray start --head --port="$port" --ray-client-server-port="$CLIENT_PORT" --dashboard-host=127.0.0.1 $options "$@"
