// Sends ticks, each once and in order: node producer.mjs URL [NAMESPACE] [NAME] < ticks.csv   (asset,timestamp_ns,value)
//
// Ticks are numbered per partition from 1. The server keeps the highest number it took (ingest.lua), so a batch whose
// reply was lost can be sent again, and one that a failover lost is asked for again. With FRAMES=1 in the environment
// the ticks of a batch travel as frames: many as one entry of the log.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { connect } from "./resp.mjs";
import { keyOf, partitionOf, pause, readMeta } from "./fleet.mjs";

const [url = "redis://127.0.0.1:6379", namespace = "usp", name = `node-${process.pid}-${Date.now()}`] =
  process.argv.slice(2);
const SCRIPT = readFileSync(new URL("./ingest.lua", import.meta.url), "utf8");
const SHA = createHash("sha1").update(SCRIPT).digest("hex");
const FRAMES = process.env.FRAMES === "1", FRAME_MAX = 256;
const BATCH_MAX = 512, WAITING_MAX = 8192, KEPT_MAX = 16384, BACKLOG_MAX = 100000, PATIENCE_MS = 30000;

let redis = await connect(url);
const { partitions, generation, opening } = await readMeta(redis, namespace);
const [seconds, microseconds] = await redis.call(["TIME"]);
const session = BigInt(seconds) * 1000000n + BigInt(microseconds);
const outboxes = Array.from({ length: partitions }, () => ({ taken: 0, kept: [], waiting: [], resume: 0 }));

async function sendBatch(partition) {
  const outbox = outboxes[partition];
  const keys = ["ticks", "producers", "control", "frames"].map((each) => keyOf(namespace, partition, each, generation));
  const told = [name, session, outbox.taken + 1, outbox.resume, BACKLOG_MAX, 256, 86400000, opening];
  const batch = outbox.waiting.slice(0, outbox.fits || BATCH_MAX);
  const ticks = (FRAMES ? inFrames(batch) : batch).flat();
  const [code, last, why] = await redis.call(["EVALSHA", SHA, 4, ...keys, ...told, ...ticks]);
  if (code.toString() === "GAP") return rewind(outbox, last);
  if (code.toString() === "STALE") throw new Refused(`a newer producer named '${name}' sends here`);
  if (code.toString() === "MOVED") {
    const first = last + 1, left = outbox.waiting.length + outbox.taken - last; // more than wait, if some were lost
    throw new Refused(`partition ${partition} is closed, the fleet gets other partitions: its ticks from number ${first}` +
      ` on (${left}) were not taken; send them when generation or openings in ${namespace}:meta have changed`);
  }
  if (code.toString() === "SEALED") throw new Refused(`partition ${partition} is sealed: ${why}`);
  const taken = outbox.waiting.splice(0, last - outbox.taken); // OK, or FULL: taken up to `last`
  outbox.kept = outbox.kept.concat(taken).slice(-KEPT_MAX);
  const fits = code.toString() === "FULL" ? Number(why) : 0; // of a frame for which there was no room
  Object.assign(outbox, { taken: last, resume: 0, fits });
  return taken.length;
}

// The four words of each frame: an empty asset, how many ticks, their bytes, no request id. One tick goes alone.
function inFrames(batch) {
  const frames = [];
  for (let at = 0; at < batch.length; at += FRAME_MAX) {
    const ticks = batch.slice(at, at + FRAME_MAX);
    frames.push(ticks.length > 1 ? ["", ticks.length, frameOf(ticks), ""] : ticks[0]);
  }
  return frames;
}

function frameOf(ticks) {
  const numbers = Buffer.alloc(1 + 16 * ticks.length, 1); // the first byte is the version
  ticks.forEach(([asset, value, time], at) => {
    if (!/^-?\d{1,18}$|^-?[1-8]\d{18}$/.test(time)) throw new Refused(`${asset}: no frame can hold the time '${time}'`);
    numbers.writeBigInt64LE(BigInt(time), 1 + 8 * at);
    numbers.writeDoubleLE(Number(value), 1 + 8 * (ticks.length + at));
  });
  const assets = ticks.flatMap(([asset], at) => (at ? [Buffer.of(255), Buffer.from(asset)] : [Buffer.from(asset)]));
  return Buffer.concat([numbers, ...assets]);
}

// The server went back to `last` in a failover: what is still kept goes again.
function rewind(outbox, last) {
  const missing = outbox.taken - last;
  const again = missing ? outbox.kept.splice(-missing) : [];
  if (again.length < missing) console.error(`${missing - again.length} ticks were lost by the server and are not kept`);
  outbox.waiting.unshift(...again);
  Object.assign(outbox, { taken: outbox.taken - again.length, resume: again.length < missing ? 1 : 0 });
  return 1;
}

class Refused extends Error {}

async function flush() {
  for (let moved = Date.now(); outboxes.some((outbox) => outbox.waiting.length); ) {
    const due = [...outboxes.keys()].filter((partition) => outboxes[partition].waiting.length);
    const sent = await Promise.allSettled(due.map(sendBatch));
    if (sent.some((each) => each.value > 0)) moved = Date.now();
    const failed = sent.find((each) => each.status === "rejected")?.reason;
    if (failed instanceof Refused) throw failed;
    if (Date.now() - moved > PATIENCE_MS) throw failed ?? new Error("the partitions are full: start workers");
    if (failed) await recover(failed);
    else if (!sent.some((each) => each.value > 0)) await pause(20);
  }
}

async function recover(failure) {
  if (failure.message.startsWith("NOSCRIPT")) return redis.call(["SCRIPT", "LOAD", SCRIPT]).catch(() => pause(50));
  if (/^(NOPERM|NOAUTH|WRONGPASS|WRONGTYPE)/.test(failure.message)) throw failure;
  redis.close();
  await pause(50);
  redis = await connect(url).catch(() => redis);
}

let count = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const [asset, time, value] = line.split(",");
  if (asset === "asset" || !line) continue;
  outboxes[partitionOf(asset, partitions)].waiting.push([asset, value, time, ""]); // the last one: a request id
  if (++count % WAITING_MAX === 0) await flush();
}
await flush();
redis.close();
console.log(JSON.stringify({ sent: count, partitions, name }));
