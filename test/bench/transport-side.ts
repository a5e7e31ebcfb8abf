/** One of the two processes of `transport-cost.ts`: listens or dials, sends or receives and verifies. Not run by hand. */
import { strictEqual } from 'node:assert/strict';
import { createHash, type Hash } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { quic as stockQuic } from '@chainsafe/libp2p-quic';
import type { Connection, Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type Libp2p } from 'libp2p';
import type { QuicConfig } from '../../src/swarm/transport/quic/config.ts';
import { quic } from '../../src/swarm/transport/quic/transport.ts';

export type TransportKind = 'tls' | 'tls-write' | 'quic' | 'stock-quic' | 'tcp-tls' | 'tcp-noise';

export type SideOptions = {
  readonly role: 'listener' | 'dialer';
  readonly kind: TransportKind;
  readonly bytes: number;
  readonly chunk_bytes: number;
  readonly streams: number;
  /** The dialer sends; otherwise it receives. */
  readonly push: boolean;
  readonly quic: Partial<QuicConfig>;
  readonly address?: string;
};

export type ReadyMessage = { readonly address: string };
/** Seconds and CPU from the first byte to the last, without start-up and handshake. */
export type DoneMessage = {
  readonly seconds: number;
  readonly cpu_s: number;
  readonly peak_rss_mib: number;
};

const PROTOCOL = '/bench/1';

class Meter {
  readonly #started = performance.now();
  readonly #cpu = process.cpuUsage();

  done(): DoneMessage {
    const { user, system } = process.cpuUsage(this.#cpu);
    return {
      seconds: (performance.now() - this.#started) / 1000,
      cpu_s: (user + system) / 1e6,
      peak_rss_mib: process.resourceUsage().maxRSS / 1024,
    };
  }
}

/** The same bytes on both sides: several distinct buffers, so that nothing is served from one cached page. */
function buffers(chunkBytes: number): Buffer[] {
  return Array.from({ length: 8 }, (_, n) => {
    const seed = createHash('sha256').update(`buffer ${n}`).digest();
    return Buffer.alloc(chunkBytes, seed);
  });
}

function* source(bytes: number, chunkBytes: number): Generator<Buffer> {
  const ring = buffers(chunkBytes);
  for (let at = 0, n = 0; at < bytes; at += chunkBytes, n++) {
    yield ring[n % ring.length]!.subarray(0, Math.min(chunkBytes, bytes - at));
  }
}

function expected(bytes: number, chunkBytes: number): string {
  const hash = createHash('sha256');
  for (const chunk of source(bytes, chunkBytes)) hash.update(chunk);
  return hash.digest('hex');
}

class Verifier {
  readonly #hash: Hash = createHash('sha256');
  readonly #bytes: number;
  readonly #digest: string;
  #got = 0;

  constructor(options: SideOptions) {
    this.#bytes = options.bytes / options.streams;
    this.#digest = expected(this.#bytes, options.chunk_bytes);
  }

  /** True when the last byte came and the digest agrees. */
  add(bytes: Uint8Array): boolean {
    this.#hash.update(bytes);
    this.#got += bytes.byteLength;
    if (this.#got < this.#bytes) return false;
    strictEqual(
      this.#hash.digest('hex'),
      this.#digest,
      'the bytes that arrived are not those sent',
    );
    return true;
  }
}

function report(message: ReadyMessage | DoneMessage): void {
  process.send!(message);
}

// Raw TLS: a pre-shared key stands in for certificates; the bulk cipher is a TLS 1.3 one either way.
const PSK = Buffer.alloc(32, 7);
const TLS_OPTIONS = { ciphers: 'TLS_AES_128_GCM_SHA256', minVersion: 'TLSv1.3' } as const;

async function rawTls(options: SideOptions): Promise<void> {
  const sends = options.push === (options.role === 'dialer');
  const verifier = sends ? undefined : new Verifier(options);
  const socket = await tlsSocket(options);
  const meter = new Meter();
  if (verifier === undefined) {
    for (const chunk of source(options.bytes, options.chunk_bytes)) {
      if (!socket.write(chunk)) await once(socket, 'drain');
    }
    await once(socket, 'close');
  } else {
    await using file = options.kind === 'tls-write' ? await OutputFile.create() : undefined;
    await new Promise<void>((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        file?.add(chunk, socket);
        if (verifier.add(chunk)) resolve();
      });
    });
    await file?.finish();
    socket.destroy();
  }
  report(meter.done());
}

/** Bytes written behind the hash, 4 MiB at a time, and synced once: the least a receiver that keeps them must do. */
class OutputFile implements AsyncDisposable {
  readonly #directory: string;
  readonly #file: FileHandle;
  #parts: Buffer[] = [];
  #held = 0;
  #writes: Promise<unknown> = Promise.resolve();
  #writing = 0;

  private constructor(directory: string, file: FileHandle) {
    this.#directory = directory;
    this.#file = file;
  }

  static async create(): Promise<OutputFile> {
    const directory = await mkdtemp(join(tmpdir(), 'transport-'));
    return new OutputFile(directory, await open(join(directory, 'out'), 'wx'));
  }

  /** Takes the bytes; the socket pauses while the disk is four writes behind. */
  add(bytes: Buffer, socket: TLSSocket): void {
    this.#parts.push(bytes);
    this.#held += bytes.length;
    if (this.#held < 4 * 2 ** 20) return;
    this.#flush();
    if (this.#writing < 4) return;
    socket.pause();
    void this.#writes.then(() => socket.resume());
  }

  async finish(): Promise<void> {
    this.#flush();
    await this.#writes;
    await this.#file.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #flush(): void {
    const parts = this.#parts;
    this.#parts = [];
    this.#held = 0;
    this.#writing += 1;
    this.#writes = this.#writes.then(async () => {
      if (parts.length > 0) await this.#file.writev(parts);
      this.#writing -= 1;
    });
  }
}

async function tlsSocket(options: SideOptions): Promise<TLSSocket> {
  if (options.role === 'dialer') {
    const socket = connect({
      host: '127.0.0.1',
      port: Number(options.address),
      ...TLS_OPTIONS,
      pskCallback: () => ({ psk: PSK, identity: 'bench' }),
      checkServerIdentity: () => undefined,
    });
    await once(socket, 'secureConnect');
    socket.on('error', () => socket.destroy());
    return socket;
  }
  const server = createServer({ ...TLS_OPTIONS, pskCallback: () => PSK });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  report({ address: String((server.address() as AddressInfo).port) });
  const [socket] = (await once(server, 'secureConnection')) as [TLSSocket];
  socket.on('error', () => socket.destroy());
  return socket;
}

function libp2pNode({ kind, role, quic: config }: SideOptions): Promise<Libp2p> {
  const overUdp = kind === 'quic' || kind === 'stock-quic';
  const listen = overUdp ? '/ip4/127.0.0.1/udp/0/quic-v1' : '/ip4/127.0.0.1/tcp/0';
  const common = {
    addresses: { listen: role === 'listener' ? [listen] : [] },
    connectionMonitor: { enabled: false },
  };
  if (kind === 'quic') return createLibp2p({ ...common, transports: [quic(config)] });
  if (kind === 'stock-quic') return createLibp2p({ ...common, transports: [stockQuic()] });
  return createLibp2p({
    ...common,
    transports: [tcp()],
    connectionEncrypters: [kind === 'tcp-tls' ? tls() : noise()],
    streamMuxers: [yamux()],
  });
}

async function libp2pSide(options: SideOptions): Promise<void> {
  const sends = options.push === (options.role === 'dialer');
  const verifiers = Array.from(
    { length: sends ? 0 : options.streams },
    () => new Verifier(options),
  );
  const node = await libp2pNode(options);
  const streams = await openStreams(node, options);
  const meter = new Meter();
  await Promise.all(
    sends
      ? streams.map((stream) => sendAll(stream, options))
      : streams.map((stream, n) => receiveAll(stream, verifiers[n]!)),
  );
  report(meter.done());
}

async function openStreams(node: Libp2p, options: SideOptions): Promise<Stream[]> {
  if (options.role === 'dialer') {
    const connection: Connection = await node.dial(multiaddr(options.address));
    const opened: Stream[] = [];
    for (let n = 0; n < options.streams; n++) opened.push(await connection.newStream(PROTOCOL));
    return opened;
  }
  const arrived: Stream[] = [];
  const complete = new Promise<void>((resolve) => {
    void node.handle(PROTOCOL, (stream) => {
      arrived.push(stream);
      if (arrived.length === options.streams) resolve();
    });
  });
  report({ address: String(node.getMultiaddrs()[0]) });
  await complete;
  return arrived;
}

async function sendAll(stream: Stream, options: SideOptions): Promise<void> {
  // The receiver says with one byte that it is ready, and with another that all has arrived.
  await nextByte(stream);
  const verified = nextByte(stream);
  for (const chunk of source(options.bytes / options.streams, options.chunk_bytes)) {
    if (stream.send(chunk)) continue;
    // The event, not onDrain(): libp2p's own returns at once from its second use on.
    await new Promise((resolve) => stream.addEventListener('drain', resolve, { once: true }));
  }
  await verified;
}

function nextByte(stream: Stream): Promise<unknown> {
  return new Promise((resolve) => stream.addEventListener('message', resolve, { once: true }));
}

async function receiveAll(stream: Stream, verifier: Verifier): Promise<void> {
  const verified = new Promise<void>((resolve, reject) => {
    stream.addEventListener('close', ({ error }) => reject(error ?? new Error('cut short')));
    stream.addEventListener('message', ({ data }) => {
      for (const part of data instanceof Uint8Array ? [data] : data) {
        if (verifier.add(part)) resolve();
      }
    });
  });
  stream.send(Uint8Array.of(1));
  await verified;
  stream.send(Uint8Array.of(2));
}

const options = JSON.parse(process.argv[2]!) as SideOptions;
await (options.kind === 'tls' || options.kind === 'tls-write'
  ? rawTls(options)
  : libp2pSide(options));
