import assert from 'node:assert/strict';
import { parseConfig } from '../../src/config/load.ts';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { createPullMetrics } from '../../src/pull/metrics.ts';
import type { PullConfig } from '../../src/pull/pull-config.ts';
import type { PullOutcome, PullTicket } from '../../src/pull/pull-port.ts';
import { Pulls, type ReadBlob } from '../../src/pull/pulls.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { FakeFinder } from '../fakes/fake-finder.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { freshStandings, type Script, ScriptedSource, Traffic } from '../fakes/scripted-source.ts';

/** The product's defaults. */
const CONFIG: PullConfig = parseConfig('', 'defaults', {}).pull;

export type Blob = { readonly digest: Digest; readonly bytes: Uint8Array };

/** A blob of so many pieces, different for every seed. */
export function blobOf(pieces: number, seed = 1): Blob {
  const bytes = new Uint8Array(Math.round(pieces * PIECE_BYTES));
  for (let i = 0; i < bytes.length; i += 4093) bytes[i] = (i * 31 + seed * 7 + (i >> 13)) & 0xff;
  bytes[0] = seed;
  return { digest: digestOf(bytes), bytes };
}

/** A pull room on fakes, and a clock to drive it. */
export class PullBench implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly store = new MemoryStore({ clock: this.clock });
  readonly finder = new FakeFinder();
  readonly logger = new MemoryLogger();
  readonly register = new MemoryRegister();
  readonly traffic = new Traffic();
  /** Of all sources here, by their ids. */
  readonly standings = freshStandings(this.clock);
  readonly pulls: Pulls;
  reads = 0;

  constructor(config: Partial<PullConfig> = {}) {
    const { clock, store, finder, logger } = this;
    const metrics = createPullMetrics(this.register);
    const read: ReadBlob = (digest) => {
      this.reads++;
      return Promise.resolve(store.blobs.get(digest)?.bytes);
    };
    // Park-Miller: the same plan in every run.
    let seed = 42;
    const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
    this.pulls = new Pulls(
      { store, finder, read, clock, logger, metrics, random },
      { ...CONFIG, ...config },
    );
  }

  /** A source of the blob, known to the finder. */
  source(blob: Blob, script: Script = {}): ScriptedSource {
    const source = this.hidden(blob, script);
    this.finder.add(blob.digest, source);
    return source;
  }

  /** A source the finder does not know yet. */
  hidden(blob: Blob, script: Script = {}): ScriptedSource {
    return new ScriptedSource(this, blob, script);
  }

  join(blob: Blob, small = false): PullTicket {
    const ticket = this.tryJoin(blob, small);
    assert.ok(ticket !== undefined, 'the join is a miss');
    return ticket;
  }

  tryJoin({ digest, bytes }: Blob, small = false): PullTicket | undefined {
    return this.pulls.join({ digest, size_bytes: bytes.length, small });
  }

  /** Drives the clock until the promise is settled, at most `max_ms`; says how long it took. */
  async drive<T>(promise: Promise<T>, max_ms = 60_000): Promise<{ value: T; ms: number }> {
    const start = this.clock.now_ms();
    const state = { done: false };
    const onDone = (): void => {
      state.done = true;
    };
    promise.then(onDone, onDone);
    await this.clock.advance(0);
    while (!state.done && this.clock.now_ms() - start < max_ms) await this.clock.advance(10);
    assert.ok(state.done, `not settled after ${max_ms} ms`);
    return { value: await promise, ms: this.clock.now_ms() - start };
  }

  async outcome(ticket: PullTicket, max_ms?: number): Promise<{ value: PullOutcome; ms: number }> {
    return await this.drive(ticket.settled(new AbortController().signal), max_ms);
  }

  /** Joins, waits, releases. `prefix` = contiguous bytes given, -1 = complete. */
  async pull(blob: Blob, small = false): Promise<{ prefix: number; ms: number }> {
    const ticket = this.join(blob, small);
    const { value, ms } = await this.outcome(ticket);
    const prefix = value.kind === 'complete' ? -1 : value.staged.prefix_bytes;
    ticket.release();
    return { prefix, ms };
  }

  /** Ends the room and checks that nothing is left: no timer, no request, no staged file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.drive(this.pulls[Symbol.asyncDispose]());
    await this.clock.advance(0);
    assert.equal(this.clock.pending, 0, 'timers are left');
    assert.deepEqual(this.pulls.status(), []);
    assert.deepEqual(
      this.logger.lines.filter((l) => l.level === 'error'),
      [],
    );
  }
}
