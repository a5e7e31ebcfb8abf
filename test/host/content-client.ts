// containerd's content API as a client sees it, with room for calls no honest client makes.
import { resolve } from 'node:path';
import { Client, Metadata, credentials, loadPackageDefinition } from '@grpc/grpc-js';
import type { MethodDefinition, ServiceClientConstructor, ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = resolve(import.meta.dirname, '../../proto');
const SERVICE = 'containerd.services.content.v1.Content';
const DEADLINE_MS = 10_000;

type Methods = Readonly<Record<string, MethodDefinition<object, object>>>;

/** One answer of a Write stream. */
export interface WriteAnswer {
  readonly action: string;
  readonly offset: number;
  readonly digest: string;
}

const definition = loadSync('containerd/services/content/v1/content.proto', {
  includeDirs: [PROTO],
  keepCase: false,
  longs: Number,
  enums: String,
  defaults: true,
});
const loaded = loadPackageDefinition(definition)['containerd'] as unknown as {
  services: { content: { v1: { Content: ServiceClientConstructor } } };
};
const methods = loaded.services.content.v1.Content.service as unknown as Methods;

/** Speaks to one socket. Failures are grpc-js `ServiceError`s. */
export class ContentClient implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix://${socket}`, credentials.createInsecure());
  }

  /** A call with one answer. */
  async call<T>(name: string, request: object): Promise<T> {
    const method = methods[name]!;
    return this.#unary<T>(
      method.path,
      method.requestSerialize(request),
      method.responseDeserialize,
    );
  }

  /** A call whose request is not what the method expects. */
  async raw(name: string, bytes: Uint8Array): Promise<object> {
    const method = methods[name]!;
    return this.#unary(method.path, Buffer.from(bytes), method.responseDeserialize);
  }

  /** A method that does not exist. */
  async unknown(name: string): Promise<object> {
    return this.#unary(`/${SERVICE}/${name}`, Buffer.alloc(0), () => ({}));
  }

  /** Sends all messages on one Write stream and resolves to its answers. */
  async write(messages: readonly object[]): Promise<readonly WriteAnswer[]> {
    const method = methods['Write']!;
    const call = this.#client.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      new Metadata(),
      { deadline: Date.now() + DEADLINE_MS },
    );
    const answers: WriteAnswer[] = [];
    const { promise, resolve: done, reject } = Promise.withResolvers<readonly WriteAnswer[]>();
    call.on('data', (answer: WriteAnswer) => answers.push(answer));
    call.on('error', reject);
    call.on('end', () => done(answers));
    for (const message of messages) call.write(message);
    call.end();
    return promise;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  async #unary<T>(path: string, bytes: Buffer, parse: (bytes: Buffer) => object): Promise<T> {
    const { promise, resolve: done, reject } = Promise.withResolvers<T>();
    this.#client.makeUnaryRequest(
      path,
      (request: Buffer) => request,
      parse,
      bytes,
      { deadline: Date.now() + DEADLINE_MS },
      (error: ServiceError | null, answer?: object) => {
        if (error === null) done(answer as T);
        else reject(error);
      },
    );
    return promise;
  }
}
