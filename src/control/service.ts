import type { StatusRequest__Output } from '../gen/layerswarm/control/v1/StatusRequest.ts';
import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import { loadService } from '../rpc/proto.ts';
import type { AnyMethod, ServiceTable, UnaryMethod } from '../rpc/service.ts';

/** What a running daemon tells about itself. */
export type DaemonStatus = StatusResponse__Output;

/** Most entries of one list in an answer; a swarm beyond it is for metrics, not for a terminal. */
const LIST_MAX = 1_000;

/**
 * The control door: `layerswarm.control.v1.Control`, served on the same socket as the content door. `status` answers
 * from memory; it is called once per request.
 */
export function controlService(modules: { readonly status: () => DaemonStatus }): ServiceTable {
  const codec = loadService(
    'layerswarm/control/v1/control.proto',
    'layerswarm.control.v1.Control',
  ).method<StatusRequest__Output, DaemonStatus>('Status');
  const status: UnaryMethod<StatusRequest__Output, DaemonStatus> = {
    kind: 'unary',
    decode: codec.decode,
    encode: codec.encode,
    handle: () => bounded(modules.status()),
  };
  return new Map<string, AnyMethod>([[codec.path, status]]);
}

function bounded(status: DaemonStatus): DaemonStatus {
  const { swarm } = status;
  return {
    ...status,
    transfers: status.transfers.slice(0, LIST_MAX),
    conditions: status.conditions.slice(0, LIST_MAX),
    swarm: swarm && {
      ...swarm,
      peers: swarm.peers.slice(0, LIST_MAX),
      bootstrap: swarm.bootstrap.slice(0, LIST_MAX),
      bans: swarm.bans.slice(0, LIST_MAX),
    },
  };
}
