/** Below this, copying parts together is cheaper than a native call for each. */
const JOIN_BYTES = 64 * 1024;

/**
 * The parts as slices for one native write each: parts above `mostBytes` are divided, neighbours that together stay
 * within 64 KiB are joined. Only joined parts are copied; the others are views of the caller's bytes.
 */
export function* writeSlices(
  parts: Iterable<Uint8Array>,
  mostBytes: number,
): Generator<Uint8Array> {
  const joinLimit = Math.min(JOIN_BYTES, mostBytes);
  let small: Uint8Array[] = [];
  let held = 0;
  for (const part of parts) {
    if (held + part.byteLength > joinLimit && held > 0) {
      yield join(small, held);
      small = [];
      held = 0;
    }
    if (part.byteLength <= joinLimit) {
      small.push(part);
      held += part.byteLength;
      continue;
    }
    for (let at = 0; at < part.byteLength; at += mostBytes) {
      yield part.subarray(at, Math.min(at + mostBytes, part.byteLength));
    }
  }
  if (held > 0) yield join(small, held);
}

function join(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return only;
  return Buffer.concat(parts, bytes);
}
