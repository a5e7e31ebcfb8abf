import { hasCode } from '../base/errors.ts';
import type { DeleteContentRequest__Output } from '../gen/containerd/services/content/v1/DeleteContentRequest.ts';
import type { InfoRequest__Output } from '../gen/containerd/services/content/v1/InfoRequest.ts';
import type { InfoResponse__Output } from '../gen/containerd/services/content/v1/InfoResponse.ts';
import type { ListImagesRequest__Output } from '../gen/containerd/services/images/v1/ListImagesRequest.ts';
import type { ListImagesResponse__Output } from '../gen/containerd/services/images/v1/ListImagesResponse.ts';
import type { PluginsRequest__Output } from '../gen/containerd/services/introspection/v1/PluginsRequest.ts';
import type { PluginsResponse__Output } from '../gen/containerd/services/introspection/v1/PluginsResponse.ts';
import type { AddResourceRequest__Output } from '../gen/containerd/services/leases/v1/AddResourceRequest.ts';
import type { CreateRequest__Output } from '../gen/containerd/services/leases/v1/CreateRequest.ts';
import type { ListNamespacesRequest__Output } from '../gen/containerd/services/namespaces/v1/ListNamespacesRequest.ts';
import type { ListNamespacesResponse__Output } from '../gen/containerd/services/namespaces/v1/ListNamespacesResponse.ts';
import type { ContainerdDoor, KnownBlob } from '../host/repair/containerd-door.ts';
import { connect, type RpcClient } from '../rpc/client.ts';
import { loadService, type ServiceCodec } from '../rpc/proto.ts';

/** Longest one call may take, in ms: a Delete waits for containerd's other writers. */
const CALL_DEADLINE_MS = 30_000;
const SERVICES = 'containerd/services';

/** Connects to containerd's own socket. `unavailable` when it does not listen there. */
export async function openContainerd(address: string): Promise<ContainerdDoor> {
  const start =
    'start it with systemctl start containerd, or name another with --containerd-address';
  return new ContainerdClient(await connect(address, { name: 'containerd', start }));
}

class ContainerdClient implements ContainerdDoor {
  readonly #client: RpcClient;
  readonly #content = service('content', 'content', 'Content');
  readonly #images = service('images', 'images', 'Images');
  readonly #leases = service('leases', 'leases', 'Leases');
  readonly #namespaces = service('namespaces', 'namespace', 'Namespaces');
  readonly #introspection = service('introspection', 'introspection', 'Introspection');

  constructor(client: RpcClient) {
    this.#client = client;
  }

  async contentPlugins(signal: AbortSignal) {
    const method = this.#introspection.method<PluginsRequest__Output, PluginsResponse__Output>(
      'Plugins',
    );
    const filters = ['type==io.containerd.content.v1'];
    const { plugins } = await this.#client.unary(method, { filters }, limits(signal));
    return plugins.map(({ id, exports }) => ({ id, address: exports['address'] }));
  }

  async namespaces(signal: AbortSignal): Promise<readonly string[]> {
    const method = this.#namespaces.method<
      ListNamespacesRequest__Output,
      ListNamespacesResponse__Output
    >('List');
    const { namespaces } = await this.#client.unary(method, { filter: '' }, limits(signal));
    return namespaces.map(({ name }) => name);
  }

  async images(namespace: string, signal: AbortSignal) {
    const method = this.#images.method<ListImagesRequest__Output, ListImagesResponse__Output>(
      'List',
    );
    const { images } = await this.#client.unary(method, { filters: [] }, limits(signal, namespace));
    return images.map(({ name, target }) => ({ name, target: target?.digest ?? '' }));
  }

  async blob(
    namespace: string,
    digest: string,
    signal: AbortSignal,
  ): Promise<KnownBlob | undefined> {
    const method = this.#content.method<InfoRequest__Output, InfoResponse__Output>('Info');
    try {
      const { info } = await this.#client.unary(method, { digest }, limits(signal, namespace));
      return { size_bytes: info?.size ?? 0, labels: info?.labels ?? {} };
    } catch (error) {
      if (hasCode(error, 'not_found')) return undefined;
      throw error;
    }
  }

  async forget(namespace: string, digest: string, signal: AbortSignal): Promise<boolean> {
    const method = this.#content.method<DeleteContentRequest__Output, object>('Delete');
    try {
      await this.#client.unary(method, { digest }, limits(signal, namespace));
      return true;
    } catch (error) {
      if (hasCode(error, 'not_found')) return false;
      throw error;
    }
  }

  async hold(
    namespace: string,
    { id, until_epoch_ms, resources }: Parameters<ContainerdDoor['hold']>[1],
    signal: AbortSignal,
  ): Promise<void> {
    const create = this.#leases.method<CreateRequest__Output, object>('Create');
    const labels = { 'containerd.io/gc.expire': new Date(until_epoch_ms).toISOString() };
    await this.#client.unary(create, { id, labels }, limits(signal, namespace));
    const add = this.#leases.method<AddResourceRequest__Output, object>('AddResource');
    for (const resource of resources) {
      await this.#client.unary(add, { id, resource }, limits(signal, namespace));
    }
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }
}

/** The text of each API lies at `services/<directory>/v1/<file>.proto`. */
function service(directory: string, file: string, name: string): ServiceCodec {
  return loadService(
    `${SERVICES}/${directory}/v1/${file}.proto`,
    `${SERVICES.replace('/', '.')}.${directory}.v1.${name}`,
  );
}

function limits(signal: AbortSignal, namespace?: string) {
  return { deadline_ms: CALL_DEADLINE_MS, signal, ...(namespace !== undefined && { namespace }) };
}
