import { hasCode } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import { pieceCount } from '../piece/layout.ts';
import { type PieceList, pieceDigest } from '../piece/piece-list.ts';
import type { StagedBlob } from '../store/blob-store.ts';
import type { PullModules } from './pull-modules.ts';

type Modules = Pick<PullModules, 'store' | 'logger'>;

/**
 * What became of a whole copy: `complete` = it is published; `damaged` = bytes had changed on our side, those are missing now;
 * `refuted` = the bytes are what the list says, and the list is wrong; `nothing` = the store would not have it.
 */
export type Published = 'complete' | 'damaged' | 'refuted' | 'nothing';

/** The one working copy of a session and the list its pieces were compared with. Outlives a change of lists. */
export class WorkingCopy {
  readonly #modules: Modules;
  readonly #target: { readonly digest: Digest; readonly size_bytes: number };
  #staged: StagedBlob | undefined;
  #list: PieceList | undefined;

  constructor(modules: Modules, target: { readonly digest: Digest; readonly size_bytes: number }) {
    this.#modules = modules;
    this.#target = target;
  }

  get staged(): StagedBlob | undefined {
    return this.#staged;
  }

  /** A copy that holds no piece which this list does not claim: those that it has in common with the one before stay. Undefined when none can be had. */
  async under(list: PieceList): Promise<StagedBlob | undefined> {
    const { digest, size_bytes } = this.#target;
    try {
      this.#staged ??= await this.#modules.store.stage(digest, size_bytes);
      if (this.#list !== undefined) await this.#staged.drop(difference(this.#list, list));
      this.#list = list;
      return this.#staged;
    } catch (error) {
      // No room or somebody else's copy: the registry's way through containerd still works.
      this.#modules.logger.warn({ digest, err: error }, 'blob cannot be staged');
      return undefined;
    }
  }

  /** All pieces are here. When they do not make the digest, they are read again before anybody is to blame for it. */
  async publish(): Promise<Published> {
    const { logger } = this.#modules;
    const { digest } = this.#target;
    try {
      if (await this.#published()) return 'complete';
      const damaged = (await this.#staged?.reread()) ?? [];
      if (damaged.length > 0) {
        logger.warn({ digest, pieces: damaged.length }, 'pieces have changed on this host');
        return 'damaged';
      }
      // What was hashed on the way is hashed anew by now.
      return (await this.#published()) ? 'complete' : 'refuted';
    } catch (error) {
      logger.warn({ digest, err: error }, 'blob cannot be published');
      return 'nothing';
    }
  }

  /** The prefix ends before this piece at the latest; what lies behind it stays. */
  async cut(index: number): Promise<void> {
    await this.#staged?.drop([index]);
  }

  async dispose(): Promise<void> {
    const staged = this.#staged;
    this.#staged = undefined;
    this.#list = undefined;
    try {
      await staged?.[Symbol.asyncDispose]();
    } catch (error) {
      const { digest } = this.#target;
      this.#modules.logger.warn({ digest, err: error }, 'staged blob remains');
    }
  }

  /** False when the pieces do not make the digest. */
  async #published(): Promise<boolean> {
    try {
      await this.#staged!.publish();
    } catch (error) {
      if (hasCode(error, 'data_loss')) return false;
      throw error;
    }
    this.#staged = undefined;
    return true;
  }
}

/** The pieces that two lists of one blob do not agree on. */
export function* difference(one: PieceList, other: PieceList): Generator<number, undefined> {
  if (one === other) return;
  for (let i = 0; i < pieceCount(one.size_bytes); i++) {
    if (Buffer.compare(pieceDigest(one, i), pieceDigest(other, i)) !== 0) yield i;
  }
}
