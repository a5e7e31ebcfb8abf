import type { Clock } from '../base/clock.ts';
import { isAbort } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import { MAX_MANIFEST_BYTES, parseManifest } from '../oci/manifest.ts';
import type { Logger } from '../ops/logger.ts';
import { MAX_BLOB_BYTES } from '../piece/layout.ts';
import type { SourceFinder } from '../piece/source.ts';
import type { SharedBlobs, StagingArea } from '../store/blob-store.ts';
import { FetchGate } from './fetch-gate.ts';
import { HandedPrefixes } from './handed-prefixes.ts';
import type { PullMetrics } from './metrics.ts';
import { PULL_LIMITS, type PullConfig } from './pull-config.ts';
import type { PullModules } from './pull-modules.ts';
import type { PullPort, PullTicket } from './pull-port.ts';
import { type PullStatus, Session, type PullTarget } from './session.ts';
import { StallWatch } from './stall-watch.ts';
import { CompleteTicket } from './ticket.ts';
import { Verifier } from './verifier.ts';

/**
 * All bytes of a committed blob of at most `max_bytes`; `undefined` when it is larger or not here. The pull room reads manifests with it.
 */
export type ReadBlob = (
  digest: Digest,
  options: { readonly max_bytes: number; readonly signal: AbortSignal },
) => Promise<Uint8Array | undefined>;

export type PullsModules = {
  readonly store: StagingArea & Pick<SharedBlobs, 'onShared' | 'pieceList'>;
  readonly finder: SourceFinder;
  readonly read: ReadBlob;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: PullMetrics;
  readonly random?: () => number;
};

/** The pull room: one session per digest, whoever asks and from whichever namespace. Disposing it ends all of them. */
export class Pulls implements PullPort, AsyncDisposable {
  readonly #modules: PullModules;
  readonly #read: ReadBlob;
  readonly #config: PullConfig;
  readonly #sessions = new Map<Digest, Session>();
  readonly #prefixes: HandedPrefixes;
  readonly #stop = new AbortController();
  readonly #reading = new Set<Promise<void>>();

  constructor(modules: PullsModules, config: PullConfig) {
    const { store, finder, clock, logger, metrics, random = Math.random } = modules;
    const watch = new StallWatch(clock);
    const gate = new FetchGate(config);
    const verifier = new Verifier();
    this.#modules = { store, finder, clock, logger, metrics, random, gate, watch, verifier };
    this.#prefixes = new HandedPrefixes({ shared: store, logger });
    this.#read = modules.read;
    this.#config = config;
  }

  join(target: {
    readonly digest: Digest;
    readonly size_bytes: number;
    readonly small: boolean;
  }): PullTicket | undefined {
    const { digest, size_bytes, small } = target;
    const here = this.#modules.store.info(digest);
    if (here !== undefined) {
      return here.size_bytes === size_bytes ? new CompleteTicket(size_bytes) : undefined;
    }
    const running = this.#sessions.get(digest);
    if (running !== undefined) {
      return running.target.size_bytes === size_bytes ? running.open({ small }) : undefined;
    }
    const session = this.#begin({ digest, size_bytes });
    const ticket = session?.open({ small });
    session?.start({ small });
    return ticket;
  }

  manifestCommitted(digest: Digest): void {
    // Manifests come one per image; beyond the bound their layers wait until they are asked for.
    if (this.#stop.signal.aborted || this.#reading.size >= PULL_LIMITS.background_sessions_max) {
      return;
    }
    const reading = this.#prefetch(digest).finally(() => this.#reading.delete(reading));
    this.#reading.add(reading);
  }

  prefixRefuted(digest: Digest): void {
    this.#prefixes.refute(digest);
  }

  /** Fetches a blob that was lost here. False when nobody has it, it is on its way already, or a bound is reached. */
  heal(digest: Digest, size_bytes: number): boolean {
    return this.#beginUnwaited({ digest, size_bytes });
  }

  /** The finder may know more sources of the digest now; also asked for by the sessions themselves once a second. */
  sourcesChanged(digest: Digest): void {
    this.#sessions.get(digest)?.sourcesChanged();
  }

  /** All sessions, for people. */
  status(): PullStatus[] {
    return [...this.#sessions.values()].map((session) => session.status());
  }

  /** Ends every session; waiters get the prefix 0. Resolves when nothing is left running and no staged copy is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#prefixes[Symbol.dispose]();
    await Promise.all([...this.#sessions.values()].map((session) => session.close()));
    await Promise.all(this.#reading);
  }

  #begin(target: PullTarget): Session | undefined {
    const { digest, size_bytes } = target;
    const sane = Number.isSafeInteger(size_bytes) && size_bytes > 0 && size_bytes <= MAX_BLOB_BYTES;
    if (!sane || this.#stop.signal.aborted) return undefined;
    const isCached = this.#modules.store.cached(digest)?.size_bytes === size_bytes;
    if (!isCached && this.#modules.finder.find(digest, size_bytes).length === 0) {
      this.#modules.metrics.misses.inc({});
      return undefined;
    }
    if (!this.#room()) return undefined;
    const session: Session = new Session(this.#modules, target, this.#config, {
      onGone: () => {
        if (this.#sessions.get(digest) === session) this.#sessions.delete(digest);
      },
      onPrefix: (vouched) => this.#prefixes.add(digest, vouched),
      doubted: () => this.#prefixes.doubted(digest),
    });
    this.#sessions.set(digest, session);
    return session;
  }

  #beginUnwaited(target: PullTarget): boolean {
    if (this.#modules.store.info(target.digest) !== undefined) return false;
    if (this.#sessions.has(target.digest)) return false;
    const unwaited = [...this.#sessions.values()].filter((s) => !s.waited).length;
    if (unwaited >= PULL_LIMITS.background_sessions_max) return false;
    // Half of the sessions stay for pulls that somebody waits for.
    if (this.#sessions.size >= this.#config.sessions_max / 2) return false;
    const session = this.#begin(target);
    session?.start({ small: false });
    return session !== undefined;
  }

  #room(): boolean {
    if (this.#sessions.size < this.#config.sessions_max) return true;
    for (const [digest, session] of this.#sessions) {
      if (!session.evictable) continue;
      this.#sessions.delete(digest);
      void session.close();
      return true;
    }
    return false;
  }

  async #prefetch(digest: Digest): Promise<void> {
    const { signal } = this.#stop;
    try {
      const bytes = await this.#read(digest, { max_bytes: MAX_MANIFEST_BYTES, signal });
      if (bytes === undefined) return;
      const manifest = parseManifest(bytes);
      if (manifest.kind === 'index') return;
      let begun = 0;
      for (const blob of manifest.blobs) {
        if (this.#beginUnwaited({ digest: blob.digest, size_bytes: blob.size_bytes })) begun++;
      }
      this.#modules.logger.debug({ digest, blobs: manifest.blobs.length, begun }, 'fetching ahead');
    } catch (error) {
      // Fetching ahead is a favour: without it containerd asks for each layer itself.
      if (!isAbort(error)) this.#modules.logger.debug({ digest, err: error }, 'not fetching ahead');
    }
  }
}
