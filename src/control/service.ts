import type { CheckBlobRequest__Output } from '../gen/layerswarm/control/v1/CheckBlobRequest.ts';
import type { CheckBlobResponse__Output } from '../gen/layerswarm/control/v1/CheckBlobResponse.ts';
import type { ForgetLostRequest__Output } from '../gen/layerswarm/control/v1/ForgetLostRequest.ts';
import type { StatusRequest__Output } from '../gen/layerswarm/control/v1/StatusRequest.ts';
import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import { type Digest, parseDigest } from '../oci/digest.ts';
import { loadService, type MethodCodec } from '../rpc/proto.ts';
import type { AnyMethod, ServiceTable, UnaryMethod } from '../rpc/service.ts';

/** What a running daemon tells about itself. */
export type DaemonStatus = StatusResponse__Output;

/** Most entries of one list in an answer; a swarm beyond it is for metrics, not for a terminal. */
const LIST_MAX = 1_000;

/** What the control door asks of the rooms. */
export type ControlModules = {
  /** From memory. */
  readonly status: () => DaemonStatus;
  /** Reads a blob to its last byte. `unavailable` while another one is being read. */
  readonly check: (
    digest: Digest,
    limits: { readonly signal: AbortSignal },
  ) => Promise<{ readonly state: string; readonly size_bytes: number }>;
  /** Memory. Nothing happens when the blob is not lost. */
  readonly forgetLost: (digest: Digest) => void;
};

/**
 * The control door: `layerswarm.control.v1.Control`, served on the same socket as the content door. `status` answers
 * from memory; it is called once per request.
 */
export function controlService(modules: ControlModules): ServiceTable {
  const codec = loadService('layerswarm/control/v1/control.proto', 'layerswarm.control.v1.Control');
  const status = codec.method<StatusRequest__Output, DaemonStatus>('Status');
  const check = codec.method<CheckBlobRequest__Output, CheckBlobResponse__Output>('CheckBlob');
  const forget = codec.method<ForgetLostRequest__Output, object>('ForgetLost');
  return new Map<string, AnyMethod>([
    unary(status, () => bounded(modules.status())),
    unary(check, async ({ digest }, { signal }) => {
      const { state, size_bytes } = await modules.check(parseDigest(digest), { signal });
      return { state, sizeBytes: size_bytes };
    }),
    unary(forget, ({ digest }) => {
      modules.forgetLost(parseDigest(digest));
      return {};
    }),
  ]);
}

function unary<Req, Res>(
  { path, decode, encode }: MethodCodec<Req, Res>,
  handle: UnaryMethod<Req, Res>['handle'],
): readonly [string, AnyMethod] {
  return [path, { kind: 'unary', decode, encode, handle }];
}

function bounded(status: DaemonStatus): DaemonStatus {
  const { swarm, blobs } = status;
  return {
    ...status,
    transfers: status.transfers.slice(0, LIST_MAX),
    conditions: status.conditions.slice(0, LIST_MAX),
    blobs: blobs && { ...blobs, lost: blobs.lost.slice(0, LIST_MAX) },
    swarm: swarm && {
      ...swarm,
      peers: swarm.peers.slice(0, LIST_MAX),
      bootstrap: swarm.bootstrap.slice(0, LIST_MAX),
      bans: swarm.bans.slice(0, LIST_MAX),
    },
  };
}
