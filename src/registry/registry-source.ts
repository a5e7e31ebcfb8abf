import { DaemonError, hasCode } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import { isVerdict, type SourceFault } from '../piece/exclusion.ts';
import { pieceLength, pieceOffset } from '../piece/layout.ts';
import type { PieceList } from '../piece/piece-list.ts';
import type { HostStanding } from '../piece/host-standing.ts';
import type { FaultFacts, PieceSource, UnverifiedPiece } from '../piece/source.ts';
import type { Origin } from './origins.ts';
import type { RegistryClient } from './registry-client.ts';
import { CONNECTIONS_MAX } from './wire/pools.ts';

/** The blob a source is for. */
export type SourceBlob = { readonly digest: Digest; readonly size_bytes: number };

/**
 * The registry as a source of one blob. It may be in several repositories, which are tried in order: a wrong guess is a 404 that is
 * remembered, and the blob's digest decides in the end. It has no piece list to claim.
 */
export class RegistrySource implements PieceSource {
  readonly id: string;
  readonly kind = 'registry';
  readonly near = false;
  readonly depth = CONNECTIONS_MAX;
  /** Of the registry, all its endpoints together. */
  readonly standing: HostStanding;
  readonly #client: RegistryClient;
  readonly #blob: SourceBlob;
  readonly #origins: readonly Origin[];

  /** `origins`: at least one, best first. */
  constructor(
    client: RegistryClient,
    blob: SourceBlob,
    origins: readonly [Origin, ...(readonly Origin[])],
  ) {
    this.id = origins[0].registry;
    this.standing = client.hostStanding(this.id);
    this.#client = client;
    this.#blob = blob;
    this.#origins = origins;
  }

  /** Always `unimplemented`: a registry knows the digest of the whole and of nothing smaller. */
  list({ signal }: { signal: AbortSignal }): Promise<PieceList> {
    const none = new DaemonError(
      'unimplemented',
      `${this.id} is a registry: it has no piece lists`,
    );
    return Promise.reject(signal.aborted ? (signal.reason as Error) : none);
  }

  async fetch(
    index: number,
    length: number,
    options: { signal: AbortSignal; onProgress?: (received_bytes: number) => void },
  ): Promise<UnverifiedPiece> {
    const { signal } = options;
    signal.throwIfAborted();
    const { digest, size_bytes } = this.#blob;
    if (length === 0 || length !== pieceLength(size_bytes, index)) {
      throw new DaemonError(
        'invalid_argument',
        `${digest} has no piece ${index} of ${length} bytes`,
      );
    }
    // Memory of its own: the caller keeps it, and a pool's slab would stay with it.
    const into = Buffer.allocUnsafeSlow(length);
    const wish = { digest, size_bytes, offset: pieceOffset(index), into };
    let failure: unknown;
    for (const origin of this.#origins) {
      try {
        const heard = this.standing.asked();
        const onProgress = (received_bytes: number): void => {
          heard(received_bytes);
          options.onProgress?.(received_bytes);
        };
        await this.#client.range(origin, { ...wish, onProgress }, { signal });
        return { index, bytes: into };
      } catch (error) {
        // Another repository may have it, or let us in; every other failure is that of the registry.
        if (!hasCode(error, 'not_found', 'permission_denied')) throw error;
        if (failure === undefined || error.code === 'permission_denied') failure = error;
      }
    }
    throw failure;
  }

  /** Wrong bytes cost the blob's repositories their trust, and the registry's host nothing: containerd itself would go there. */
  blame(fault: SourceFault, facts?: FaultFacts): void {
    if (!isVerdict(fault)) {
      this.standing.fault(fault, facts);
      return;
    }
    for (const origin of this.#origins) this.#client.distrust(origin, this.#blob.digest);
  }
}
