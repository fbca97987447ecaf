// Decodes the MessagePack that predictions are made of: maps, arrays, text, bytes, integers, floats, nil and booleans.

export function decode(bytes) {
  let at = 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const step = (size) => (at += size) - size;
  const text = (length) => bytes.toString("utf8", step(length), at);
  const array = (length) => Array.from({ length }, value);
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [value(), value()]));
  const wide = {
    0xc0: () => null, 0xc2: () => false, 0xc3: () => true,
    0xc4: () => bytes.toString("hex", step(view.getUint8(step(1))), at),
    0xca: () => view.getFloat32(step(4)), 0xcb: () => view.getFloat64(step(8)),
    0xcc: () => view.getUint8(step(1)), 0xcd: () => view.getUint16(step(2)),
    0xce: () => view.getUint32(step(4)), 0xcf: () => view.getBigUint64(step(8)),
    0xd0: () => view.getInt8(step(1)), 0xd1: () => view.getInt16(step(2)),
    0xd2: () => view.getInt32(step(4)), 0xd3: () => view.getBigInt64(step(8)),
    0xd9: () => text(view.getUint8(step(1))), 0xdc: () => array(view.getUint16(step(2))),
    0xde: () => map(view.getUint16(step(2))),
  };
  function value() {
    const head = view.getUint8(step(1));
    if (head < 0x80) return head;
    if (head < 0x90) return map(head & 15);
    if (head < 0xa0) return array(head & 15);
    if (head < 0xc0) return text(head & 31);
    if (head >= 0xe0) return head - 256;
    if (!wide[head]) throw new Error(`MessagePack of type 0x${head.toString(16)} is not expected here`);
    return wide[head]();
  }
  return value();
}
