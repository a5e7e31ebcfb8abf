import { DaemonError, hasCode } from '../base/errors.ts';
import type { Clock } from '../base/clock.ts';
import { algorithmOf, type Digest, parseDigest } from '../oci/digest.ts';
import { MAX_REF_LENGTH, type PullRef, parsePullRef } from '../oci/ingest-ref.ts';
import type { Logger } from '../ops/logger.ts';
import type { PullPort } from '../pull/pull-port.ts';
import type { CallContext, Dialogue } from '../rpc/service.ts';
import type { BlobCatalog, BlobInfo, Ingest, IngestArea } from '../store/blob-store.ts';
import {
  toTimestamp,
  type WriteAction,
  type WriteRequest,
  type WriteResponse,
} from './messages.ts';
import type { ContentMetrics } from './metrics.ts';
import { Prefill, type PrefillConfig } from './prefill.ts';
import type { PullWaits } from './pull-waits.ts';

/** A blob up to this size is treated like a manifest: it must not hold a pull back. */
const SMALL_BLOB_BYTES = 64 * 1024;

type Answer = { readonly response: WriteResponse; readonly last: boolean };

export type WriteModules = {
  readonly catalog: Pick<BlobCatalog, 'info'>;
  readonly ingests: Pick<IngestArea, 'ingest'>;
  readonly pull: PullPort;
  readonly waits: PullWaits;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ContentMetrics;
};

/**
 * One Write stream. The first message opens the ingest and answers at once, because containerd's database waits for it. If its ref
 * names a blob, the second STAT waits for what peers and registry deliver and answers with the new offset. No other message waits.
 *
 * containerd's writer goes by the offset of the first answer for ever. So after such a wait the stream keeps a `base`: the
 * client's own count plus base is the real offset (only for refs that name a blob; base is 0 on all others, and negative where bytes of an earlier
 * process had to be dropped). Offsets otherwise follow
 * containerd's content server: 0 with bytes present starts again, any other must be the current one.
 */
export class WriteSession implements Dialogue<WriteRequest, WriteResponse> {
  readonly #modules: WriteModules;
  readonly #config: PrefillConfig;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  #ingest: Ingest | undefined;
  #pullRef: PullRef | undefined;
  #prefill: Prefill | undefined;
  #running: Promise<Answer> | undefined;
  #total = 0;
  #expected: Digest | '' = '';
  /** Real offset minus the client's count. */
  #base = 0;
  /** Offset of the first answer. */
  #first = 0;

  constructor(modules: WriteModules, config: PrefillConfig, call: Pick<CallContext, 'signal'>) {
    this.#modules = modules;
    this.#config = config;
    this.#signal = AbortSignal.any([call.signal, this.#stop.signal]);
  }

  answer(request: WriteRequest): Promise<Answer> {
    this.#running = this.#answer(request);
    return this.#running;
  }

  /** Frees the ref at once, unless a write to disk is in progress, for which it waits. The bytes stay for a resume. */
  async close(): Promise<void> {
    this.#stop.abort(new DaemonError('cancelled', 'the write stream has ended'));
    this.#prefill?.leave();
    try {
      await this.#running;
    } catch {
      // The server has told the client; here only its end matters.
    }
    try {
      await this.#ingest?.[Symbol.asyncDispose]();
    } catch (err) {
      this.#modules.logger.warn({ err }, 'ingest could not be closed in order');
    }
  }

  async #answer(request: WriteRequest): Promise<Answer> {
    const action = actionOf(request);
    const opening = this.#ingest === undefined;
    const ingest = this.#ingest ?? (await this.#open(request, action));
    this.#keepExpectations(request);
    if (!opening || action !== 'STAT') {
      if (action === 'STAT') await this.#settle(ingest);
      else this.#forgo();
      await this.#ready(ingest);
    }
    switch (action) {
      case 'STAT':
        return { response: this.#state(ingest), last: false };
      case 'WRITE':
        return { response: await this.#write(ingest, request), last: false };
      case 'COMMIT':
        return { response: await this.#commit(ingest, request), last: true };
    }
  }

  /** Opens the ingest and, when the client is going to ask again, joins the pull of the blob its ref names. */
  async #open(request: WriteRequest, action: WriteAction): Promise<Ingest> {
    const { ref } = request;
    if (ref === '') {
      throw new DaemonError('invalid_argument', 'first message must have a reference');
    }
    if (ref.length > MAX_REF_LENGTH) {
      throw new DaemonError('invalid_argument', `reference is longer than ${MAX_REF_LENGTH}`);
    }
    const expected = request.expected === '' ? undefined : parseDigest(request.expected);
    const total_bytes = Math.max(0, request.total);
    const named = parsePullRef(ref);
    const ingest = await this.#modules.ingests.ingest(ref, {
      total_bytes,
      ...(expected !== undefined && { expected }),
      ...(named !== undefined && { named: named.digest }),
    });
    this.#ingest = ingest;
    this.#signal.throwIfAborted();
    this.#first = ingest.status().offset_bytes;
    if (named === undefined || total_bytes === 0 || algorithmOf(named.digest) !== 'sha256') {
      return ingest;
    }
    this.#pullRef = named;
    const may_share = this.#config.sharing_policy === 'shared';
    if (may_share && action === 'STAT' && this.#first < total_bytes) {
      this.#join(ref, named, total_bytes);
    }
    return ingest;
  }

  #join(ref: string, { digest, kind }: PullRef, size_bytes: number): void {
    const { catalog, pull, waits, metrics } = this.#modules;
    if (catalog.info(digest)?.size_bytes === size_bytes) {
      this.#prefill = new Prefill(this.#modules, this.#config, { ref, digest, ticket: undefined });
      return;
    }
    const small = (kind !== 'layer' && kind !== 'other') || size_bytes <= SMALL_BLOB_BYTES;
    const ticket = waits.room ? pull.join({ digest, size_bytes, small }) : undefined;
    if (ticket === undefined) metrics.prefills.inc({ outcome: 'miss' });
    else this.#prefill = new Prefill(this.#modules, this.#config, { ref, digest, ticket });
  }

  /** The client goes on without having asked again: its bytes belong behind the offset it knows, so nothing may come in between. */
  #forgo(): void {
    this.#prefill?.leave();
    this.#prefill = undefined;
  }

  /** The wait, once per stream. */
  async #settle(ingest: Ingest): Promise<void> {
    const prefill = this.#prefill;
    if (prefill === undefined) return;
    await prefill.settle(ingest, this.#signal);
    this.#prefill = undefined;
    this.#base = ingest.status().offset_bytes - this.#first;
  }

  /** Bytes of an earlier process may turn out to be fewer, or wrong and dropped, after the first answer has counted them. */
  async #ready(ingest: Ingest): Promise<void> {
    const before = ingest.status().offset_bytes;
    await ingest.ready(this.#signal);
    if (this.#pullRef !== undefined) this.#base += ingest.status().offset_bytes - before;
  }

  /** Size and digest stay in force until the client says others. */
  #keepExpectations(request: WriteRequest): void {
    if (request.total > 0) this.#total = request.total;
    if (request.expected !== '') this.#expected = parseDigest(request.expected);
  }

  #state(ingest: Ingest): WriteResponse {
    const status = ingest.status();
    return {
      action: 'STAT',
      startedAt: toTimestamp(status.started_ns),
      updatedAt: toTimestamp(status.updated_ns),
      offset: status.offset_bytes,
      total: this.#total,
      digest: ingest.digest(),
    };
  }

  async #write(ingest: Ingest, request: WriteRequest): Promise<WriteResponse> {
    await this.#append(ingest, request);
    // The client subtracts its own offset from this, so it is told in its own count.
    const offset = request.offset + request.data.length;
    return { action: 'WRITE', offset, digest: ingest.digest() };
  }

  async #append(ingest: Ingest, { offset, data }: WriteRequest): Promise<void> {
    const current = ingest.status().offset_bytes;
    const counted = current - this.#base;
    if (offset !== current && offset !== counted) {
      if (offset !== 0) throw outOfRange(offset, counted);
      await ingest.truncate();
      this.#base = 0;
      this.#first = 0;
      this.#modules.waits.forgetPrefixed(ingest.ref);
    }
    if (data.length === 0) return;
    await ingest.write(data);
    this.#modules.metrics.written_bytes.inc({}, data.length);
  }

  async #commit(ingest: Ingest, request: WriteRequest): Promise<WriteResponse> {
    // A pull's commit without data carries whatever the client believed last: size and digest decide, nothing is truncated.
    const stale = request.offset === 0 || request.offset === this.#first;
    if (request.data.length > 0 || this.#pullRef === undefined || !stale) {
      await this.#append(ingest, request);
    }
    const info = await this.#publish(ingest, request);
    return { action: 'COMMIT', offset: info.size_bytes, total: this.#total, digest: info.digest };
  }

  async #publish(ingest: Ingest, { labels }: WriteRequest): Promise<BlobInfo> {
    const { metrics, pull, waits } = this.#modules;
    const { offset_bytes } = ingest.status();
    try {
      const info = await ingest.commit({
        size_bytes: this.#total,
        expected: this.#expected,
        labels,
      });
      metrics.commits.inc({ result: 'committed' });
      waits.forgetPrefixed(ingest.ref);
      const kind = parsePullRef(ingest.ref)?.kind;
      if (kind === 'manifest' || kind === 'index') pull.manifestCommitted(info.digest);
      return info;
    } catch (error) {
      const exists = hasCode(error, 'already_exists');
      metrics.commits.inc({ result: exists ? 'exists' : 'refused' });
      if (exists) waits.forgetPrefixed(ingest.ref);
      else if (hasCode(error, 'failed_precondition')) this.#refuted(ingest.ref, offset_bytes);
      throw error;
    } finally {
      // Before the answer, so that whoever opens the ref next does not find it locked.
      await ingest[Symbol.asyncDispose]();
    }
  }

  /** The store refused a commit. When the size was right, the digest was wrong, and a prefix of ours may be the cause. */
  #refuted(ref: string, offset_bytes: number): void {
    if (this.#total > 0 && this.#total !== offset_bytes) return;
    const { waits, pull, logger } = this.#modules;
    const digest = this.#pullRef?.digest;
    if (!waits.forgetPrefixed(ref) || digest === undefined || this.#expected !== digest) return;
    logger.debug({ digest }, 'blob that began with bytes from peers failed its digest');
    pull.prefixRefuted(digest);
  }
}

function actionOf({ action }: WriteRequest): WriteAction {
  if (action === 'STAT' || action === 'WRITE' || action === 'COMMIT') return action;
  throw new DaemonError('invalid_argument', `write action ${action} is unknown`);
}

function outOfRange(offset: number, current: number): DaemonError {
  return new DaemonError(
    'out_of_range',
    `write @${offset} must occur at current offset ${current}`,
    { offset, current },
  );
}
