import type { Clock } from '../../base/clock.ts';
import {
  MAX_QUICK_ANSWERS,
  QUICK_REQUESTS_BURST,
  QUICK_REQUESTS_PER_SECOND,
} from '../ground/limits.ts';
import { TokenBucket } from '../ground/token-bucket.ts';
import type { Busy } from './upload-slots.ts';

/** When too many quick answers are under way: they take milliseconds. */
const RETRY_AFTER_MS = 100;

/** Small answers of all streams together: they need no upload slot, and are bounded by number instead. */
export class QuickAnswers {
  #used = 0;

  get used(): number {
    return this.#used;
  }

  /** Memory. Room for one more, to be disposed of when it has left. */
  enter(): Disposable | Busy {
    if (this.#used >= MAX_QUICK_ANSWERS) return { retry_after_ms: RETRY_AFTER_MS };
    this.#used += 1;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#used -= 1;
        held = false;
      },
    };
  }
}

/** One stream's share of them, bounded by rate: with it a stream gets at most 6.4 MB/s without a slot. */
export class QuickAsker {
  readonly #all: QuickAnswers;
  readonly #bucket: TokenBucket;

  constructor(all: QuickAnswers, clock: Clock) {
    this.#all = all;
    this.#bucket = new TokenBucket(clock, {
      per_second: QUICK_REQUESTS_PER_SECOND,
      burst: QUICK_REQUESTS_BURST,
    });
  }

  /** As `QuickAnswers.enter`. */
  enter(): Disposable | Busy {
    if (!this.#bucket.tryTake(1)) {
      return { retry_after_ms: Math.ceil(1000 / QUICK_REQUESTS_PER_SECOND) };
    }
    return this.#all.enter();
  }
}
