// Prints predictions, one JSON object a line: node reader.mjs URL [NAMESPACE] [FROM] [IDLE_SECONDS]
//
// FROM is 0 (all that is kept), $ (what comes from now on) or a tick id. Integers of 64 bits are printed as text.
import { connect } from "./resp.mjs";
import { keyOf, pause, readMeta } from "./fleet.mjs";
import { decode } from "./msgpack.mjs";

const [url = "redis://127.0.0.1:6379", namespace = "usp", from = "0", idle = "Infinity"] = process.argv.slice(2);
const BLOCK_MS = 500;

let redis = await connect(url);
const { partitions, generation, fields } = await readMeta(redis, namespace);
const keys = Array.from({ length: partitions }, (_, partition) => keyOf(namespace, partition, "predictions", generation));
let left = false; // the fleet has other partitions now: what these still hold is all that they ever will
const cursors = await Promise.all(keys.map((key) => (from === "$" ? lastId(key) : from)));

async function lastId(key) {
  const info = await redis.call(["XINFO", "STREAM", key]).catch(() => []);
  const at = info.findIndex((word) => word?.toString() === "last-generated-id");
  return at < 0 ? "0-0" : info[at + 1].toString();
}

function print(partition, id, words) {
  const entry = {};
  for (let i = 0; i < words.length; i += 2) entry[words[i]] = words[i + 1];
  const { telemetry, ...result } = decode(entry.p);
  const named = Object.fromEntries(fields.telemetry.map((name, place) => [name, telemetry[place]]));
  const head = { partition, tick_id: id, asset: entry.a.toString(), request_id: entry.r?.toString() };
  const line = { ...head, ...result, telemetry: named, payload: entry.p.toString("hex") };
  console.log(JSON.stringify(line, (_, value) => (typeof value === "bigint" ? value.toString() : value)));
}

for (let seen = Date.now(); Date.now() - seen < Number(idle) * 1000; ) {
  try {
    const request = ["XREAD", "COUNT", 128, "BLOCK", BLOCK_MS, "STREAMS", ...keys, ...cursors];
    const found = (await redis.call(request, BLOCK_MS)) ?? [];
    if (!found.length && left) break;
    if (!found.length) left = (await readMeta(redis, namespace)).generation > generation;
    for (const [key, entries] of found) {
      const partition = keys.indexOf(key.toString());
      for (const [id, words] of entries) print(partition, (cursors[partition] = id.toString()), words);
      seen = Date.now();
    }
  } catch (error) {
    console.error(`${error.message}; trying again`); // it goes on after its cursors
    redis.close();
    await pause(500);
    redis = await connect(url).catch(() => redis);
  }
}
redis.close();
if (left) throw new Error("these partitions are read to their ends, the fleet has others now: start again from 0");
