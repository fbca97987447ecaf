# Starts a node: the first is the primary, the others follow it. Passwords go into a file in memory, not on a command line.
set -eu
{
  cat /etc/redis/redis.conf
  echo "dir /data"
  echo "aclfile /run/predictor/users.acl"
  echo "masteruser usp-replica"
  echo "masterauth $(cat /run/predictor/replica.password)"
  echo "min-replicas-to-write 1"
  echo "min-replicas-max-lag 10"
  [ "$HOSTNAME" = predictor-redis-0 ] || echo "replicaof predictor-redis-0.predictor-redis-nodes 6379"
} > /run/redis/redis.conf
exec redis-server /run/redis/redis.conf
