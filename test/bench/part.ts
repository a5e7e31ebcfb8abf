import type { Row } from './row.ts';

/** What a part of the bench is given. */
export type BenchContext = {
  /** Everything the part starts goes in here and is ended with it, also when the bench is interrupted. */
  readonly scope: AsyncDisposableStack;
  /** Fewer and shorter runs. */
  readonly quick: boolean;
  /** Tells what was measured just now, for whoever watches. */
  readonly note: (text: string) => void;
};

/** A part; rejects only when it could not run. */
export type BenchPart = (context: BenchContext) => Promise<Row[]>;
