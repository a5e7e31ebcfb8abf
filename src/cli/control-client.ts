import type { CheckBlobRequest__Output } from '../gen/layerswarm/control/v1/CheckBlobRequest.ts';
import type { CheckBlobResponse__Output } from '../gen/layerswarm/control/v1/CheckBlobResponse.ts';
import type { ForgetLostRequest__Output } from '../gen/layerswarm/control/v1/ForgetLostRequest.ts';
import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import type { StatusRequest__Output } from '../gen/layerswarm/control/v1/StatusRequest.ts';
import type { DiskState, RepairDaemon } from '../host/repair/repair.ts';
import { connect, type RpcClient } from '../rpc/client.ts';
import { loadService } from '../rpc/proto.ts';

/** `Status` answers from memory: a daemon that needs longer hangs. */
const STATUS_DEADLINE_MS = 5_000;
/** Reading one blob of some GiB from a slow disk. */
const CHECK_DEADLINE_MS = 10 * 60_000;

const DISK_STATES: readonly string[] = [
  'right',
  'lost',
  'cache_wrong',
  'absent',
] satisfies DiskState[];

/** Asks a running daemon how it is. `unavailable` when none answers, `deadline_exceeded` when it hangs. */
export async function fetchStatus(
  socket_path: string,
  signal: AbortSignal,
): Promise<StatusResponse__Output> {
  using client = await openControl(socket_path);
  return await client.status(signal);
}

/** Connects to the control door of a daemon. `unavailable` when none listens. */
export async function openControl(socket_path: string): Promise<ControlClient> {
  return new ControlClient(await connect(socket_path));
}

/** A daemon's control door. Each call has its deadline. */
class ControlClient implements RepairDaemon, Disposable {
  readonly #client: RpcClient;
  readonly #service = loadService(
    'layerswarm/control/v1/control.proto',
    'layerswarm.control.v1.Control',
  );

  constructor(client: RpcClient) {
    this.#client = client;
  }

  async status(signal: AbortSignal): Promise<StatusResponse__Output> {
    const method = this.#service.method<StatusRequest__Output, StatusResponse__Output>('Status');
    return await this.#client.unary(method, {}, { deadline_ms: STATUS_DEADLINE_MS, signal });
  }

  async lost(signal: AbortSignal): Promise<readonly { readonly digest: string }[]> {
    return (await this.status(signal)).blobs?.lost ?? [];
  }

  /** A state of a newer daemon counts as `right`: nothing is done about what is not understood. */
  async check(digest: string, signal: AbortSignal): Promise<DiskState> {
    const method = this.#service.method<CheckBlobRequest__Output, CheckBlobResponse__Output>(
      'CheckBlob',
    );
    const limits = { deadline_ms: CHECK_DEADLINE_MS, signal };
    const { state } = await this.#client.unary(method, { digest }, limits);
    return DISK_STATES.includes(state) ? (state as DiskState) : 'right';
  }

  async forgetLost(digest: string, signal: AbortSignal): Promise<void> {
    const method = this.#service.method<ForgetLostRequest__Output, object>('ForgetLost');
    await this.#client.unary(method, { digest }, { deadline_ms: STATUS_DEADLINE_MS, signal });
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }
}
