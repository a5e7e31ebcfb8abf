import assert from 'node:assert/strict';
import { hasCode } from '../../src/base/errors.ts';
import type { ErrorCode } from '../../src/base/errors.ts';
import type { WriteRequest, WriteResponse } from '../../src/content/messages.ts';
import { ContainerdCalls } from '../../src/content/containerd-calls.ts';
import { contentService } from '../../src/content/service.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { PIECE_BYTES, pieceCount } from '../../src/piece/layout.ts';
import type { VerifiedPiece } from '../../src/piece/verified-piece.ts';
import { loadService } from '../../src/rpc/proto.ts';
import type {
  AnyMethod,
  CallContext,
  Dialogue,
  MessageParts,
  ServiceTable,
} from '../../src/rpc/service.ts';
import type { BlobStore, StagedBlob } from '../../src/store/blob-store.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { FakePull } from '../fakes/fake-pull.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

const SERVICE = 'containerd.services.content.v1.Content';
const codec = loadService('containerd/services/content/v1/content.proto', SERVICE);

/** The content door on fakes, called through its wire encoding without a socket. */
export class ContentDoor {
  readonly clock = new FakeClock();
  readonly logger = new MemoryLogger();
  readonly register = new MemoryRegister();
  /** The store, unless the test brought another one. */
  readonly store = new MemoryStore();
  readonly pull = new FakePull();
  readonly calls: ContainerdCalls;
  readonly table: ServiceTable;
  readonly #blobs: BlobStore;

  constructor(blobs?: BlobStore, sharing_policy: 'shared' | 'isolated' = 'shared') {
    this.#blobs = blobs ?? this.store;
    const { clock, logger, register, pull } = this;
    const calls = (this.calls = new ContainerdCalls({ clock }));
    this.table = contentService(
      { catalog: this.#blobs, ingests: this.#blobs, pull, calls, clock, logger, register },
      { wait_stall_ms: 60_000, sharing_policy },
    );
  }

  /** The answer of a unary method, as a client decodes it. */
  async unary(name: string, request: object): Promise<Record<string, unknown>> {
    const method = this.#method(name, 'unary');
    const { encodeRequest, decodeResponse } = codec.method<object, Record<string, unknown>>(name);
    const answer: unknown = await method.handle(method.decode(encodeRequest(request)), aCall());
    return decodeResponse(method.encode(answer));
  }

  /** All answers of a server stream. */
  async stream(name: string, request: object, call = aCall()): Promise<Record<string, unknown>[]> {
    const method = this.#method(name, 'server_stream');
    const { encodeRequest, decodeResponse } = codec.method<object, Record<string, unknown>>(name);
    const answers: Record<string, unknown>[] = [];
    const decoded: unknown = method.decode(encodeRequest(request));
    for await (const answer of method.handle(decoded, call)) {
      answers.push(decodeResponse(method.encode(answer)));
    }
    return answers;
  }

  /** Read's immediate answer: the parts of its messages, and the messages. */
  immediate(request: {
    digest: string;
    offset?: number;
    size?: number;
  }): { parts: readonly MessageParts[]; answers: { offset: number; data: Buffer }[] } | undefined {
    const { encodeRequest, decodeResponse } = codec.method<
      object,
      { offset: number; data: Buffer }
    >('Read');
    const parts = this.immediateOf(encodeRequest(request));
    return parts && { parts, answers: parts.map((p) => decodeResponse(Buffer.concat(p))) };
  }

  immediateOf(bytes: Uint8Array): readonly MessageParts[] | undefined {
    return this.#method('Read', 'server_stream').immediate?.(bytes);
  }

  decode(name: string, bytes: Uint8Array): unknown {
    const method = this.table.get(`/${SERVICE}/${name}`);
    assert.ok(method);
    return method.decode(bytes);
  }

  /** A new Write stream. */
  writer(): Writer {
    const controller = new AbortController();
    const method = this.#method('Write', 'dialogue');
    const call = { signal: controller.signal, namespace: 'k8s.io' };
    const dialogue = method.open(call) as Dialogue<WriteRequest, WriteResponse>;
    return new Writer(dialogue, controller);
  }

  /** A working copy of `bytes` with its first `pieces` pieces written. */
  async staged(digest: Digest, bytes: Uint8Array, pieces: number): Promise<StagedBlob> {
    const staged = await this.#blobs.stage(digest, bytes.length);
    for (let index = 0; index < Math.min(pieces, pieceCount(bytes.length)); index++) {
      const piece = bytes.subarray(index * PIECE_BYTES, (index + 1) * PIECE_BYTES);
      await staged.write({ index, bytes: piece, sha256: new Uint8Array(32) } as VerifiedPiece);
    }
    return staged;
  }

  #method<K extends AnyMethod['kind']>(name: string, kind: K): Extract<AnyMethod, { kind: K }> {
    const method = this.table.get(`/${SERVICE}/${name}`);
    assert.ok(method?.kind === kind, `${name} is no ${kind} method`);
    return method as Extract<AnyMethod, { kind: K }>;
  }
}

/** A client of one Write stream that encodes and decodes as containerd does. */
export class Writer {
  readonly #dialogue: Dialogue<WriteRequest, WriteResponse>;
  readonly #controller: AbortController;
  readonly #codec = codec.method<Partial<WriteRequest>, Required<WriteResponse>>('Write');

  constructor(dialogue: Dialogue<WriteRequest, WriteResponse>, controller: AbortController) {
    this.#dialogue = dialogue;
    this.#controller = controller;
  }

  async send(request: Partial<WriteRequest>): Promise<Required<WriteResponse> & { last: boolean }> {
    const decoded = this.#codec.decode(this.#codec.encodeRequest(request)) as WriteRequest;
    const { response, last } = await this.#dialogue.answer(decoded);
    const encoded = this.#codec.encode(response as Required<WriteResponse>);
    return { ...this.#codec.decodeResponse(encoded), last };
  }

  open(ref: string, total = 0): ReturnType<Writer['send']> {
    return this.send({ action: 'STAT', ref, total });
  }

  stat(): ReturnType<Writer['send']> {
    return this.send({ action: 'STAT' });
  }

  write(offset: number, data: Uint8Array): ReturnType<Writer['send']> {
    return this.send({ action: 'WRITE', offset, data });
  }

  commit(request: Partial<WriteRequest>): ReturnType<Writer['send']> {
    return this.send({ action: 'COMMIT', ...request });
  }

  /** The client ends the stream in order. */
  async close(): Promise<void> {
    await this.#dialogue.close();
  }

  /** The client resets the stream. */
  async reset(): Promise<void> {
    this.#controller.abort();
    await this.#dialogue.close();
  }
}

export function aCall(signal = new AbortController().signal): CallContext {
  return { signal, namespace: 'k8s.io' };
}

/** For assert.rejects and assert.throws. */
export function withCode(code: ErrorCode, message?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(hasCode(error, code), `expected ${code}, got ${String(error)}`);
    if (message !== undefined) assert.match(error.message, message);
    return true;
  };
}

/** Bytes that differ from place to place, the same for the same seed. */
export function someBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let x = seed * 2654435761;
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}
