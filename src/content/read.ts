import { DaemonError } from '../base/errors.ts';
import { isDigest, parseDigest } from '../oci/digest.ts';
import type { CallContext, MessageParts } from '../rpc/service.ts';
import type { BlobCatalog } from '../store/blob-store.ts';
import type { ReadRequest, ReadResponse } from './messages.ts';
import type { ContentMetrics } from './metrics.ts';
import { decodeReadRequest, readResponseHead } from './read-codec.ts';

/** Read from the disk at once. */
const CHUNK_BYTES = 1024 * 1024;
/** The same when very many Reads are under way whose clients take nothing: together they hold at most about `HELD_BYTES`. */
const SMALL_CHUNK_BYTES = 64 * 1024;
const HELD_BYTES = 64 * 1024 * 1024;

/**
 * Payload of one message. Clients read on until they have what they asked for, so a Read may be answered in several messages. With
 * more than 32 KiB in one, containerd 2.x takes a buffer of 1 MiB for it from its gRPC library's pool and clears that, for
 * every 32 KiB of layer: unpacking then costs it 0.12 ms more per Read and the processor's caches.
 */
const MESSAGE_BYTES = 16_384;

/** containerd's Read: ranges of committed blobs. */
export class BlobReads {
  readonly #catalog: Pick<BlobCatalog, 'open' | 'opened'>;
  readonly #metrics: ContentMetrics;
  /** Reads that are being answered from the disk. */
  #under_way = 0;

  constructor(modules: {
    readonly catalog: Pick<BlobCatalog, 'open' | 'opened'>;
    readonly metrics: ContentMetrics;
  }) {
    this.#catalog = modules.catalog;
    this.#metrics = modules.metrics;
  }

  /**
   * The whole answer, each message in parts, when the bytes are in memory, else undefined. Never throws: what is wrong with
   * a request is said by `chunks`.
   */
  immediate(bytes: Uint8Array): readonly MessageParts[] | undefined {
    let request: ReadRequest;
    try {
      request = decodeReadRequest(bytes);
    } catch {
      return undefined;
    }
    if (!isDigest(request.digest)) return undefined;
    const reader = this.#catalog.opened(request.digest);
    if (reader === undefined) return undefined;
    const offset = Math.max(0, request.offset);
    const rest = reader.size_bytes - offset;
    const length = request.size > 0 ? Math.min(request.size, rest) : rest;
    if (length <= 0 || length > CHUNK_BYTES) return undefined;
    const data = reader.peek(offset, length);
    if (data?.length !== length) return undefined;
    this.#metrics.read_bytes.inc({ way: 'window' }, length);
    const messages: MessageParts[] = [];
    for (let at = 0; at < length; at += MESSAGE_BYTES) {
      const part = data.subarray(at, Math.min(length, at + MESSAGE_BYTES));
      messages.push([readResponseHead(at, part.length), part]);
    }
    return messages;
  }

  /**
   * The range in order. A negative offset counts as 0, a size of 0 or too much means up to the end, and the end
   * itself is an empty answer. `invalid_argument`, `not_found`, `out_of_range`, `data_loss`.
   */
  async *chunks(
    request: ReadRequest,
    { signal }: Pick<CallContext, 'signal'>,
  ): AsyncGenerator<ReadResponse> {
    const digest = parseDigest(request.digest);
    const reader = await this.#catalog.open(digest);
    const start = Math.max(0, request.offset);
    if (start > reader.size_bytes) {
      throw new DaemonError('out_of_range', `read past object length ${reader.size_bytes} bytes`, {
        digest,
        offset: start,
      });
    }
    const rest = reader.size_bytes - start;
    const size = request.size > 0 ? Math.min(request.size, rest) : rest;
    this.#under_way += 1;
    try {
      for (let done = 0; done < size; ) {
        signal.throwIfAborted();
        const data = await reader.read(start + done, Math.min(this.#chunk_bytes, size - done));
        if (data.length === 0) {
          throw new DaemonError('data_loss', `blob ${digest} ends before its recorded length`, {
            digest,
          });
        }
        this.#metrics.read_bytes.inc({ way: 'disk' }, data.length);
        for (let at = 0; at < data.length; at += MESSAGE_BYTES) {
          yield { offset: done + at, data: data.subarray(at, at + MESSAGE_BYTES) };
        }
        done += data.length;
      }
    } finally {
      this.#under_way -= 1;
    }
  }

  get #chunk_bytes(): number {
    return this.#under_way > HELD_BYTES / CHUNK_BYTES ? SMALL_CHUNK_BYTES : CHUNK_BYTES;
  }
}
