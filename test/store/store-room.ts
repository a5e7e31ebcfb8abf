import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { PIECE_BYTES, pieceCount, pieceLength, pieceOffset } from '../../src/piece/layout.ts';
import type { UnverifiedPiece } from '../../src/piece/source.ts';
import type { VerifiedPiece } from '../../src/piece/verified-piece.ts';
import type { StagedBlob } from '../../src/store/blob-store.ts';
import type { Files } from '../../src/store/disk/files.ts';
import type { FreeBytes } from '../../src/store/disk/free-space.ts';
import { LocalStore } from '../../src/store/local-store.ts';
import { type StoreConfig, storeConfig } from '../../src/store/store-config.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';

/** A directory of the test's own, gone when it ends. */
export async function scratch(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'layerswarm-store-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

type RoomModules = {
  clock?: Clock;
  free?: FreeBytes;
  files?: Files;
  scan_slice_files?: number;
};

/** Directories for a store, and stores opened on them one after another. */
export class StoreRoom {
  readonly logger = new MemoryLogger();
  readonly register = new MemoryRegister();
  readonly config: StoreConfig;
  readonly #clock: Clock;
  readonly #free: FreeBytes | undefined;
  readonly #files: Files | undefined;
  readonly #slice_files: number | undefined;

  private constructor(config: StoreConfig, modules: RoomModules) {
    this.config = config;
    this.#clock = modules.clock ?? systemClock;
    this.#free = modules.free;
    this.#files = modules.files;
    this.#slice_files = modules.scan_slice_files;
  }

  static async make(
    t: TestContext,
    config: Partial<StoreConfig> = {},
    modules: RoomModules = {},
  ): Promise<StoreRoom> {
    const dir = await scratch(t);
    const given = {
      content_directory: join(dir, 'content'),
      state_directory: join(dir, 'state'),
      create_content_directory: true,
      cache_max_bytes: 2 ** 30,
      disk_floor_bytes: 0,
      backfill_bytes_per_second: 0,
      ...config,
    };
    return new StoreRoom(storeConfig(given), modules);
  }

  open(config: Partial<StoreConfig> = {}): Promise<LocalStore> {
    const modules = {
      clock: this.#clock,
      logger: this.logger,
      register: this.register,
      ...(this.#free && { free: this.#free }),
      ...(this.#files && { files: this.#files }),
      ...(this.#slice_files && { scan_slice_files: this.#slice_files }),
    };
    return LocalStore.open(modules, { ...this.config, ...config });
  }

  /** Path below the content directory. */
  content(...names: string[]): string {
    return join(this.config.content_directory, ...names);
  }
}

/** Runs `work` while the store's background work runs. */
export async function whileRunning(store: LocalStore, work: () => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const running = store.run({ signal: stop.signal });
  try {
    await work();
  } finally {
    stop.abort();
    await running;
  }
}

/** Bytes that differ from piece to piece and from seed to seed. */
export function content(size_bytes: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size_bytes);
  for (let at = 0; at < size_bytes; at += PIECE_BYTES / 4) {
    const mark = createHash('sha512').update(`${seed} ${at}`).digest();
    bytes.set(mark.subarray(0, Math.min(mark.length, size_bytes - at)), at);
  }
  return bytes;
}

/** Piece `index` of a blob with these bytes, as the verifier makes it. */
export function pieceOf(bytes: Uint8Array, index: number): VerifiedPiece {
  const start = pieceOffset(index);
  const part = bytes.slice(start, start + pieceLength(bytes.length, index));
  const sha256: Uint8Array = createHash('sha256').update(part).digest();
  const piece: UnverifiedPiece & { sha256: Uint8Array } = { index, bytes: part, sha256 };
  return piece as VerifiedPiece;
}

/** Writes all pieces in the given order, or first to last. */
export async function writePieces(
  staged: StagedBlob,
  bytes: Uint8Array,
  order: Iterable<number> = Array(pieceCount(bytes.length)).keys(),
): Promise<void> {
  for (const index of order) await staged.write(pieceOf(bytes, index));
}
