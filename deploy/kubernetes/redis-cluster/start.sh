# Starts a node of the cluster. It keeps its place in /data/nodes.conf, and tells the others its present address.
set -eu
{
  cat /etc/redis/redis.conf
  echo "dir /data"
  echo "aclfile /run/predictor/users.acl"
  echo "masteruser usp-replica"
  echo "masterauth $(cat /run/predictor/replica.password)"
  echo "min-replicas-to-write 1"
  echo "min-replicas-max-lag 10"
  echo "cluster-enabled yes"
  echo "cluster-config-file /data/nodes.conf"
  echo "cluster-node-timeout 5000"
  echo "cluster-require-full-coverage no"
  echo "cluster-announce-ip $POD_IP"
} > /run/redis/redis.conf
exec redis-server /run/redis/redis.conf
