import { DaemonError, hasCode, isAbort } from '../base/errors.ts';
import type { InfoRequest__Output } from '../gen/containerd/services/content/v1/InfoRequest.ts';
import type { InfoResponse__Output } from '../gen/containerd/services/content/v1/InfoResponse.ts';
import type { ReadContentRequest__Output } from '../gen/containerd/services/content/v1/ReadContentRequest.ts';
import type { ReadContentResponse__Output } from '../gen/containerd/services/content/v1/ReadContentResponse.ts';
import type { BlobDoor, BlobProbe } from '../host/doctor/context.ts';
import { connect, type RpcClient } from '../rpc/client.ts';
import { OWN_NAMESPACE } from '../rpc/own-calls.ts';
import { loadService } from '../rpc/proto.ts';

/** Longest one read may take; containerd itself sets no deadline. */
const READ_DEADLINE_MS = 10_000;

/** Opens the daemon's content door as a reader. `unavailable` when no daemon listens. */
export async function openBlobDoor(socket_path: string): Promise<BlobDoor> {
  return new ContentClient(await connect(socket_path));
}

class ContentClient implements BlobDoor {
  readonly #client: RpcClient;
  readonly #service = loadService(
    'containerd/services/content/v1/content.proto',
    'containerd.services.content.v1.Content',
  );

  constructor(client: RpcClient) {
    this.#client = client;
  }

  async probe(digest: string, signal: AbortSignal): Promise<BlobProbe> {
    const limits = { deadline_ms: READ_DEADLINE_MS, signal, namespace: OWN_NAMESPACE };
    const info = this.#service.method<InfoRequest__Output, InfoResponse__Output>('Info');
    try {
      const size_bytes = (await this.#client.unary(info, { digest }, limits)).info?.size ?? 0;
      // The daemon tells sizes from memory: only a read shows that the bytes are there.
      if (size_bytes > 0) await this.#bytes({ digest, offset: size_bytes - 1, size: 1 }, 1, signal);
      return { kind: 'there', size_bytes };
    } catch (error) {
      if (signal.aborted || isAbort(error)) throw error;
      if (hasCode(error, 'not_found')) return { kind: 'missing' };
      const why = error instanceof DaemonError ? error.code : 'internal';
      return { kind: 'unreadable', why };
    }
  }

  async read(digest: string, max_bytes: number, signal: AbortSignal): Promise<Uint8Array> {
    // One byte more than allowed, so that a larger blob shows.
    const request = { digest, offset: 0, size: max_bytes + 1 };
    return this.#bytes(request, max_bytes, signal);
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }

  async #bytes(
    request: ReadContentRequest__Output,
    max_bytes: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const read = this.#service.method<ReadContentRequest__Output, ReadContentResponse__Output>(
      'Read',
    );
    const chunks: Uint8Array[] = [];
    let size = 0;
    const limits = { deadline_ms: READ_DEADLINE_MS, signal, namespace: OWN_NAMESPACE };
    for await (const { data } of this.#client.stream(read, request, limits)) {
      size += data.length;
      if (size > max_bytes) {
        throw new DaemonError('out_of_range', `${request.digest} has more than ${max_bytes} bytes`);
      }
      chunks.push(data);
    }
    return Buffer.concat(chunks);
  }
}
