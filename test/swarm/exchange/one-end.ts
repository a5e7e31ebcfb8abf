// One end of the piece exchange at a time, on streams in memory: the test is the other end.
import assert from 'node:assert/strict';
import type { DaemonError } from '../../../src/base/errors.ts';
import type { Digest } from '../../../src/oci/digest.ts';
import { PieceBuffers } from '../../../src/swarm/exchange/piece-buffers.ts';
import { PieceClient } from '../../../src/swarm/exchange/piece-client.ts';
import { decodeResponse, encodeRequest } from '../../../src/swarm/exchange/piece-protocol.ts';
import { PieceServer } from '../../../src/swarm/exchange/piece-server.ts';
import { QuickAnswers } from '../../../src/swarm/exchange/quick-answers.ts';
import { UploadRate } from '../../../src/swarm/exchange/upload-rate.ts';
import { UploadSlots } from '../../../src/swarm/exchange/upload-slots.ts';
import { createSwarmMetrics } from '../../../src/swarm/metrics.ts';
import { FakeClock, settle } from '../../fakes/fake-clock.ts';
import { MemoryLogger } from '../../fakes/memory-logger.ts';
import { MemoryRegister } from '../../fakes/memory-register.ts';
import { MemoryStream } from '../memory-stream.ts';
import { MemoryBlobs } from '../swarm-host.ts';

/** More than a quick answer has. */
export const LARGE = 100_000;

/** A client whose streams are made as it opens them; `near` and `far` are the ends of the first. */
export function client() {
  const pairs: [MemoryStream, MemoryStream][] = [MemoryStream.pair()];
  const [[near, far]] = pairs as [[MemoryStream, MemoryStream]];
  const errors: DaemonError[] = [];
  let opened = 0;
  const pieces = new PieceClient({
    clock: new FakeClock(),
    buffers: new PieceBuffers(),
    open: () => {
      pairs[opened] ??= MemoryStream.pair();
      return Promise.resolve(pairs[opened++]![0].stream);
    },
    events: {
      onReceived: () => undefined,
      onBytes: () => undefined,
      onProtocolError: (error) => void errors.push(error),
    },
  });
  return { pieces, near, far, pairs, errors, opened: () => opened };
}

/** A server and a stream to it; `join` makes streams of further peers. */
export function server(
  config: { slots?: number; bytes_per_second?: number; blobs?: MemoryBlobs } = {},
) {
  const clock = new FakeClock();
  const blobs = config.blobs ?? new MemoryBlobs();
  const slots = new UploadSlots({ clock }, { slots: config.slots ?? 2, max_waiting: 2 });
  const rate = new UploadRate({ clock }, { bytes_per_second: config.bytes_per_second ?? 0 });
  const quick = new QuickAnswers();
  const errors: DaemonError[] = [];
  const register = new MemoryRegister();
  const metrics = createSwarmMetrics(register, { peers: () => 0, announced: () => 0 });
  const logger = new MemoryLogger();
  const pieces = new PieceServer({ store: blobs, slots, quick, rate, clock, metrics, logger });
  const join = (id: string): [MemoryStream, MemoryStream] => {
    const [near, far] = MemoryStream.pair();
    pieces.serve(near.stream, {
      id,
      transport: 'tcp',
      onSent: () => undefined,
      onProtocolError: (error) => void errors.push(error),
    });
    return [near, far];
  };
  const [near, far] = join('peer');
  return { clock, blobs, near, far, slots, quick, errors, register, join };
}

/** Headers of the answers that a stream sent, when every body is of another length than a header. */
export function answersOf(stream: MemoryStream) {
  return stream.sent.filter((part) => part.length === 16).map((part) => decodeResponse(part));
}

/** Fills both upload slots with pieces that are not read. */
export async function fill(all: ReturnType<typeof server>, held: Digest): Promise<void> {
  for (const id of ['one', 'two']) {
    const [near, far] = all.join(id);
    near.holds = true;
    far.send(encodeRequest({ kind: 'piece', id: 1, digest: held, index: 0, length: LARGE }));
  }
  await settle();
  assert.equal(all.slots.used, 2);
}

/** Blobs whose reads wait until the test lets them go on. */
export class SlowBlobs extends MemoryBlobs {
  readonly open = Promise.withResolvers<undefined>();

  override async readPiece(of: Digest, index: number): Promise<Uint8Array> {
    await this.open.promise;
    return super.readPiece(of, index);
  }
}
