// containerd's side of the content door: every call one after another on one connection, as containerd makes them.
import { once } from 'node:events';
import { Client, type ClientDuplexStream, credentials, Metadata } from '@grpc/grpc-js';
import type { ReadRequest, WriteRequest, WriteResponse } from '../../src/content/messages.ts';
import { loadService, type MethodCodec } from '../../src/rpc/proto.ts';
import type { BlobFile } from './blob-file.ts';

const CODEC = loadService(
  'containerd/services/content/v1/content.proto',
  'containerd.services.content.v1.Content',
);

/** An open connection to a content door. Failures are grpc-js errors. */
export class ContentCalls implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
    });
  }

  unary(name: 'Info' | 'Status' | 'Abort' | 'Delete', request: object): Promise<object> {
    const { promise, resolve, reject } = Promise.withResolvers<object>();
    const method = CODEC.method<object, object>(name);
    this.#client.makeUnaryRequest(
      method.path,
      (message: object) => Buffer.from(method.encodeRequest(message)),
      (bytes) => method.decodeResponse(bytes),
      request,
      (error, answer) => {
        if (error === null) resolve(answer!);
        else reject(error);
      },
    );
    return promise;
  }

  /** All answers of List or Read, counted. */
  async stream(name: 'List' | 'Read', request: object): Promise<number> {
    const method: MethodCodec<object, object> =
      name === 'List'
        ? CODEC.method<object, object>(name)
        : (CODEC.method<ReadRequest, object>(name) as MethodCodec<object, object>);
    const call = this.#client.makeServerStreamRequest(
      method.path,
      (message: object) => Buffer.from(method.encodeRequest(message)),
      (bytes) => method.decodeResponse(bytes),
      request,
    );
    let answers = 0;
    call.on('data', () => {
      answers += 1;
    });
    await once(call, 'end');
    return answers;
  }

  /** Opens a Write stream. */
  write(): WriteCall {
    const method = CODEC.method<Partial<WriteRequest>, WriteResponse>('Write');
    return new WriteCall(
      this.#client.makeBidiStreamRequest(
        method.path,
        (message: Partial<WriteRequest>) => Buffer.from(method.encodeRequest(message)),
        (bytes) => method.decodeResponse(bytes),
        new Metadata(),
      ),
    );
  }

  /**
   * Pulls a layer as containerd does when a peer has it: STAT, STAT, COMMIT. Rejects when it did not come whole. `onBytes` is called when
   * the second STAT is answered: no more bytes will come.
   */
  async pull(blob: BlobFile, { onBytes }: { readonly onBytes?: () => void } = {}): Promise<void> {
    const write = this.write();
    const ref = layerRef(blob);
    await write.ask({ action: 'STAT', ref, total: blob.size_bytes });
    const { offset } = await write.ask({ action: 'STAT' });
    onBytes?.();
    if (offset !== blob.size_bytes) {
      await write.end();
      throw new Error(
        `only ${offset} of ${blob.size_bytes} bytes of ${blob.digest} came from peers`,
      );
    }
    await write.ask({ action: 'COMMIT', total: blob.size_bytes, expected: blob.digest });
    await write.end();
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

let pulls = 0;

/** The ref under which containerd's backend sees a pull of the layer, another one each time. */
export function layerRef({ digest }: Pick<BlobFile, 'digest'>): string {
  pulls += 1;
  return `default/${pulls}/layer-${digest}`;
}

/** A conversation: one message, one answer. */
export class WriteCall {
  readonly #call: ClientDuplexStream<Partial<WriteRequest>, WriteResponse>;
  #waiting: PromiseWithResolvers<WriteResponse> | undefined;
  #failed: Error | undefined;

  constructor(call: ClientDuplexStream<Partial<WriteRequest>, WriteResponse>) {
    this.#call = call;
    call.on('data', (answer: WriteResponse) => this.#waiting?.resolve(answer));
    call.on('error', (error) => this.#fail(error));
    call.on('end', () => this.#fail(new Error('the stream has ended')));
  }

  ask(message: Partial<WriteRequest>): Promise<WriteResponse> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    this.#waiting = Promise.withResolvers<WriteResponse>();
    this.#call.write(message);
    return this.#waiting.promise;
  }

  /** Ends the stream in order and waits for the server's end. */
  async end(): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      this.#call.once('status', () => resolve());
    });
    this.#call.end();
    await ended;
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.#waiting?.promise.catch(() => undefined);
    this.#waiting?.reject(error);
  }
}
