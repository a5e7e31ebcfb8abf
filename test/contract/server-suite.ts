import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Client, type ClientDuplexStream, credentials, Metadata } from '@grpc/grpc-js';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { hasCode } from '../../src/base/errors.ts';
import { connect, type RpcClient } from '../../src/rpc/client.ts';
import { type Listening, listen } from '../../src/rpc/listen.ts';
import type { MethodCodec } from '../../src/rpc/proto.ts';
import { STATUS } from '../../src/rpc/status.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';
import { EchoService, type Message, METHODS } from '../rpc/echo-service.ts';

export type ServerKind = 'h2' | 'grpc-js';

/** No call of the suite takes this long: it ends a test that would hang. */
const LONG = { deadline_ms: 20_000 };
const MIB = 1024 * 1024;

/** A server on a socket of its own, with a client; disposing it leaves nothing behind. */
export class Bench implements AsyncDisposable {
  readonly echo = new EchoService();
  readonly logger = new MemoryLogger();
  readonly register = new MemoryRegister();
  readonly directory = mkdtempSync(`${tmpdir()}/rpc-`);
  readonly path = `${this.directory}/s.sock`;
  readonly #stack = new AsyncDisposableStack();
  listening!: Listening;
  client!: RpcClient;
  raw!: Client;

  static async start(server: ServerKind, clock: Clock = systemClock): Promise<Bench> {
    const bench = new Bench();
    bench.#stack.defer(() => rmSync(bench.directory, { recursive: true, force: true }));
    const { echo, logger, register, path } = bench;
    bench.listening = bench.#stack.use(
      await listen({ table: echo.table(), logger, register, server, clock }, { socket_path: path }),
    );
    bench.client = bench.#stack.use(await connect(path));
    bench.raw = bench.#stack.adopt(
      new Client(`unix:${path}`, credentials.createInsecure(), {
        'grpc.max_receive_message_length': -1,
        'grpc.use_local_subchannel_pool': 1,
      }),
      (client) => client.close(),
    );
    return bench;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  talk(): Talk {
    const { path, encodeRequest, decodeResponse } = METHODS.talk;
    return new Talk(
      this.raw.makeBidiStreamRequest<Partial<Message>, Message>(
        path,
        (message) => Buffer.from(encodeRequest(message)),
        decodeResponse,
        new Metadata(),
        { deadline: Date.now() + LONG.deadline_ms },
      ),
    );
  }
}

type TalkStream = ClientDuplexStream<Partial<Message>, Message>;

/** One open dialogue, from the client's side. */
export class Talk {
  readonly stream: TalkStream;
  /** The code of the status the stream ended with. */
  readonly ended: Promise<number>;

  constructor(stream: TalkStream) {
    this.stream = stream;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise;
    stream.on('status', ({ code }: { code: number }) => resolve(code));
    stream.on('error', () => undefined);
  }

  async ask(message: Partial<Message>): Promise<Message> {
    const answered = once(this.stream, 'data');
    this.stream.write(message);
    const [answer] = (await answered) as [Message];
    return answer;
  }
}

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of stream) all.push(item);
  return all;
}

/** What every server of a ServiceTable does. */
export function serverSuite(server: ServerKind): void {
  const it = (name: string, body: (bench: Bench) => Promise<void>, clock?: Clock): void => {
    test(`${server}: ${name}`, async () => {
      await using bench = await Bench.start(server, clock);
      await body(bench);
    });
  };

  it('a unary call is answered, with the namespace of its header', async ({ client, raw }) => {
    const answer = await client.unary(METHODS.say, { text: 'hello', number: 2 ** 40 }, LONG);
    assert.deepEqual(answer, { text: 'hello', data: Buffer.alloc(0), number: 2 ** 40 });
    const metadata = new Metadata();
    metadata.set('containerd-namespace', 'k8s.io');
    const said = await rawUnary(raw, METHODS.say, { text: 'namespace' }, metadata);
    assert.equal(said.text, 'k8s.io');
  });

  it('every error code reaches the client as its gRPC status, message included', async (bench) => {
    for (const [code, { grpc }] of Object.entries(STATUS)) {
      await assert.rejects(bench.client.unary(METHODS.say, { text: `fail:${code}` }, LONG), {
        facts: { grpc_code: grpc },
        message: 'said to fail: 100 % größer\n',
      });
    }
    assert.equal(
      bench.register.value('rpc_calls_total', { method: METHODS.say.path, code: 'data_loss' }),
      1,
    );
  });

  it('an unforeseen error shows the client an id, and the log the text', async (bench) => {
    await assert.rejects(bench.client.unary(METHODS.say, { text: 'throw' }, LONG), (error) => {
      assert.ok(hasCode(error, 'internal'));
      const [, id] = /id=(\w+)/.exec(error.message) ?? [];
      assert.doesNotMatch(error.message, /secret/);
      const line = bench.logger.lines.find(({ level }) => level === 'error');
      assert.equal((line?.facts as { id: string }).id, id);
      return true;
    });
  });

  it('malformed requests and unsafe integers are invalid_argument', async ({ raw }) => {
    const asBytes = {
      ...METHODS.say,
      encodeRequest: (bytes: Uint8Array) => bytes,
    };
    const tooLarge = Buffer.from('18ffffffffffffffff7f', 'hex');
    for (const bytes of [Buffer.from('0aff', 'hex'), tooLarge]) {
      await assert.rejects(rawUnary(raw, asBytes, bytes), { code: 3 });
    }
  });

  it('a method that is not in the table is unimplemented', async ({ raw }) => {
    const codec = { ...METHODS.say, path: '/layerswarm.test.Echo/Nothing' };
    await assert.rejects(rawUnary(raw, codec, { text: '' }), { code: 12 });
  });

  it('a server stream arrives whole and in order', async ({ client }) => {
    const all = await collect(client.stream(METHODS.count, { count: 100, bytes: 30_000 }, LONG));
    assert.deepEqual(
      all.map(({ number, data }) => [number, data.length]),
      Array.from({ length: 100 }, (_, i) => [i, 30_000]),
    );
    assert.deepEqual(await collect(client.stream(METHODS.count, { count: 0, bytes: 0 }, LONG)), []);
  });

  it('a server stream is pulled no further than its client reads', async ({ client, echo }) => {
    const answers = client.stream(METHODS.count, { count: 500, bytes: MIB }, LONG);
    const iterator = answers[Symbol.asyncIterator]();
    await iterator.next();
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(echo.pulled < 100, `pulled ${echo.pulled} of 500 messages`);
    await iterator.return?.();
  });

  it('the immediate path gives the same answers and errors as the ordinary one', async (bench) => {
    const { client, echo } = bench;
    for (const bytes of [0, 1, 32_768, 3 * MIB]) {
      for (const count of [1, 2]) {
        const answers = await collect(client.stream(METHODS.read, { count, bytes }, LONG));
        const lengths = answers.map(({ data }) => data.length);
        assert.deepEqual(
          lengths,
          Array.from({ length: count }, () => bytes),
        );
      }
    }
    assert.equal(
      (await collect(client.stream(METHODS.read, { count: 3, bytes: 5 }, LONG))).length,
      3,
    );
    await assert.rejects(collect(client.stream(METHODS.read, { count: 0, bytes: 0 }, LONG)), {
      code: 'not_found',
    });
    assert.equal(echo.immediate, 8);
  });

  it('immediate answers asked for at once all arrive, whatever the windows', async ({ client }) => {
    const reads = Array.from({ length: 60 }, (_, i) =>
      collect(client.stream(METHODS.read, { count: 2, bytes: 100_000 + i }, LONG)),
    );
    const lengths = (await Promise.all(reads)).map((all) => all.map(({ data }) => data.length));
    assert.deepEqual(
      lengths,
      Array.from({ length: 60 }, (_, i) => [100_000 + i, 100_000 + i]),
    );
  });

  it('messages of 8 and of 16 MiB pass both ways', async ({ raw }) => {
    for (const size of [8 * MIB, 16 * MIB]) {
      const data = Buffer.alloc(size, 'x');
      const answer = await rawUnary(raw, METHODS.say, { data });
      assert.ok(answer.data.equals(data));
    }
  });

  it('a message beyond the limit is resource_exhausted', async ({ raw }) => {
    await assert.rejects(rawUnary(raw, METHODS.say, { data: Buffer.alloc(17 * MIB) }), { code: 8 });
  });

  it('a dialogue answers each message and ends in order with its client', async (bench) => {
    const talk = bench.talk();
    for (let i = 1; i <= 5; i++) assert.equal((await talk.ask({ text: 'on' })).number, i);
    talk.stream.end();
    assert.equal(await talk.ended, 0);
    await bench.echo.until(() => bench.echo.closedDialogues === 1);
  });

  it('a dialogue ends with OK after its last answer', async (bench) => {
    const talk = bench.talk();
    assert.equal((await talk.ask({ text: 'last' })).text, 'last');
    assert.equal(await talk.ended, 0);
    assert.equal(bench.echo.closedDialogues, 1);
  });

  it('a dialogue whose answer is rejected ends with the mapped status', async (bench) => {
    const talk = bench.talk();
    await talk.ask({ text: 'fine' });
    talk.stream.write({ text: 'fail:out_of_range' });
    assert.equal(await talk.ended, 11);
    await bench.echo.until(() => bench.echo.closedDialogues === 1);
  });

  it('a client that closes while an answer waits still gets it', async (bench) => {
    const talk = bench.talk();
    const answered = talk.ask({ text: 'gate' });
    await bench.echo.until(() => bench.echo.hanging.length === 1);
    talk.stream.end();
    bench.echo.gate.resolve(undefined);
    assert.equal((await answered).text, 'gate');
    assert.equal(await talk.ended, 0);
    assert.equal(bench.echo.hanging[0]?.aborted, false);
  });

  it('twenty dialogues with 1 MiB messages run beside each other', async (bench) => {
    const data = Buffer.alloc(MIB, 'd');
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const talk = bench.talk();
        for (let i = 1; i <= 4; i++) {
          const answer = await talk.ask({ data });
          assert.equal(answer.number, i);
          assert.equal(answer.data.length, MIB);
        }
        talk.stream.end();
        assert.equal(await talk.ended, 0);
      }),
    );
  });

  it('a client that cancels is seen by the signal, and the dialogue is closed', async (bench) => {
    const { echo } = bench;
    const talk = bench.talk();
    talk.stream.write({ text: 'hang' });
    await echo.until(() => echo.hanging.length === 1);
    talk.stream.cancel();
    await echo.until(() => echo.hanging[0]?.aborted === true && echo.closedDialogues === 1);
    assert.ok(hasCode(echo.hanging[0]?.reason, 'cancelled'));
  });

  it('a connection that ends is seen by the signals of its calls', async (bench) => {
    const { echo } = bench;
    const stop = new AbortController();
    const hung = bench.client.unary(
      METHODS.say,
      { text: 'hang' },
      { ...LONG, signal: stop.signal },
    );
    await echo.until(() => echo.hanging.length === 1);
    const talk = bench.talk();
    talk.stream.write({ text: 'hang' });
    await echo.until(() => echo.hanging.length === 2);
    stop.abort();
    await assert.rejects(hung, { code: 'cancelled' });
    bench.raw.close();
    talk.stream.cancel();
    await echo.until(() => echo.hanging.every(({ aborted }) => aborted));
  });

  it("a caller's deadline ends the call and aborts its handler", async ({ client, echo }) => {
    await assert.rejects(client.unary(METHODS.say, { text: 'hang' }, { deadline_ms: 30 }), {
      code: 'deadline_exceeded',
    });
    await echo.until(() => echo.hanging[0]?.aborted === true);
  });

  it('becomes quiet when the calls under way end, and serves all the time until then', async (bench) => {
    const said = bench.client.unary(METHODS.say, { text: 'gate' }, LONG);
    await bench.echo.until(() => bench.echo.hanging.length === 1);
    const quiet = bench.listening.quiet(20_000);
    using newcomer = await connect(bench.path);
    const answer = await newcomer.unary(METHODS.say, { text: 'meanwhile' }, LONG);
    assert.equal(answer.text, 'meanwhile');
    bench.echo.gate.resolve(undefined);
    assert.equal((await said).text, 'gate');
    assert.equal(await quiet, true);
    assert.equal((await newcomer.unary(METHODS.say, { text: 'after' }, LONG)).text, 'after');
  });

  it('a call that does not end keeps it from being quiet', async (bench) => {
    const talk = bench.talk();
    talk.stream.write({ text: 'hang' });
    await bench.echo.until(() => bench.echo.hanging.length === 1);
    assert.equal(await bench.listening.quiet(1), false);
  });

  // A clock that stands still: the drain ends when calls and connections are over, or never.
  it(
    'a drain loses no call under way, and takes no connection any more',
    async (bench) => {
      const said = bench.client.unary(METHODS.say, { text: 'gate' }, LONG);
      const talk = bench.talk();
      const answered = talk.ask({ text: 'gate' });
      await bench.echo.until(() => bench.echo.hanging.length === 2);
      const drained = bench.listening.drain(20_000);
      bench.echo.gate.resolve(undefined);
      assert.equal((await said).text, 'gate');
      assert.equal((await answered).text, 'gate');
      talk.stream.end();
      assert.equal(await talk.ended, 0);
      bench.raw.close();
      await drained;
      await assert.rejects(connect(bench.path), { code: 'unavailable' });
    },
    new FakeClock(),
  );

  it('calls that outlast the drain end with unavailable, their handlers are told', async (bench) => {
    const talk = bench.talk();
    talk.stream.write({ text: 'hang' });
    await bench.echo.until(() => bench.echo.hanging.length === 1);
    await bench.listening.drain(1);
    assert.equal(await talk.ended, 14);
    assert.equal(bench.echo.hanging[0]?.aborted, true);
    assert.equal(bench.echo.closedDialogues, 1);
  });
}

/** A unary call through grpc-js itself, for what RpcClient does not offer. */
function rawUnary<Req, Res>(
  client: Client,
  codec: Pick<MethodCodec<Req, Res>, 'path' | 'encodeRequest' | 'decodeResponse'>,
  request: Req,
  metadata = new Metadata(),
): Promise<Res> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest<Req, Res>(
      codec.path,
      (message) => Buffer.from(codec.encodeRequest(message)),
      codec.decodeResponse,
      request,
      metadata,
      { deadline: Date.now() + LONG.deadline_ms },
      (error, response) => {
        if (error === null) resolve(response as Res);
        else reject(error);
      },
    );
  });
}
