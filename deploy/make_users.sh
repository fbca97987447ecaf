#!/bin/sh
# Makes a password for every role in deploy/acl, and the files that carry them:
#
#   sh deploy/make_users.sh DIRECTORY HOST[:PORT]
#
#   users.acl                    for Redis (aclfile), the rights from deploy/acl and the passwords as hashes
#   worker.toml, producer.toml,  for `predictor --config FILE` or USP_CONFIG: the URL of that role
#   reader.toml, operator.toml
#   monitor.json                 for redis_exporter (REDIS_EXPORTER_PASSWORD_FILE)
#   replica.password             for a replica (masterauth), and for who only wants to ask PING
#   cluster.password             for who makes a cluster of the nodes
#
# Files that are there are left alone, so it may run at every start.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 DIRECTORY HOST[:PORT]" >&2; exit 2; }
directory=$1 host=$2 rights=$(dirname "$0")/acl
umask 027
mkdir -p "$directory"
[ ! -e "$directory/users.acl" ] || exit 0

password() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
user() { echo "$(cat "$rights/$1.acl") #$(printf %s "$2" | sha256sum | cut -d ' ' -f 1)" >> "$directory/users.new"; }

cat "$rights/default.acl" > "$directory/users.new"
for role in worker producer-redis7 reader operator; do
  secret=$(password) name=${role%-redis7}
  user "$role" "$secret"
  printf '[redis]\nurl = "redis://usp-%s:%s@%s"\n' "$name" "$secret" "$host" > "$directory/$name.toml"
done
secret=$(password)
user monitor "$secret"
{ # its older versions look a password up by address, the newer ones by user and address
  printf '{"redis://%s": "%s", "redis://usp-monitor@%s": "%s", ' "$host" "$secret" "$host" "$secret"
  printf '"redis://localhost:6379": "%s", "redis://usp-monitor@localhost:6379": "%s"}\n' "$secret" "$secret"
} > "$directory/monitor.json"
for role in replica cluster; do
  secret=$(password)
  user "$role" "$secret"
  printf %s "$secret" > "$directory/$role.password"
done
mv "$directory/users.new" "$directory/users.acl" # last: what is whole is there
