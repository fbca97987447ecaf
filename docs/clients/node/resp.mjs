// A connection to Redis: commands out, replies in, in order. A reply that is an error rejects its own promise only.
import net from "node:net";
import tls from "node:tls";

export async function connect(text, timeoutMs = 5000) {
  const url = new URL(text);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const name = url.host || url.pathname;
  const port = Number(url.port || 6379);
  const open = {
    "redis:": () => net.connect(port, host),
    "rediss:": () => tls.connect({ host, port, servername: host }),
    "unix:": () => net.connect(url.pathname),
  }[url.protocol];
  if (!open) throw new Error(`${text} is no address of a Redis: take redis://, rediss:// or unix://`);
  const socket = open();
  const waiting = []; // of those who wait for a reply, the first one first
  let pieces = Buffer.alloc(0);
  const end = (error) => {
    socket.destroy();
    for (const { reject } of waiting.splice(0)) reject(error);
  };
  socket.setNoDelay(true);
  socket.on("error", end);
  socket.on("close", () => end(new Error(`${name} closed the connection`)));
  socket.on("data", (piece) => {
    pieces = pieces.length ? Buffer.concat([pieces, piece]) : piece;
    let at = 0;
    for (let found; (found = read(pieces, at)); at = found.next) {
      const { resolve, reject } = waiting.shift();
      found.value instanceof Error ? reject(found.value) : resolve(found.value);
    }
    pieces = pieces.subarray(at);
  });
  const call = (words, blockMs = 0) =>
    new Promise((resolve, reject) => {
      if (socket.destroyed) return reject(new Error(`${name} is not connected`));
      const slow = setTimeout(() => end(new Error(`${name} does not answer`)), timeoutMs + blockMs);
      const settled = (settle) => (value) => (clearTimeout(slow), settle(value));
      waiting.push({ resolve: settled(resolve), reject: settled(reject) });
      socket.write(write(words));
    });
  if (url.password) {
    const user = url.username ? [decodeURIComponent(url.username)] : [];
    await call(["AUTH", ...user, decodeURIComponent(url.password)]);
  }
  if (url.protocol !== "unix:" && url.pathname.length > 1) await call(["SELECT", url.pathname.slice(1)]);
  return { call, close: () => end(new Error("closed")) };
}

function write(words) {
  const parts = [Buffer.from(`*${words.length}\r\n`)];
  for (const word of words) {
    const bytes = Buffer.isBuffer(word) ? word : Buffer.from(String(word));
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n"));
  }
  return Buffer.concat(parts);
}

// One reply that begins at a place: { value, next }, or undefined as long as it is not whole.
function read(from, at) {
  const stop = from.indexOf("\r\n", at);
  if (stop < 0) return undefined;
  const [kind, text, body] = [String.fromCharCode(from[at]), from.toString("utf8", at + 1, stop), stop + 2];
  if (kind === "+") return { value: text, next: body };
  if (kind === "-") return { value: new Error(text), next: body };
  if (kind === ":") return { value: Number(text), next: body };
  const length = Number(text);
  if (length < 0) return { value: null, next: body };
  if (kind === "$") {
    if (from.length < body + length + 2) return undefined;
    return { value: from.subarray(body, body + length), next: body + length + 2 };
  }
  const value = [];
  let next = body;
  while (value.length < length) {
    const part = read(from, next);
    if (!part) return undefined;
    value.push(part.value);
    next = part.next;
  }
  return { value, next };
}
