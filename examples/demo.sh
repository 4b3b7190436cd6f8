#!/usr/bin/env bash
# A three-node cluster on this machine, shown at work: started from YAML, its real hardware in the registry, its bus on
# the tap, a node killed and seen to leave, started again and seen to come back. Everything it does is printed first.
set -euo pipefail

dir=$(mktemp -d "${TMPDIR:-/tmp}/covey-demo.XXXXXX")
lab=("--dir" "$dir")
say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { # prints the command as it would be typed
    local word line='$'
    for word in "$@"; do [[ $word == *[!A-Za-z0-9_./=-]* ]] && line+=" '$word'" || line+=" $word"; done
    printf '%s\n' "$line"
    "$@"
}
finish() {
    covey lab down "${lab[@]}" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT

say "Three nodes, each a daemon of its own with processes, files and addresses of its own"
run covey lab up --nodes 3 --detach "${lab[@]}"
export COVEY_STATE="$dir/n1"

say "Who is there"
run covey cluster status
run covey node ls

say "The hardware of every node, found by its controllers when it joined, asked through node 2"
run covey --state "$dir/n2" resource ls Host
run covey --state "$dir/n3" resource ls FileSystem

say "Five seconds on the tap of node 1, while a value is written and watched"
covey --state "$dir/n3" registry watch /app/ --count 1 >"$dir/watched" &
watcher=$!
( sleep 2; covey --state "$dir/n2" registry put /app/greeting hello >/dev/null ) &
writer=$!
run covey tap 'topic =~ "registry.[!m]*"' --for 5s
wait "$writer" "$watcher"
echo "what the watch on node 3 saw:"
cat "$dir/watched"
run covey registry get /app/greeting

say "Node 3 is killed: all its processes vanish, and the others see it leave"
run covey lab kill 3 "${lab[@]}"
run covey cluster wait-for members=2
run covey node ls

say "It is started again, joins by itself, and its resources are found anew"
run covey lab start 3 "${lab[@]}"
run covey cluster wait-for members=3
run covey cluster wait-for online
run covey node ls
run covey --state "$dir/n3" node boot-log
run covey resource ls Host --node 3

say "Down"
run covey lab down "${lab[@]}"
