import type { BigIntStats } from 'node:fs';
import { stat, readFile } from 'node:fs/promises';
import type { Digest } from '../../oci/digest.ts';
import { hexOf } from '../../oci/digest.ts';
import { pieceCount } from '../../piece/layout.ts';
import { PIECE_DIGEST_BYTES, type PieceList } from '../../piece/piece-list.ts';
import { isOwnList } from './blob-index.ts';
import type { DigestFiles } from '../disk/digest-files.ts';
import { decodeListFile, encodeListFile, MAX_LIST_FILE_BYTES } from './piece-list-file.ts';

/** Bytes of piece digests kept in memory; a list beyond that is read from its file again. Two lists of the largest blob. */
const MEMORY_MAX_BYTES = 16 * 1024 * 1024;

type Blob = { readonly digest: Digest; readonly size_bytes: number };

/** Piece lists that we computed ourselves: in memory the latest used ones, on disk all. */
export class PieceLists {
  readonly #files: DigestFiles;
  readonly #pathsOf: (digest: Digest) => readonly string[];
  readonly #memory = new Map<Digest, PieceList>();
  #memory_bytes = 0;

  constructor(modules: { files: DigestFiles; pathsOf: (digest: Digest) => readonly string[] }) {
    this.#files = modules.files;
    this.#pathsOf = modules.pathsOf;
  }

  /** The list of a blob; undefined when there is none, or none that was computed on this very file. */
  async load(blob: Blob): Promise<PieceList | undefined> {
    if (isOwnList(blob)) return ownList(blob);
    const known = this.#memory.get(blob.digest);
    if (known !== undefined) {
      this.#memory.delete(blob.digest);
      this.#memory.set(blob.digest, known);
      return known;
    }
    const list = await this.#fromFile(blob);
    if (list !== undefined) this.remember(list);
    return list;
  }

  /** Keeps a list in memory until it is pushed out by others; `save` makes it last. */
  remember(list: PieceList): void {
    this.#forget(list.digest);
    this.#memory.set(list.digest, list);
    this.#memory_bytes += list.digests.length;
    for (const oldest of this.#memory.keys()) {
      if (this.#memory_bytes <= MEMORY_MAX_BYTES || oldest === list.digest) break;
      this.#forget(oldest);
    }
  }

  /** Writes the list beside the store, bound to the blob file as it is now. */
  async save(list: PieceList): Promise<void> {
    const { mtimeNs, ino, size } = await this.#stat(list.digest);
    if (size !== BigInt(list.size_bytes)) return;
    const { size_bytes, digests } = list;
    const file = encodeListFile(list.digest, { size_bytes, digests, mtime_ns: mtimeNs, ino });
    await this.#files.replace(list.digest, file);
  }

  remove(digest: Digest): void {
    this.#forget(digest);
    this.#files.remove(digest);
  }

  async #fromFile({ digest, size_bytes }: Blob): Promise<PieceList | undefined> {
    try {
      const path = this.#files.path(digest);
      if ((await stat(path)).size > MAX_LIST_FILE_BYTES) return undefined;
      const stored = decodeListFile(digest, await readFile(path));
      const file = await this.#stat(digest);
      if (stored?.size_bytes !== size_bytes) return undefined;
      if (stored.mtime_ns !== file.mtimeNs || stored.ino !== file.ino) return undefined;
      return { digest, size_bytes, digests: stored.digests };
    } catch {
      // Unreadable is as good as missing: the list is computed again.
      return undefined;
    }
  }

  async #stat(digest: Digest): Promise<BigIntStats> {
    const [first, second] = this.#pathsOf(digest);
    // It may be on its way from the one to the other.
    return await stat(first!, { bigint: true }).catch(() => stat(second!, { bigint: true }));
  }

  #forget(digest: Digest): void {
    const list = this.#memory.get(digest);
    if (list === undefined) return;
    this.#memory.delete(digest);
    this.#memory_bytes -= list.digests.length;
  }
}

/** The list of a sha256 blob of at most one piece: its digest. */
function ownList({ digest, size_bytes }: Blob): PieceList {
  const digests = Buffer.from(hexOf(digest), 'hex').subarray(
    0,
    pieceCount(size_bytes) * PIECE_DIGEST_BYTES,
  );
  return { digest, size_bytes, digests };
}
