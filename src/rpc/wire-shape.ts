/** Wire types of protobuf's encoding that proto3 still uses; 3 and 4 (groups) are gone. */
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;
/** A varint of 64 bits has at most this many bytes. */
const VARINT_MAX_BYTES = 10;

/**
 * True when the bytes are whole fields from first to last. protobufjs clips a string that claims to be longer than its
 * message instead of failing, and a clipped ref or digest would be taken for another one. Looks at the outermost message only;
 * costs a few steps per field, whatever the length of its content.
 */
export function isWholeMessage(bytes: Uint8Array): boolean {
  let at = 0;
  const varint = (): number | undefined => {
    let value = 0;
    for (let i = 0; i < VARINT_MAX_BYTES; i++) {
      const byte = bytes[at];
      if (byte === undefined) return undefined;
      at += 1;
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return value;
    }
    return undefined;
  };
  while (at < bytes.length) {
    const tag = varint();
    if (tag === undefined || tag < 8) return false;
    switch (tag % 8) {
      case VARINT:
        if (varint() === undefined) return false;
        break;
      case FIXED64:
        at += 8;
        break;
      case LENGTH: {
        const length = varint();
        if (length === undefined) return false;
        at += length;
        break;
      }
      case FIXED32:
        at += 4;
        break;
      default:
        return false;
    }
    if (at > bytes.length) return false;
  }
  return true;
}
