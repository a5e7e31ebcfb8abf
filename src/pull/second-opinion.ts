import type { Clock } from '../base/clock.ts';
import { hasCode } from '../base/errors.ts';
import type { SourceFault } from '../piece/exclusion.ts';
import type { PieceList } from '../piece/piece-list.ts';
import type { PieceSource } from '../piece/source.ts';
import { within } from './deadline.ts';
import type { Verifier } from './verifier.ts';

/**
 * Longest wait for the second try, in ms. A holder reads the piece from its disk again and compares; a piece of 4 MiB takes a third of a second
 * at 100 Mbit/s, and other requests may be in front of it.
 */
const SECOND_TRY_MS = 5000;

/**
 * Asks a source once more for a piece that disagreed with the list it claims itself, before anybody bans it: a holder whose disk has
 * flipped a bit learns by this that its bytes are doubted (it reads them again and takes the blob out of service), and is honest. The fault
 * that is left: none when the piece is right now (it was damaged on the way, or on our side), `no_content` when the source has it no
 * longer, `gone` when it is gone; `wrong_piece` when it insists, or gives no answer in time.
 */
export async function secondOpinion(
  modules: { readonly clock: Clock; readonly verifier: Verifier },
  asked: {
    readonly source: PieceSource;
    readonly piece: number;
    readonly length: number;
    readonly list: PieceList;
  },
  signal: AbortSignal,
): Promise<SourceFault | undefined> {
  const { source, piece, length, list } = asked;
  try {
    const again = await within(modules.clock, SECOND_TRY_MS, signal, (both) =>
      source.fetch(piece, length, { signal: both }),
    );
    const verified = await modules.verifier.verify(again, piece, list);
    again.release?.();
    return verified === undefined ? 'wrong_piece' : undefined;
  } catch (error) {
    if (signal.aborted) return 'gone';
    if (hasCode(error, 'not_found')) return 'no_content';
    return hasCode(error, 'deadline_exceeded', 'unavailable', 'protocol_error')
      ? 'wrong_piece'
      : 'gone';
  }
}
