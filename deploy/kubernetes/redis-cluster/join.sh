# Makes one cluster of the nodes HOST:PORT ..., a replica for each primary. Where there is one already, the nodes are only
# shown to each other again: after all of them moved at once, nobody else would do that.
set -eu
REDISCLI_AUTH=$(cat "${PASSWORD_FILE:-/run/predictor/cluster.password}")
export REDISCLI_AUTH
ask() { node=$1; shift; redis-cli --user usp-cluster -h "${node%:*}" -p "${node#*:}" "$@"; }

nodes=
for name in "$@"; do
  until address=$(getent ahostsv4 "${name%:*}" | cut -d ' ' -f 1 | head -n 1) && [ -n "$address" ] &&
    [ "$(ask "$address:${name#*:}" PING)" = PONG ]; do
    sleep 1
  done
  nodes="$nodes $address:${name#*:}"
done
first=$(echo $nodes | cut -d ' ' -f 1)
if ask "$first" CLUSTER INFO | grep -q cluster_slots_assigned:0; then
  redis-cli --user usp-cluster --cluster create $nodes --cluster-replicas 1 --cluster-yes
else
  for node in $nodes; do ask "$first" CLUSTER MEET "${node%:*}" "${node#*:}"; done
fi
until ask "$first" CLUSTER INFO | grep -q cluster_state:ok; do sleep 1; done
