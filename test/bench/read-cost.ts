/**
 * Server CPU per 32 KiB Read: grpc-js, node:http2 and our own HTTP/2 server, on a unix socket, each in a process of its
 * own and asked by one client process.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import { connect as netConnect } from 'node:net';
import { tmpdir } from 'node:os';
import { PrometheusRegister } from '../../src/ops/register.ts';
import { listen } from '../../src/rpc/listen.ts';
import type { MessageParts, ServiceTable } from '../../src/rpc/service.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { RUN_PREFIX } from '../host/lab/residue.ts';
import type { BenchContext } from './part.ts';
import { median, type Row, row } from './row.ts';

const PATH = '/layerswarm.bench.Blobs/Read';
const READ_BYTES = 32 * 1024;
const SERVERS = ['grpc-js', 'node-http2', 'h2'] as const;
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
function read(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': PATH,
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
      if (bytes === READ_BYTES + 2 * (MESSAGE_HEAD.length + PREFIX_BYTES)) resolve();
      else reject(new Error(`answer of ${bytes} bytes`));
    });
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32BE(REQUEST.length, 1);
    stream.end(Buffer.concat([prefix, REQUEST]));
  });
}

async function cpuOf(server: ChildProcess): Promise<number> {
  const answered = once(server, 'message');
  server.send('cpu');
  const [cpu] = (await answered) as [Cpu];
  return cpu.user + cpu.system;
}

async function measure(kind: ServerKind, path: string, calls: number): Promise<number> {
  const server = fork(import.meta.filename, ['--serve', kind, path]);
  try {
    await once(server, 'message');
    const session = connectHttp2('http://localhost', {
      createConnection: () => netConnect(path),
      settings: { initialWindowSize: 1 << 20 },
    });
    for (let i = 0; i < 500; i++) await read(session);
    const before = await cpuOf(server);
    for (let i = 0; i < calls; i++) await read(session);
    const used = (await cpuOf(server)) - before;
    session.destroy();
    return used / calls;
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
}

/** Medians of three interleaved rounds. */
export async function readCostRows({ scope, quick }: BenchContext): Promise<Row[]> {
  const calls = quick ? 3000 : 8000;
  const directory = await mkdtemp(`${tmpdir()}/${RUN_PREFIX}read-`);
  scope.defer(() => rm(directory, { recursive: true, force: true }));
  const figures = new Map<ServerKind, number[]>(SERVERS.map((kind) => [kind, []]));
  for (let round = 0; round < 3; round++) {
    for (const kind of SERVERS) {
      const us = await measure(kind, `${directory}/${kind}-${round}.sock`, calls);
      figures.get(kind)!.push(us);
    }
  }
  const cost = (kind: ServerKind): number => median(figures.get(kind)!);
  const against = { name: 'node:http2', value: cost('node-http2') };
  return [
    row('32 KiB Read, node:http2', against.value, 'us CPU'),
    row('32 KiB Read, grpc-js', cost('grpc-js'), 'us CPU', { against }),
    row('32 KiB Read, our h2', cost('h2'), 'us CPU', { against }),
  ];
}

if (process.argv[2] === '--serve') {
  await serve(process.argv[3] as ServerKind, String(process.argv[4]));
}
