import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

/** A request as it arrived. */
export type Asked = {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
};

/** Answers a request itself and returns true, or leaves it to the registry. */
export type Behaviour = (asked: Asked, response: ServerResponse) => boolean | Promise<boolean>;

/**
 * A registry of one process: manifests and blobs from memory, ranges honoured, and a behaviour in front that a test sets. Plain HTTP on
 * a port of its own on loopback.
 */
export class RegistryServer implements AsyncDisposable {
  /** `127.0.0.1:port`. */
  readonly address: string;
  /** Everything that was asked, in order. */
  readonly asked: Asked[] = [];
  /** Connections that were made. */
  connections = 0;
  behaviour: Behaviour = () => false;
  readonly #blobs = new Map<string, Buffer>();
  readonly #manifests = new Map<string, { readonly bytes: Buffer; readonly type: string }>();
  readonly #sockets = new Set<Socket>();
  readonly #server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#handle(request, response));
    this.#server.on('connection', (socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => undefined);
    });
    this.#server.listen(0, '127.0.0.1');
    this.address = '';
  }

  /** Resolves when it listens. */
  static async start(): Promise<RegistryServer> {
    const server = new RegistryServer();
    if (!server.#server.listening) {
      await new Promise((resolve) => server.#server.once('listening', resolve));
    }
    const { port } = server.#server.address() as AddressInfo;
    Object.assign(server, { address: `127.0.0.1:${port}` });
    return server;
  }

  /** Paths that were asked for, without their queries. */
  get paths(): string[] {
    return this.asked.map(({ url }) => url.split('?')[0]!);
  }

  /** Keeps a blob; resolves to its digest. */
  addBlob(bytes: Uint8Array): string {
    const digest = digestOf(bytes);
    this.#blobs.set(digest, Buffer.from(bytes));
    return digest;
  }

  /** Keeps a manifest or index under its digest and a tag. */
  addManifest(tag: string, value: object, type = 'application/vnd.oci.image.manifest.v1+json') {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = digestOf(bytes);
    for (const key of [tag, digest]) this.#manifests.set(key, { bytes, type });
    return { digest, size: bytes.length, mediaType: type };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const { method = '', url = '', headers } = request;
    const asked = { method, url, headers, body: Buffer.concat(parts).toString('utf8') };
    this.asked.push(asked);
    response.on('error', () => undefined);
    if (await this.behaviour(asked, response)) return;
    const match = /^\/v2\/(.+)\/(blobs|manifests)\/([^/?]+)/.exec(url);
    const name = match?.[3] ?? '';
    if (match?.[2] === 'manifests') this.#manifest(name, response);
    else this.blob(name, headers.range, response);
  }

  #manifest(name: string, response: ServerResponse): void {
    const found = this.#manifests.get(name);
    if (found === undefined) {
      response.writeHead(404).end('{}');
      return;
    }
    const { bytes, type } = found;
    const length = bytes.length;
    response.writeHead(200, { 'content-type': type, 'content-length': length }).end(bytes);
  }

  /** Answers for a blob as a good registry does. */
  blob(digest: string, range: string | undefined, response: ServerResponse): void {
    const bytes = this.#blobs.get(digest);
    if (bytes === undefined) {
      response.writeHead(404).end('{}');
      return;
    }
    const wanted = /^bytes=(\d+)-(\d+)$/.exec(range ?? '');
    if (wanted === null) {
      response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
      return;
    }
    const first = Number(wanted[1]);
    const last = Math.min(Number(wanted[2]), bytes.length - 1);
    if (first > last) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
      return;
    }
    response.writeHead(206, partHeaders(first, last, bytes.length));
    response.end(bytes.subarray(first, last + 1));
  }
}

/** Headers of a 206. */
export function partHeaders(first: number, last: number, size: number) {
  return {
    'content-range': `bytes ${first}-${last}/${size}`,
    'content-length': last - first + 1,
  };
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
