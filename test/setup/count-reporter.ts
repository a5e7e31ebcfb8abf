import type { TestEvent } from 'node:test/reporters';

/** The part of node's own summary that `run-tests.ts` adds up. */
export type Counts = {
  readonly tests: number;
  readonly passed: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly skipped: number;
  readonly todo: number;
};

/** A reporter for `node --test` that says nothing but the final counts, as one JSON object. */
export default async function* countReporter(
  source: AsyncIterable<TestEvent>,
): AsyncGenerator<string> {
  for await (const event of source) {
    // Each file has a summary of its own; the one without a file is the whole run's.
    if (event.type === 'test:summary' && event.data.file === undefined) {
      yield JSON.stringify(event.data.counts);
    }
  }
}
