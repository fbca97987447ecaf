// What every client must know of a fleet: how many partitions it has, where an asset belongs, and how keys are named.

export async function readMeta(redis, namespace) {
  const kept = await redis.call(["HGETALL", `${namespace}:meta`]);
  if (!kept.length) throw new Error(`there is no fleet '${namespace}' here: make it with predictor init`);
  const named = {};
  for (let i = 0; i < kept.length; i += 2) named[kept[i]] = kept[i + 1].toString();
  const generation = Number(named.generation ?? 0); // how often the number of partitions was changed
  const opening = generation ? (named.openings || "1").split(",").pop() : 0; // its number
  return { partitions: Number(named.partitions), generation, opening, fields: JSON.parse(named.fields) };
}

export const keyOf = (namespace, partition, name, generation) =>
  `${namespace}:{${generation ? `${generation}.` : ""}${partition}}:${name}`;

export const partitionOf = (asset, partitions) => crc32(Buffer.from(asset)) % partitions;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The checksum of zip and PNG; zlib.crc32 of newer Node versions is the same.
export function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return (sum ^ 0xffffffff) >>> 0;
}

// A failure that nobody takes care of is one line, not a stack.
process.on("uncaughtException", (error) => {
  console.error(error.message || error.code);
  process.exit(1);
});
