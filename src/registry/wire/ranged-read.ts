import { DaemonError, hasCode } from '../../base/errors.ts';
import { endpointUrl } from '../places/endpoint.ts';
import { parseContentRange } from './answer-headers.ts';
import type { Served } from './registry-requests.ts';

/**
 * Most bytes that are read and dropped to reach a range, where a server ignores `Range` and sends the whole blob: two pieces. Beyond
 * that the price is too high, and who asks is told `unimplemented`.
 */
export const SKIP_MAX_BYTES = 8 * 1024 * 1024;
/** Most requests for one range: servers may answer less than was asked, and connections are cut. */
const ROUNDS_MAX = 8;

/** A part of a blob: `into.length` bytes from `offset` on. */
export type RangeWish = {
  readonly size_bytes: number;
  readonly offset: number;
  /** Filled while it comes; half filled when this fails. */
  readonly into: Uint8Array;
  readonly onProgress?: ((received_bytes: number) => void) | undefined;
};

/** How a range came. */
export type RangeRead = {
  readonly served: Served;
  /** False: the server ignored `Range` and sent the blob from its start. */
  readonly is_partial: boolean;
};

/**
 * Reads a range with as many requests as it takes: a short answer or a cut connection goes on where it ended, as long as each request brings
 * something. `open` sends one request with this `Range` header. Rejects as `open` does, and with `protocol_error` (another range than
 * asked for, another size, encoded bytes, more bytes than announced), `unimplemented` (`Range` is ignored, and the range lies too far in), or
 * `unavailable` (the body ends early and brings nothing).
 */
export async function readRange(
  wish: RangeWish,
  open: (range: string) => Promise<Served>,
): Promise<RangeRead> {
  const { into, offset } = wish;
  let got = 0;
  for (let round = 1; ; round++) {
    const served = await open(`bytes=${offset + got}-${offset + into.length - 1}`);
    await using answer = served.answer;
    const expected = expectedOf(served, wish, got);
    const before = got;
    try {
      let passed = 0;
      for await (const chunk of answer.chunks()) {
        const start = Math.min(chunk.length, Math.max(0, expected.skip_bytes - passed));
        passed += chunk.length;
        const room = expected.length - (got - before);
        const useful = chunk.subarray(start, start + room);
        into.set(useful, got);
        got += useful.length;
        if (expected.is_partial && chunk.length - start > room) throw tooLong(served);
        if (useful.length > 0) wish.onProgress?.(got);
        // The rest of a whole blob is not wanted: leaving gives the connection up.
        if (!expected.is_partial && got === into.length) break;
      }
    } catch (error) {
      if (!hasCode(error, 'unavailable') || got === before || round >= ROUNDS_MAX) throw error;
    }
    if (got === into.length) return { served, is_partial: expected.is_partial };
    if (got === before || round >= ROUNDS_MAX) {
      const server = endpointUrl(served.endpoint);
      const message = `${server}: the answer ended after ${got} of ${into.length} bytes`;
      throw new DaemonError('unavailable', message, { server, got });
    }
  }
}

type Expected = {
  readonly is_partial: boolean;
  /** Bytes of the body before those that are wanted. */
  readonly skip_bytes: number;
  /** Bytes that are wanted of this answer. */
  readonly length: number;
};

/** What an answer's body will hold, from its headers. */
function expectedOf(
  served: Served,
  { size_bytes, offset, into }: RangeWish,
  got: number,
): Expected {
  const { answer } = served;
  const server = endpointUrl(served.endpoint);
  const refuse = (why: string): DaemonError =>
    new DaemonError('protocol_error', `${server}: ${why}`, { server, status: answer.status });
  const encoding = answer.header('content-encoding') ?? 'identity';
  if (encoding !== 'identity') throw refuse('it encodes the bytes of a blob');
  const first = offset + got;
  if (answer.status === 206) {
    const range = parseContentRange(answer.header('content-range') ?? '');
    if (range?.first !== first || range.last >= offset + into.length) {
      throw refuse('it answers another range than it was asked for');
    }
    if (range.size_bytes !== undefined && range.size_bytes !== size_bytes) {
      throw refuse(`it has ${range.size_bytes} bytes under this digest, not ${size_bytes}`);
    }
    return { is_partial: true, skip_bytes: 0, length: range.last - first + 1 };
  }
  if (answer.status !== 200) throw refuse(`it answers ${answer.status} for a range`);
  const told = answer.header('content-length');
  if (told !== undefined && Number(told) !== size_bytes) {
    throw refuse(`it has ${told.slice(0, 20)} bytes under this digest, not ${size_bytes}`);
  }
  if (first > SKIP_MAX_BYTES) {
    const message = `${server}: it ignores Range, and what is wanted lies ${first} bytes in`;
    throw new DaemonError('unimplemented', message, { server, offset: first });
  }
  return { is_partial: false, skip_bytes: first, length: into.length - got };
}

function tooLong(served: Served): DaemonError {
  const server = endpointUrl(served.endpoint);
  return new DaemonError('protocol_error', `${server}: it sends more than it announces`, {
    server,
  });
}
