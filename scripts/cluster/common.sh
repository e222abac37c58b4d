# What head.sh, worker.sh and drain.sh share: environment, ports, and starting Ray again. Sourced, not run.
# shellcheck shell=sh

# Fixed, so that a firewall can know them (docs/bare-metal.md has the list).
NODE_MANAGER_PORT=6380
OBJECT_MANAGER_PORT=6381
RUNTIME_ENV_PORT=6382
AGENT_GRPC_PORT=6383
AGENT_HTTP_PORT=6384
METRICS_PORT=8080
# shellcheck disable=SC2034
CLIENT_PORT=10001
FIRST_WORKER_PORT=10002
LAST_WORKER_PORT=19999

# Ray has this long to end its processes before they are killed.
STOP_S=45
RESTART_AFTER_S=5

say() { printf '%s\n' "$name: $*" >&2; }
fail() { say "$*"; exit 2; }

# The comment at the top of a script is its help.
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit "${1:-0}"; }

need_value() { [ $# -gt 1 ] || fail "$1: needs a value; $name --help shows an example"; }

need_number() {
    case $2 in '' | *[!0-9]*) fail "$1: '$2' is not a whole number" ;; esac
}

need_resource() {
    case $1 in
        *[!A-Za-z0-9_=]* | *=*=* | =* | *=) ;;
        *=*[!0-9]*) ;;
        *=*) return ;;
    esac
    fail "--resource: '$1' is not NAME=NUMBER, as in large=2"
}

need_own_address() {
    [ -n "$2" ] || fail "$1: is required: the address at which the other nodes reach this one"
    # Ray would start all the same and be found by nobody.
    ip -o address show 2>/dev/null | awk -v own="$2/" 'index($4, own) == 1 { found = 1 }
        END { exit !found }' ||
        fail "$1: $2 is no address of this machine; 'ip -brief address' shows those that it has"
}

# Everything that has to be in the environment of every process before Ray starts.
prepare() {
    bin=${venv:-$here/../../.venv}/bin
    [ -x "$bin/comptoir" ] ||
        fail "there is no $bin/comptoir: run 'make install' in the checkout, or name it with --venv"
    eval "$("$bin/comptoir" env)"
    export PATH="$bin:$PATH"
    [ -n "$token_file" ] || token_file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
    [ -s "$token_file" ] || fail "there is no token in $token_file: run" \
        "'ray get-auth-token --generate' on the head and copy ~/.ray/auth_token to every node"
    if [ -n "$(find "$token_file" -perm /077)" ]; then
        fail "others can read $token_file: chmod 600 $token_file"
    fi
    case $token_file in /*) ;; *) token_file=$PWD/$token_file ;; esac
    export RAY_AUTH_TOKEN_PATH="$token_file"
    # What Serve starts looks for modules where Ray was started, before everywhere else.
    if { [ -e serving/__init__.py ] || [ -e serving.py ]; } && ! [ serving -ef "$here/../../serving" ]; then
        fail "the 'serving' in this folder would be run instead of Comptoir: start from another folder"
    fi
    # Ray's processes would ask a proxy for each other; the other nodes' network has to stand there as well.
    if [ -n "${http_proxy:-}${HTTP_PROXY:-}${https_proxy:-}${HTTPS_PROXY:-}${grpc_proxy:-}" ]; then
        export NO_PROXY="${no_proxy:-${NO_PROXY:-}},localhost,127.0.0.1,::1${ip:+,$ip}"
        NO_PROXY=${NO_PROXY#,} && export no_proxy="$NO_PROXY"
        say "a proxy is set: NO_PROXY ($NO_PROXY) must hold the network of all nodes"
    fi
    # gRPC's user timeout (TCP_USER_TIMEOUT): after a cut, Ray connects anew instead of waiting for retransmissions
    # that have become rare.
    export RAY_grpc_client_keepalive_timeout_ms=10000
    retries=$(cat /proc/sys/net/ipv4/tcp_retries2 2>/dev/null || echo 0)
    [ "$retries" -le 5 ] || say "net.ipv4.tcp_retries2 is $retries: connections to a machine that vanished" \
        "may be held for a quarter of an hour; 'sysctl -w net.ipv4.tcp_retries2=5' makes it 13 seconds"
}

# What every node says to `ray start`.
node_options() {
    set -- --node-ip-address="$ip" --resources="{\"comptoir_gateway\": $gateways$resources}" \
        --node-manager-port="$NODE_MANAGER_PORT" --object-manager-port="$OBJECT_MANAGER_PORT" \
        --runtime-env-agent-port="$RUNTIME_ENV_PORT" --metrics-export-port="$METRICS_PORT" \
        --dashboard-agent-grpc-port="$AGENT_GRPC_PORT" \
        --dashboard-agent-listen-port="$AGENT_HTTP_PORT" \
        --min-worker-port="$FIRST_WORKER_PORT" --max-worker-port="$LAST_WORKER_PORT" \
        --disable-usage-stats --block
    [ -z "$cpus" ] || set -- "$@" --num-cpus="$cpus"
    [ -z "$gpus" ] || set -- "$@" --num-gpus="$gpus"
    [ -z "$temp_dir" ] || set -- "$@" --temp-dir="$temp_dir"
    # One a line: no option above holds a line break.
    printf '%s\n' "$@"
}

# Run a command until it ends; with --restart, again and again.
run() {
    if [ "$dry_run" = yes ]; then printf '%s\n' "$@"; exit 0; fi
    [ "$restart" = yes ] || exec "$@"
    child=
    trap 'stop' TERM INT
    while :; do
        "$@" &
        child=$!
        code=0
        wait "$child" || code=$?
        say "Ray ended with $code; it starts again in $RESTART_AFTER_S s"
        sleep "$RESTART_AFTER_S" &
        child=$!
        wait "$child" || :
    done
}

stop() {
    trap '' TERM INT
    kill -TERM "$child" 2>/dev/null || :
    waited=0
    while kill -0 "$child" 2>/dev/null && [ "$waited" -lt "$STOP_S" ]; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -KILL "$child" 2>/dev/null || :
    exit 0
}
