// A peer that lies: the product's own swarm room over a store that hands out wrong bytes.
// `liar.ts piece|list|gap --config FILE`; `piece` sends honest piece lists and wrong bytes, `list` sends lists that agree with
// its wrong bytes, `gap` tells the truth and never answers for piece 3. Writes the file `up` beside its configuration once it listens; ends on SIGTERM.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../../src/base/clock.ts';
import { DaemonError } from '../../src/base/errors.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { createLogger } from '../../src/ops/logger.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { PIECE_BYTES, pieceCount, pieceLength, pieceOffset } from '../../src/piece/layout.ts';
import type { PieceList } from '../../src/piece/piece-list.ts';
import type { SharedBlobs } from '../../src/store/blob-store.ts';
import { swarmConfig } from '../../src/daemon-swarm-config.ts';
import { Swarm } from '../../src/swarm/swarm.ts';

const LIES = ['piece', 'list', 'gap'] as const;
/** What is false: the bytes alone, or the piece lists as well; or it is that all pieces are to be had. */
type Lie = (typeof LIES)[number];
const GAP_PIECE = 3;

/** The blobs of a directory, every piece of them with one bit turned, or one of them never given. */
class LyingBlobs implements SharedBlobs {
  readonly #directory: string;
  readonly #lie: Lie;

  constructor(directory: string, lie: Lie) {
    this.#directory = directory;
    this.#lie = lie;
  }

  shared(): Iterable<Digest> {
    return readdirSync(this.#directory).map((name) => `sha256:${name}` as Digest);
  }

  onShared(): () => void {
    return () => undefined;
  }

  async pieceList(digest: Digest): Promise<PieceList> {
    const bytes = await readFile(this.#file(digest));
    const digests: Buffer[] = [];
    for (let i = 0; i < pieceCount(bytes.length); i++) {
      const piece = Buffer.from(bytes.subarray(pieceOffset(i), pieceOffset(i) + PIECE_BYTES));
      if (this.#lie === 'list') turnBit(piece);
      digests.push(createHash('sha256').update(piece).digest());
    }
    return { digest, size_bytes: bytes.length, digests: Buffer.concat(digests) };
  }

  async readPiece(digest: Digest, index: number): Promise<Uint8Array> {
    if (this.#lie === 'gap' && index === GAP_PIECE) await new Promise(() => undefined);
    await using file = await open(this.#file(digest));
    const { size } = await file.stat();
    const length = pieceLength(size, index);
    if (length === 0) throw new DaemonError('not_found', `no piece ${index}`);
    const piece = Buffer.alloc(length);
    await file.read(piece, 0, length, pieceOffset(index));
    if (this.#lie !== 'gap') turnBit(piece);
    return piece;
  }

  #file(digest: Digest): string {
    return join(this.#directory, digest.slice('sha256:'.length));
  }
}

function turnBit(bytes: Uint8Array): void {
  const middle = bytes.length >> 1;
  bytes[middle] = bytes[middle]! ^ 1;
}

const { values, positionals } = parseArgs({
  options: { config: { type: 'string' } },
  allowPositionals: true,
});
const lie = LIES.find((one) => one === positionals[0]);
const { config: file } = values;
if (lie === undefined || file === undefined)
  throw new Error(`usage: liar.ts ${LIES.join('|')} --config FILE`);
const config = loadConfig(file, {});
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const swarm = await Swarm.start(
  {
    store: new LyingBlobs(join(config.store.content_directory, 'blobs/sha256'), lie),
    clock: systemClock,
    logger: createLogger({ level: 'debug' }),
    register: new PrometheusRegister(),
  },
  swarmConfig(config, { host_name: '', software_version: '' }),
  { signal: stop.signal },
);
await writeFile(join(dirname(file), 'up'), swarm.id);
if (!stop.signal.aborted) await once(stop.signal, 'abort');
await swarm[Symbol.asyncDispose]();
