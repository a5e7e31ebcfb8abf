import { DaemonError } from '../base/errors.ts';
import { isDigest, parseDigest } from '../oci/digest.ts';
import type { CallContext } from '../rpc/service.ts';
import type { BlobCatalog } from '../store/blob-store.ts';
import type { ReadRequest, ReadResponse } from './messages.ts';
import type { ContentMetrics } from './metrics.ts';
import { decodeReadRequest, readResponseHead } from './read-codec.ts';

/** Most payload of one answer, as containerd's own server has it. */
const CHUNK_BYTES = 1024 * 1024;

/** containerd's Read: ranges of committed blobs. */
export class BlobReads {
  readonly #catalog: Pick<BlobCatalog, 'open' | 'opened'>;
  readonly #metrics: ContentMetrics;

  constructor(modules: {
    readonly catalog: Pick<BlobCatalog, 'open' | 'opened'>;
    readonly metrics: ContentMetrics;
  }) {
    this.#catalog = modules.catalog;
    this.#metrics = modules.metrics;
  }

  /**
   * The whole answer as the parts of one message when the bytes are in memory, else undefined. Never throws: what is wrong with
   * a request is said by `chunks`.
   */
  immediate(bytes: Uint8Array): readonly Uint8Array[] | undefined {
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
    return [readResponseHead(0, length), data];
  }

  /**
   * The range in chunks of up to 1 MiB. A negative offset counts as 0, a size of 0 or too much means up to the end, and the end
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
    for (let done = 0; done < size; ) {
      signal.throwIfAborted();
      const data = await reader.read(start + done, Math.min(CHUNK_BYTES, size - done));
      if (data.length === 0) {
        throw new DaemonError('data_loss', `blob ${digest} ends before its recorded length`, {
          digest,
        });
      }
      this.#metrics.read_bytes.inc({ way: 'disk' }, data.length);
      yield { offset: done, data };
      done += data.length;
    }
  }
}
