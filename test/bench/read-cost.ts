/**
 * Server CPU per 32 KiB Read: grpc-js, node:http2 and our own HTTP/2 server, on a unix socket, each in a process of its
 * own and asked by one client process; then the daemon with its store behind them.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import { connect as netConnect } from 'node:net';
import { join } from 'node:path';
import type { ReadRequest } from '../../src/content/messages.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { listen } from '../../src/rpc/listen.ts';
import { loadService } from '../../src/rpc/proto.ts';
import type { MessageParts, ServiceTable } from '../../src/rpc/service.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { BenchDaemon, BenchDirectory } from './bench-daemon.ts';
import { type BlobFile, makeBlob } from './blob-file.ts';
import type { BenchContext } from './part.ts';
import { cpuSeconds } from './process-cost.ts';
import { median, type Row, row } from './row.ts';

const PATH = '/layerswarm.bench.Blobs/Read';
const READ_BYTES = 32 * 1024;
const SERVERS = ['grpc-js', 'node-http2', 'h2'] as const;
/** The two that the daemon can have. */
const DOORS = ['h2', 'grpc-js'] as const;
/** Read within the page cache; the daemon reads ahead a megabyte at a time. */
const BLOB_BYTES = 32 * 2 ** 20;
const CONTENT = loadService(
  'containerd/services/content/v1/content.proto',
  'containerd.services.content.v1.Content',
);
type ServerKind = (typeof SERVERS)[number];
type Cpu = { readonly user: number; readonly system: number };

/** `data = 1` of a ReadContentResponse-like message: tag and length, then the view of a blob's bytes. */
const MESSAGE_HEAD = Buffer.from([0x12, 0x80, 0x80, 0x01]);
const BLOB = Buffer.alloc(READ_BYTES * 64, 'layer');
/** A request as containerd makes it: a digest and two numbers. */
const REQUEST = Buffer.concat([
  Buffer.from([0x0a, 71]),
  Buffer.from(`sha256:${'a'.repeat(64)}`),
  Buffer.from([0x10, 0x80, 0x80, 0x80, 0x10, 0x18, 0x80, 0x80, 0x02]),
]);

/** gRPC's prefix of a message. */
const PREFIX_BYTES = 5;

type ReadCall = {
  readonly path: string;
  readonly request: Uint8Array;
  /** Of the answer, when it is whole. */
  readonly least_bytes: number;
};
const STUB_CALL: ReadCall = {
  path: PATH,
  request: REQUEST,
  least_bytes: READ_BYTES + 2 * (MESSAGE_HEAD.length + PREFIX_BYTES),
};

let turn = 0;

/** As the content door answers a Read: two messages of half the size. */
function readMessages(): readonly MessageParts[] {
  turn = (turn + 1) % 64;
  const start = turn * READ_BYTES;
  const middle = start + READ_BYTES / 2;
  return [
    [MESSAGE_HEAD, BLOB.subarray(start, middle)],
    [MESSAGE_HEAD, BLOB.subarray(middle, start + READ_BYTES)],
  ];
}

const table: ServiceTable = new Map([
  [
    PATH,
    {
      kind: 'server_stream',
      decode: (bytes: Uint8Array) => bytes,
      encode: (bytes: Uint8Array) => bytes,
      handle: () => readMessages().map((parts) => Buffer.concat(parts)),
      immediate: () => readMessages(),
    },
  ],
]);

/** The least that node:http2 can do: one write of the whole message, then trailers. */
function serveHttp2(stream: ServerHttp2Stream): void {
  stream.on('error', () => undefined);
  stream.once('data', () => {
    stream.respond(
      { ':status': 200, 'content-type': 'application/grpc' },
      { waitForTrailers: true },
    );
    stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32BE(READ_BYTES / 2 + MESSAGE_HEAD.length, 1);
    stream.end(Buffer.concat(readMessages().flatMap((parts) => [prefix, ...parts])));
  });
}

async function serve(kind: ServerKind, path: string): Promise<void> {
  if (kind === 'node-http2') {
    createHttp2Server().on('stream', serveHttp2).listen(path);
  } else {
    await listen(
      { table, logger: new MemoryLogger(), register: new PrometheusRegister(), server: kind },
      { socket_path: path },
    );
  }
  process.on('message', () => process.send?.(process.cpuUsage()));
  process.send?.(process.cpuUsage());
}

/** One call in the least a client can do; the figures are the server's, the client only has to be quick. */
function read(session: ClientHttp2Session, call: ReadCall): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': call.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      'containerd-namespace': 'k8s.io',
    });
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    stream.on('error', reject);
    stream.on('end', () => {
      if (bytes >= call.least_bytes) resolve();
      else reject(new Error(`answer of ${bytes} bytes`));
    });
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32BE(call.request.length, 1);
    stream.end(Buffer.concat([prefix, call.request]));
  });
}

async function cpuOf(server: ChildProcess): Promise<number> {
  const answered = once(server, 'message');
  server.send('cpu');
  const [cpu] = (await answered) as [Cpu];
  return cpu.user + cpu.system;
}

function sessionOf(path: string): ClientHttp2Session {
  return connectHttp2('http://localhost', {
    createConnection: () => netConnect(path),
    settings: { initialWindowSize: 1 << 20 },
  });
}

/** CPU of the whole daemon per Read, in microseconds: a blob of its store is read from its first byte on, again and again. */
async function measureDaemon(daemon: BenchDaemon, blob: BlobFile, calls: number): Promise<number> {
  const session = sessionOf(daemon.socket);
  const method = CONTENT.method<ReadRequest, object>('Read');
  const blocks = Math.floor(blob.size_bytes / READ_BYTES);
  const ask = (n: number): Promise<void> => {
    const offset = (n % blocks) * READ_BYTES;
    const request = method.encodeRequest({ digest: blob.digest, offset, size: READ_BYTES });
    return read(session, { path: method.path, request, least_bytes: READ_BYTES });
  };
  for (let n = 0; n < blocks; n++) await ask(n);
  const before = await cpuSeconds(daemon.pid);
  for (let n = 0; n < calls; n++) await ask(n);
  const used_s = (await cpuSeconds(daemon.pid)) - before;
  session.destroy();
  return (used_s * 1e6) / calls;
}

async function measure(kind: ServerKind, path: string, calls: number): Promise<number> {
  const server = fork(import.meta.filename, ['--serve', kind, path]);
  try {
    await once(server, 'message');
    const session = sessionOf(path);
    for (let i = 0; i < 500; i++) await read(session, STUB_CALL);
    const before = await cpuOf(server);
    for (let i = 0; i < calls; i++) await read(session, STUB_CALL);
    const used = (await cpuOf(server)) - before;
    session.destroy();
    return used / calls;
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
}

/** Medians of three interleaved rounds: each server over a stub, and the daemon with its store. */
export async function readCostRows({ scope, quick }: BenchContext): Promise<Row[]> {
  const calls = quick ? 3000 : 8000;
  const directory = scope.use(await BenchDirectory.create());
  const blob = await makeBlob(directory.path, BLOB_BYTES);
  const daemons = new Map<(typeof DOORS)[number], BenchDaemon>();
  for (const server of DOORS) {
    const options = { name: server, server, swarm: false, blobs: [blob] };
    daemons.set(server, scope.use(await BenchDaemon.start(directory, options)));
  }
  const figures = new Map<string, number[]>();
  const found = (name: string, us: number): void => {
    figures.set(name, [...(figures.get(name) ?? []), us]);
  };
  for (let round = 0; round < 3; round++) {
    for (const kind of SERVERS) {
      found(kind, await measure(kind, join(directory.path, `${kind}-${round}.sock`), calls));
    }
    for (const [server, daemon] of daemons) {
      found(`daemon ${server}`, await measureDaemon(daemon, blob, calls));
    }
  }
  const cost = (name: string): number => median(figures.get(name)!);
  const against = { name: 'node:http2 over a stub', value: cost('node-http2') };
  const stub = { name: 'our h2 over a stub', value: cost('h2') };
  return [
    row('32 KiB Read of a stub, node:http2', against.value, 'us CPU'),
    row('32 KiB Read of a stub, grpc-js', cost('grpc-js'), 'us CPU', { against }),
    row('32 KiB Read of a stub, our h2', stub.value, 'us CPU', { against }),
    row('32 KiB Read of the daemon, our h2 and the store', cost('daemon h2'), 'us CPU', {
      against: stub,
    }),
    row('32 KiB Read of the daemon, grpc-js and the store', cost('daemon grpc-js'), 'us CPU', {
      against: stub,
    }),
  ];
}

if (process.argv[2] === '--serve') {
  await serve(process.argv[3] as ServerKind, String(process.argv[4]));
}
