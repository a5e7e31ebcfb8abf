// The oracle of what containerd really has: every byte read back through its own Content API. `ctr content ls` and
// `image ls` read containerd's database only, and the disk of the store shows only what is there.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { Metadata, credentials, loadPackageDefinition } from '@grpc/grpc-js';
import type { Client, ClientReadableStream, ServiceClientConstructor } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { TestImage } from '../../fixtures/image.ts';
import type { CommandResult } from './run-command.ts';

/** Longest time of one list or one blob, in ms. */
const DEADLINE_MS = 30_000;
/** Blobs read at the same time. */
const READERS = 4;

/** A containerd as the oracle asks it; a `LabContainerd` is one. */
export interface AskedContainerd {
  readonly socket: string;
  ctr(args: readonly string[]): Promise<CommandResult>;
}

/** A blob containerd's database knows and that cannot be read, or not as what its digest says. */
export interface BrokenBlob {
  readonly namespace: string;
  readonly digest: string;
  /** What reading it gave instead, e.g. `5 NOT_FOUND: ...` or `hash sha256:...`. */
  readonly why: string;
}

interface BlobRow {
  readonly digest: string;
  readonly size: number;
}

type Call = (request: object, metadata: Metadata, options: object) => ClientReadableStream<unknown>;

const proto = loadSync('containerd/services/content/v1/content.proto', {
  includeDirs: [resolve(import.meta.dirname, '../../../proto')],
  keepCase: false,
  longs: Number,
  defaults: true,
});
const { Content } = (
  loadPackageDefinition(proto)['containerd'] as unknown as {
    services: { content: { v1: { Content: ServiceClientConstructor } } };
  }
).services.content.v1;

/**
 * Lists the blobs of every namespace in containerd's database and reads all their bytes through containerd; resolves to the
 * ones that are missing, of another size or of another hash. Empty = everything containerd promises is there and right.
 */
export async function readEveryBlob(containerd: AskedContainerd): Promise<readonly BrokenBlob[]> {
  const { stdout } = await containerd.ctr(['namespaces', 'ls', '--quiet']);
  using door = new ContentDoor(containerd.socket);
  const broken: BrokenBlob[] = [];
  for (const namespace of stdout.split('\n').filter((line) => line !== '')) {
    const found = await door.broken(namespace, await door.list(namespace));
    // containerd's collection may have taken a blob, from its database first, between the list and the read.
    const known = new Set(found.length > 0 ? (await door.list(namespace)).map(digestOf) : []);
    broken.push(...found.filter((blob) => known.has(blob.digest)));
  }
  return broken;
}

/**
 * Asserts that containerd of `node` has every blob of `image` in `namespace`, and that each one read through containerd has
 * exactly the fixture's bytes.
 */
export async function assertImageReadable(
  node: { readonly containerd: AskedContainerd },
  image: TestImage,
  namespace = 'default',
): Promise<void> {
  using door = new ContentDoor(node.containerd.socket);
  const rows = [image.target, image.manifest, image.config, ...image.layers];
  const wanted = [...new Map(rows.map((row) => [row.digest, row])).values()];
  assert.deepEqual(await door.broken(namespace, wanted), [], `blobs of ${namespace}`);
}

function digestOf(blob: { readonly digest: string }): string {
  return blob.digest;
}

/** One connection to containerd's Content service. */
class ContentDoor implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    // The socket of a containerd that was just started again must not be found in grpc-js's pool of dead channels.
    const options = { 'grpc.use_local_subchannel_pool': 1 };
    this.#client = new Content(`unix://${socket}`, credentials.createInsecure(), options);
  }

  async list(namespace: string): Promise<readonly BlobRow[]> {
    const rows: BlobRow[] = [];
    for await (const { info } of this.#answers('list', namespace, {}))
      rows.push(...(info as readonly BlobRow[]));
    return rows;
  }

  async broken(namespace: string, rows: readonly BlobRow[]): Promise<readonly BrokenBlob[]> {
    const queue = [...rows];
    const found: BrokenBlob[] = [];
    const reader = async (): Promise<void> => {
      for (let row = queue.pop(); row !== undefined; row = queue.pop()) {
        const why = await this.#fault(namespace, row);
        if (why !== undefined) found.push({ namespace, digest: row.digest, why });
      }
    };
    await Promise.all(Array.from({ length: READERS }, reader));
    return found;
  }

  async #fault(namespace: string, { digest, size }: BlobRow): Promise<string | undefined> {
    const [algorithm = ''] = digest.split(':');
    const hash = createHash(algorithm);
    let read = 0;
    try {
      for await (const { data } of this.#answers('read', namespace, { digest })) {
        hash.update(data as Uint8Array);
        read += (data as Uint8Array).length;
      }
    } catch (error) {
      return (error as Error).message;
    }
    if (read !== size) return `${read} bytes, not ${size}`;
    const told = `${algorithm}:${hash.digest('hex')}`;
    return told === digest ? undefined : `hash ${told}`;
  }

  #answers(
    method: 'list' | 'read',
    namespace: string,
    request: object,
  ): AsyncIterable<Readonly<Record<string, unknown>>> {
    const metadata = new Metadata();
    metadata.set('containerd-namespace', namespace);
    const call = (this.#client as unknown as Record<string, Call>)[method]!;
    return call.call(this.#client, request, metadata, { deadline: Date.now() + DEADLINE_MS });
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
