import type { Clock } from '../base/clock.ts';
import { DaemonError, type ErrorCode, isAbort } from '../base/errors.ts';
import type { Logger } from '../ops/logger.ts';
import type { Route, Routes } from './routes.ts';
import type {
  CallContext,
  Dialogue,
  DialogueMethod,
  ServerStreamMethod,
  UnaryMethod,
} from './service.ts';
import { type CallStatus, OK, toGrpcStatus } from './status.ts';

/** One call as its server sees it: where answers go. Not used any more once the call is over. */
export interface CallPort {
  /** Takes one serialized message to send. A promise means: no more before it resolves (it also does when the call ends). */
  send(message: Uint8Array): Promise<void> | undefined;
  /** Ends the call, behind everything sent. */
  end(status: CallStatus): void;
  /** A request message was taken up (not: answered): the next one may be brought. */
  taken(): void;
  /**
   * Of a dialogue: its handler is done with a message of `bytes`, in order. Other calls keep theirs, and what a dialogue has not
   * told of by then, until they have settled.
   */
  freed(bytes: number): void;
}

/** What every call of a server shares. */
export type CallModules = {
  readonly routes: Routes;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** What one call brings along. `settled` is called exactly once, when handler and dialogue are done with the call. */
export type CallFacts = {
  readonly route: Route;
  readonly namespace: string;
  readonly timeout_ms: number | undefined;
  readonly settled: () => void;
};

/** Messages a client may send ahead in a conversation of request and answer; no known client sends one. */
const MAX_WAITING_MESSAGES = 64;

/** Longest deadline that is watched: Node's timers hold 2^31 ms; 24 days are as good as none. */
const LONGEST_TIMEOUT_MS = 0x7fff_ffff;

/**
 * Runs one call of any kind, on whichever server: decodes, calls the handler, sends what it gives and maps what it
 * throws. The server feeds it `message`, `halfClose` and `abort`, in the order they happen.
 */
export class CallRunner implements CallContext {
  readonly namespace: string;
  readonly #modules: CallModules;
  readonly #facts: CallFacts;
  readonly #port: CallPort;
  readonly #started_ms: number;
  #controller: AbortController | undefined;
  #aborted: DaemonError | undefined;
  #deadline: AbortController | undefined;
  #over = false;
  #request: Uint8Array | undefined;
  #dialogue: Dialogue<unknown, unknown> | undefined;
  readonly #waiting: Uint8Array[] = [];
  #answering = false;
  #answered = false;
  #halfClosed = false;
  #running = 0;
  #settled = false;

  constructor(modules: CallModules, facts: CallFacts, port: CallPort) {
    this.#modules = modules;
    this.#facts = facts;
    this.#port = port;
    this.namespace = facts.namespace;
    this.#started_ms = modules.clock.now_ms();
  }

  /** Made when a handler first asks: most calls end without. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  /** Watches the client's deadline and opens a dialogue; call it once, before anything else. */
  start(): void {
    this.#watchDeadline();
    const { method } = this.#facts.route;
    if (method.kind !== 'dialogue') return;
    try {
      this.#dialogue = method.open(this) as Dialogue<unknown, unknown>;
    } catch (error) {
      this.fail(error);
    }
  }

  /** The next request message. The bytes belong to the call from here on. */
  message(bytes: Uint8Array): void {
    if (this.#over) return;
    if (this.#facts.route.method.kind !== 'dialogue') {
      this.#port.taken();
      if (this.#request !== undefined) {
        this.#refuse('second request message in a call that takes one');
      } else {
        this.#request = bytes;
      }
      return;
    }
    if (this.#waiting.length >= MAX_WAITING_MESSAGES) {
      this.fail(
        new DaemonError('resource_exhausted', 'too many messages sent without awaiting an answer'),
      );
      return;
    }
    this.#waiting.push(bytes);
    this.#converse();
  }

  /** The client sends no more. `skipImmediate`: the server tried the hot path and was told to go the ordinary way. */
  halfClose(skipImmediate = false): void {
    if (this.#over || this.#halfClosed) return;
    this.#halfClosed = true;
    if (this.#facts.route.method.kind === 'dialogue') {
      this.#converse();
      return;
    }
    const request = this.#request;
    this.#request = undefined;
    if (request === undefined) this.#refuse('call without a request message');
    else if (this.#facts.route.method.kind === 'unary') this.#runUnary(request);
    else this.#runStream(request, skipImmediate);
  }

  /** The client went away (reset, end of its connection): nobody reads an answer any more. */
  abort(): void {
    if (this.#over) return;
    this.#finish('cancelled', new DaemonError('cancelled', 'the client went away'));
  }

  /** Ends the call with the status of `error`, whoever still works for it: broken request, deadline, shutdown. */
  fail(error: unknown): void {
    if (this.#over) return;
    const { logger } = this.#modules;
    const method = this.#facts.route.path;
    const status = toGrpcStatus(error, (found) =>
      logger.error({ ...found, method }, 'call failed unexpectedly'),
    );
    const facts = error instanceof DaemonError ? error.facts : {};
    logger.debug({ ...facts, method, code: status.code }, 'call failed');
    this.#over = true; // first: grpc-js tells of its end at once, as if the client had gone
    this.#port.end(status);
    this.#finish(
      status.code,
      new DaemonError('cancelled', 'the call has ended', {}, { cause: error }),
    );
  }

  #refuse(message: string): void {
    this.fail(new DaemonError('protocol_error', message));
  }

  #succeed(): void {
    if (this.#over) return;
    this.#over = true;
    this.#port.end(OK);
    this.#finish('ok', undefined);
  }

  /** The one end of a call: counts it, tells the handler, closes the dialogue. */
  #finish(code: 'ok' | ErrorCode, aborted: DaemonError | undefined): void {
    this.#over = true;
    this.#waiting.length = 0;
    this.#request = undefined;
    this.#deadline?.abort();
    this.#modules.routes.ended(this.#facts.route, code);
    if (aborted !== undefined) {
      this.#aborted = aborted;
      this.#controller?.abort(aborted);
    }
    const dialogue = this.#dialogue;
    if (dialogue !== undefined) this.#work(() => dialogue.close());
    this.#settle();
  }

  /** Work that the call has not settled without. */
  #work(task: () => Promise<void>): void {
    this.#running += 1;
    const done = (): void => {
      this.#running -= 1;
      this.#settle();
    };
    task()
      .catch((error: unknown) => this.#unforeseen(error))
      .finally(done);
  }

  #unforeseen(error: unknown): void {
    if (!this.#over) this.fail(error);
    else if (!isAbort(error)) {
      const method = this.#facts.route.path;
      this.#modules.logger.debug({ err: error, method }, 'handler failed after its call ended');
    }
  }

  #settle(): void {
    if (!this.#over || this.#running > 0 || this.#settled) return;
    this.#settled = true;
    this.#facts.settled();
  }

  #observeAnswer(): void {
    if (this.#answered) return;
    this.#answered = true;
    const { routes, clock } = this.#modules;
    routes.answered(this.#facts.route, (clock.now_ms() - this.#started_ms) / 1000);
  }

  #runUnary(bytes: Uint8Array): void {
    const method = this.#facts.route.method as UnaryMethod<unknown, unknown>;
    const answer = (response: unknown): void => {
      if (this.#over) return;
      // The status follows at once: one message fits any queue, so nobody waits for it.
      void this.#port.send(method.encode(response));
      this.#observeAnswer();
      this.#succeed();
    };
    try {
      const response = method.handle(method.decode(bytes), this);
      if (response instanceof Promise) this.#work(async () => answer(await response));
      else answer(response);
    } catch (error) {
      this.fail(error);
    }
  }

  #runStream(bytes: Uint8Array, skipImmediate: boolean): void {
    const method = this.#facts.route.method as ServerStreamMethod<unknown, unknown>;
    try {
      const messages = skipImmediate ? undefined : method.immediate?.(bytes);
      if (messages !== undefined) {
        // Copies: they may have to wait, and the parts are lent.
        const copies = messages.map((parts) => Buffer.concat(parts));
        this.#work(() => this.#sendAll(copies, (copy) => copy));
        return;
      }
      const answers = method.handle(method.decode(bytes), this);
      this.#work(() => this.#sendAll(answers, method.encode));
    } catch (error) {
      this.fail(error);
    }
  }

  /** Sends all, the next one only when the client can take it, then the status. */
  async #sendAll<T>(
    answers: AsyncIterable<T> | Iterable<T>,
    encode: (answer: T) => Uint8Array,
  ): Promise<void> {
    for await (const answer of answers) {
      if (this.#over) return;
      await this.#port.send(encode(answer));
      if (this.#isOver()) return;
    }
    this.#succeed();
  }

  /** Answers what waits, one message after the other, then closes when the client has closed. */
  #converse(): void {
    const dialogue = this.#dialogue;
    if (this.#answering || this.#over || dialogue === undefined) return;
    if (this.#waiting.length === 0 && !this.#halfClosed) return;
    this.#answering = true;
    const method = this.#facts.route.method as DialogueMethod<unknown, unknown>;
    this.#work(async () => {
      for (;;) {
        const bytes = this.#waiting.shift();
        if (bytes === undefined) break;
        this.#port.taken();
        const { response, last } = await dialogue.answer(method.decode(bytes));
        // Before the answer, so that the credit for the client's next message leaves with it.
        this.#port.freed(bytes.length);
        if (this.#isOver()) return;
        this.#observeAnswer();
        const room = this.#port.send(method.encode(response));
        if (last) this.#succeed();
        else if (room !== undefined) await room;
        if (this.#isOver()) return;
      }
      this.#answering = false;
      if (this.#halfClosed) this.#succeed();
    });
  }

  /** Says again what may have changed during an await. */
  #isOver(): boolean {
    return this.#over;
  }

  #watchDeadline(): void {
    const { timeout_ms } = this.#facts;
    if (timeout_ms === undefined || timeout_ms > LONGEST_TIMEOUT_MS) return;
    const deadline = new AbortController();
    this.#deadline = deadline;
    this.#modules.clock.sleep(timeout_ms, { signal: deadline.signal }).then(
      () => this.fail(new DaemonError('deadline_exceeded', "the caller's deadline has passed")),
      () => undefined, // the call ended first
    );
  }
}
