import type { Digest } from '../oci/digest.ts';
import type { PullModules } from './pull-modules.ts';

/**
 * A blob that we kept for peers comes back by being read once, without anybody else. False when we have none of that size, when it is not what it
 * was, or when it cannot be brought back: then others are asked.
 */
export async function restored(
  { store, logger }: Pick<PullModules, 'store' | 'logger'>,
  { digest, size_bytes }: { readonly digest: Digest; readonly size_bytes: number },
): Promise<boolean> {
  if (store.cached(digest)?.size_bytes !== size_bytes) return false;
  try {
    return await store.restore(digest);
  } catch (error) {
    logger.warn({ digest, err: error }, 'cached blob cannot be brought back');
    return false;
  }
}
