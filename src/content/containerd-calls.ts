import type { Clock } from '../base/clock.ts';
import { OWN_NAMESPACE } from '../rpc/own-calls.ts';
import type { AnyMethod, CallContext, ServiceTable } from '../rpc/service.ts';

/** The last content call of containerd. */
export type LastCall = {
  /** As in `Info`. */
  readonly method: string;
  /** '' for its garbage collection, and for `ctr` and its kin on 1.x. */
  readonly namespace: string;
  /** On the monotonic clock, and as a time of day, in ms. */
  readonly at_ms: number;
  readonly at_epoch_ms: number;
};

/**
 * That containerd calls, and when it did last: the one proof that it uses this daemon as its content store. Commands of our own that
 * look at blobs do not count; neither do Reads, because each of containerd's readers begins with an Info.
 */
export class ContainerdCalls {
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  #count = 0;
  #last: LastCall | undefined;

  constructor(modules: { readonly clock: Clock }) {
    this.#clock = modules.clock;
  }

  /** Calls since the daemon started. */
  get count(): number {
    return this.#count;
  }

  get last(): LastCall | undefined {
    return this.#last;
  }

  /** Calls `listener` at each call of containerd, before it is answered: it must cost nothing. Returns the unsubscribe function. */
  onCall(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** The same methods, noted when they are called. */
  noting(table: ServiceTable): ServiceTable {
    return new Map([...table].map(([path, method]) => [path, this.#noting(path, method)]));
  }

  #noting(path: string, method: AnyMethod): AnyMethod {
    const name = path.slice(path.lastIndexOf('/') + 1);
    if (name === 'Read') return method;
    if (method.kind === 'dialogue') {
      return {
        ...method,
        open: (call: CallContext) => {
          this.#note(name, call);
          return method.open(call);
        },
      };
    }
    return {
      ...method,
      handle: (request: unknown, call: CallContext) => {
        this.#note(name, call);
        return method.handle(request, call) as never;
      },
    };
  }

  #note(method: string, { namespace }: CallContext): void {
    if (namespace === OWN_NAMESPACE) return;
    this.#count += 1;
    this.#last = {
      method,
      namespace,
      at_ms: this.#clock.now_ms(),
      at_epoch_ms: Number(this.#clock.wall_ns() / 1_000_000n),
    };
    for (const listener of this.#listeners) listener();
  }
}
