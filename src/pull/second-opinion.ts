import type { Clock } from '../base/clock.ts';
import type { SourceFault } from '../piece/exclusion.ts';
import type { PieceList } from '../piece/piece-list.ts';
import type { PieceSource } from '../piece/source.ts';
import { within } from './deadline.ts';
import { faultOf } from './roster.ts';
import type { Verifier } from './verifier.ts';

/**
 * Longest wait for the second try, in ms. A holder reads the piece from its disk again and compares; a piece of 4 MiB takes a third of a second
 * at 100 Mbit/s, and other requests may be in front of it.
 */
const SECOND_TRY_MS = 5000;

/** What the second try says: the piece is right after all, or what is left to hold against the source; `unasked` = our own end came first. */
type Opinion = 'right' | 'unasked' | SourceFault;

/**
 * Asks a source once more for a piece that disagreed with the list it claims itself, before anybody bans it: a holder whose disk has
 * flipped a bit learns by this that its bytes are doubted (it reads them again and takes the blob out of service), and is honest. `right`: it was
 * damaged on the way, or on our side. `no_content`: the source has it no longer; `gone`, `stalled`, `busy`: no answer, and no verdict without
 * one. `wrong_piece` when it insists.
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
): Promise<Opinion> {
  const { source, piece, length, list } = asked;
  try {
    const again = await within(modules.clock, SECOND_TRY_MS, signal, (both) =>
      source.fetch(piece, length, { signal: both }),
    );
    const verified = await modules.verifier.verify(again, piece, list);
    again.release?.();
    return verified === undefined ? 'wrong_piece' : 'right';
  } catch (error) {
    return signal.aborted ? 'unasked' : faultOf(error);
  }
}
