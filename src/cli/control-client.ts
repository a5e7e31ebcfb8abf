import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import type { StatusRequest__Output } from '../gen/layerswarm/control/v1/StatusRequest.ts';
import { connect } from '../rpc/client.ts';
import { loadService } from '../rpc/proto.ts';

/** `Status` answers from memory: a daemon that needs longer hangs. */
const STATUS_DEADLINE_MS = 5_000;

/** Asks a running daemon how it is. `unavailable` when none answers, `deadline_exceeded` when it hangs. */
export async function fetchStatus(
  socket_path: string,
  signal: AbortSignal,
): Promise<StatusResponse__Output> {
  using client = await connect(socket_path);
  const method = loadService(
    'layerswarm/control/v1/control.proto',
    'layerswarm.control.v1.Control',
  ).method<StatusRequest__Output, StatusResponse__Output>('Status');
  return await client.unary(method, {}, { deadline_ms: STATUS_DEADLINE_MS, signal });
}
