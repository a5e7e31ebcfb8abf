import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import { type Digest, parseDigest } from '../oci/digest.ts';
import type { Logger } from '../ops/logger.ts';
import type { MetricRegister } from '../ops/register.ts';
import type { PullPort } from '../pull/pull-port.ts';
import { loadService, type ServiceCodec } from '../rpc/proto.ts';
import type { AnyMethod, ServiceTable } from '../rpc/service.ts';
import type { BlobCatalog, IngestArea } from '../store/blob-store.ts';
import type { ContainerdCalls } from './containerd-calls.ts';
import {
  infoFields,
  labelChange,
  statusFields,
  toInfoMessage,
  toStatusMessage,
} from './convert.ts';
import { parseFilters } from './filter.ts';
import type {
  InfoMessage,
  ReadRequest,
  ReadResponse,
  StatusMessage,
  UpdateRequest,
  WriteRequest,
  WriteResponse,
} from './messages.ts';
import { type ContentMetrics, createContentMetrics } from './metrics.ts';
import type { PrefillConfig } from './prefill.ts';
import { PullWaits } from './pull-waits.ts';
import { BlobReads } from './read.ts';
import { decodeReadRequest, encodeReadResponse } from './read-codec.ts';
import { WriteSession } from './write-session.ts';

/** Blobs in one message of List, as containerd's own server has it. */
const LIST_CHUNK = 100;

const PROTO_FILE = 'containerd/services/content/v1/content.proto';
const SERVICE = 'containerd.services.content.v1.Content';

export type ContentModules = {
  readonly catalog: BlobCatalog;
  readonly ingests: IngestArea;
  readonly pull: PullPort;
  readonly calls: ContainerdCalls;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly register: MetricRegister;
};

/** What every group of methods below is made from. */
type Parts = {
  readonly modules: ContentModules;
  readonly config: PrefillConfig;
  readonly codec: ServiceCodec;
  readonly metrics: ContentMetrics;
  readonly waits: PullWaits;
};

type ListRequest = { readonly filters: readonly string[] };

type Entry = readonly [path: string, method: AnyMethod];

/**
 * containerd's content API over the store and the pull room. Codes and messages are those of containerd's own content server.
 * Info, List, Delete, Status, ListStatuses, Abort and the first message of Write wait for nothing but the local disk,
 * because containerd holds a database transaction meanwhile. Throws when the proto text is missing.
 */
export function contentService(modules: ContentModules, config: PrefillConfig): ServiceTable {
  const waits = new PullWaits();
  const parts: Parts = {
    modules,
    config,
    codec: loadService(PROTO_FILE, SERVICE),
    metrics: createContentMetrics(modules.register, waits),
    waits,
  };
  return modules.calls.noting(
    new Map<string, AnyMethod>([
      ...blobMethods(parts),
      readMethod(parts),
      ...ingestMethods(parts),
      writeMethod(parts),
    ]),
  );
}

function blobMethods({ modules: { catalog }, codec }: Parts): readonly Entry[] {
  const info = codec.method<{ digest: string }, { info: InfoMessage }>('Info');
  const update = codec.method<UpdateRequest, { info: InfoMessage }>('Update');
  const list = codec.method<ListRequest, { info: InfoMessage[] }>('List');
  const remove = codec.method<{ digest: string }, object>('Delete');
  return [
    unary(info, ({ digest: text }) => {
      const digest = parseDigest(text);
      const found = catalog.adopt(digest);
      if (found === undefined) throw notFound(digest);
      return { info: toInfoMessage(found) };
    }),
    unary(update, async ({ info: wanted, updateMask }) => {
      const digest = parseDigest(wanted?.digest ?? '');
      const { labels, mode } = labelChange(wanted?.labels ?? {}, updateMask, digest);
      return { info: toInfoMessage(await catalog.update(digest, labels, mode)) };
    }),
    [
      list.path,
      {
        kind: 'server_stream',
        ...list,
        handle: (request: ListRequest) => listed(catalog, request.filters),
      },
    ],
    unary(remove, async ({ digest }) => {
      await catalog.delete(parseDigest(digest));
      return {};
    }),
  ];
}

async function* listed(
  catalog: Pick<BlobCatalog, 'list'>,
  filters: readonly string[],
): AsyncGenerator<{ info: InfoMessage[] }> {
  const passes = parseFilters(filters);
  let chunk: InfoMessage[] = [];
  for (const info of await catalog.list()) {
    if (!passes(infoFields(info))) continue;
    chunk.push(toInfoMessage(info));
    if (chunk.length < LIST_CHUNK) continue;
    yield { info: chunk };
    chunk = [];
  }
  if (chunk.length > 0) yield { info: chunk };
}

function readMethod({ modules: { catalog }, codec, metrics }: Parts): Entry {
  const { path } = codec.method<ReadRequest, ReadResponse>('Read');
  const reads = new BlobReads({ catalog, metrics });
  return [
    path,
    {
      kind: 'server_stream',
      decode: decodeReadRequest,
      encode: encodeReadResponse,
      handle: (request: ReadRequest, call) => reads.chunks(request, call),
      immediate: (bytes) => reads.immediate(bytes),
    },
  ];
}

function ingestMethods({ modules: { ingests }, codec, waits }: Parts): readonly Entry[] {
  const status = codec.method<{ ref: string }, { status: StatusMessage }>('Status');
  const list = codec.method<ListRequest, { statuses: StatusMessage[] }>('ListStatuses');
  const abort = codec.method<{ ref: string }, object>('Abort');
  return [
    unary(status, ({ ref }) => {
      const found = ingests.status(ref);
      if (found !== undefined) return { status: toStatusMessage(found, waits.progress_bytes(ref)) };
      throw new DaemonError(
        'not_found',
        `could not get status for ref ${JSON.stringify(ref.slice(0, 300))}: not found`,
      );
    }),
    unary(list, ({ filters }) => {
      const passes = parseFilters(filters);
      const statuses: StatusMessage[] = [];
      for (const found of ingests.statuses()) {
        if (!passes(statusFields(found))) continue;
        statuses.push(toStatusMessage(found, waits.progress_bytes(found.ref)));
      }
      return { statuses };
    }),
    unary(abort, async ({ ref }) => {
      await ingests.abort(ref);
      waits.forgetPrefixed(ref);
      return {};
    }),
  ];
}

function writeMethod({ modules, config, codec, metrics, waits }: Parts): Entry {
  const write = codec.method<WriteRequest, WriteResponse>('Write');
  const parts = { ...modules, metrics, waits };
  return [
    write.path,
    { kind: 'dialogue', ...write, open: (call) => new WriteSession(parts, config, call) },
  ];
}

function unary<Req, Res>(
  codec: {
    readonly path: string;
    readonly decode: (bytes: Uint8Array) => Req;
    readonly encode: (response: Res) => Uint8Array;
  },
  handle: (request: Req) => Res | Promise<Res>,
): Entry {
  const { path, decode, encode } = codec;
  return [path, { kind: 'unary', decode, encode, handle }];
}

function notFound(digest: Digest): DaemonError {
  return new DaemonError('not_found', `content ${digest}: not found`, { digest });
}
