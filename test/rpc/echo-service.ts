import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { DaemonError, type ErrorCode } from '../../src/base/errors.ts';
import { loadService } from '../../src/rpc/proto.ts';
import type { CallContext, Dialogue, MessageParts, ServiceTable } from '../../src/rpc/service.ts';

export type Message = { readonly text: string; readonly data: Buffer; readonly number: number };
export type CountRequest = { readonly count: number; readonly bytes: number };

const echo = loadService(
  'echo.proto',
  'layerswarm.test.Echo',
  fileURLToPath(new URL('.', import.meta.url)),
);

export const METHODS = {
  say: echo.method<Partial<Message>, Message>('Say'),
  count: echo.method<CountRequest, Message>('Count'),
  read: echo.method<CountRequest, Message>('Read'),
  talk: echo.method<Partial<Message>, Message>('Talk'),
};

const PAYLOAD = Buffer.alloc(64 * 1024 * 1024, 'payload of the echo service ');

/** What the handlers saw, and what tests hold them by. */
export class EchoService {
  /** Signals of the calls that wait ("hang"), by the order they came. */
  readonly hanging: AbortSignal[] = [];
  /** Releases a call that waits with text "gate". */
  readonly gate = Promise.withResolvers<undefined>();
  closedDialogues = 0;
  pulled = 0;
  immediate = 0;
  #waiters: (() => void)[] = [];

  /** Resolves at the next change of the fields above. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.changed();
  }

  #tell(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  table(): ServiceTable {
    return new Map([
      [
        METHODS.say.path,
        {
          kind: 'unary',
          ...METHODS.say,
          handle: (m: Message, call: CallContext) => this.#say(m, call),
        },
      ],
      [
        METHODS.count.path,
        { kind: 'server_stream', ...METHODS.count, handle: (r: CountRequest) => this.#count(r) },
      ],
      [
        METHODS.read.path,
        {
          kind: 'server_stream',
          ...METHODS.read,
          handle: (r: CountRequest) => this.#count(r),
          immediate: (request: Uint8Array) => this.#immediate(request),
        },
      ],
      [
        METHODS.talk.path,
        { kind: 'dialogue', ...METHODS.talk, open: (call: CallContext) => this.#open(call) },
      ],
    ]);
  }

  #say(message: Message, call: CallContext): Message | Promise<Message> {
    if (message.text.startsWith('fail:')) {
      throw new DaemonError(message.text.slice(5) as ErrorCode, 'said to fail: 100 % größer\n');
    }
    if (message.text === 'throw') throw new TypeError('a secret of the program');
    if (message.text === 'namespace') return { ...message, text: call.namespace };
    if (message.text === 'hang') return this.#hang(call);
    if (message.text === 'gate') {
      this.#hold(call);
      return this.gate.promise.then(() => message);
    }
    return message;
  }

  #hold(call: CallContext): void {
    this.hanging.push(call.signal);
    this.#tell();
  }

  async #hang(call: CallContext): Promise<never> {
    this.#hold(call);
    if (!call.signal.aborted) await once(call.signal, 'abort');
    this.#tell();
    throw call.signal.reason;
  }

  *#count({ count, bytes }: CountRequest): Iterable<Message> {
    for (let number = 0; number < count; number++) {
      this.pulled += 1;
      this.#tell();
      yield { text: '', data: PAYLOAD.subarray(0, bytes), number };
    }
  }

  /** `count` 1 and 2 are answered at once, 0 refused, anything else goes the ordinary way. */
  #immediate(request: Uint8Array): readonly MessageParts[] | undefined {
    const { count, bytes } = METHODS.read.decode(request);
    if (count === 0) throw new DaemonError('not_found', 'nothing to read');
    if (count > 2) return undefined;
    this.immediate += 1;
    const message = [Buffer.concat([Buffer.of(0x12), varint(bytes)]), PAYLOAD.subarray(0, bytes)];
    return Array.from({ length: count }, () => message);
  }

  #open(call: CallContext): Dialogue<Message, Message> {
    let before = 0;
    return {
      answer: async (message) => {
        if (message.text.startsWith('fail:')) {
          throw new DaemonError(message.text.slice(5) as ErrorCode, 'said to fail');
        }
        if (message.text === 'hang') return this.#hang(call);
        if (message.text === 'gate') {
          this.#hold(call);
          await this.gate.promise;
        }
        before += 1;
        const isSwallowed = message.text === 'gate' || message.text === 'swallow';
        return {
          response: { ...message, ...(isSwallowed && { data: Buffer.alloc(0) }), number: before },
          last: message.text === 'last',
        };
      },
      close: async () => {
        this.closedDialogues += 1;
        this.#tell();
      },
    };
  }
}

function varint(value: number): Buffer {
  const octets: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 128)) octets.push((value % 128) + 128);
  return Buffer.from([...octets, value]);
}
