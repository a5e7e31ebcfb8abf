// The kubelet's side of the Container Runtime Interface, as much of it as the bench needs.
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client, credentials, loadPackageDefinition } from '@grpc/grpc-js';
import type { MethodDefinition, ServiceClientConstructor, ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { pause } from './residue.ts';

/** A call waits this long unless told otherwise, in ms. */
const DEADLINE_MS = 30_000;

export interface CallOptions {
  readonly deadline_ms?: number;
  readonly signal?: AbortSignal;
}

export interface CriImage {
  readonly id: string;
  readonly repo_tags: readonly string[];
  readonly repo_digests: readonly string[];
  readonly size: string;
}

export interface CriContainerStatus {
  readonly id: string;
  readonly state:
    | 'CONTAINER_CREATED'
    | 'CONTAINER_RUNNING'
    | 'CONTAINER_EXITED'
    | 'CONTAINER_UNKNOWN';
  readonly exit_code: number;
  readonly image_ref: string;
  readonly reason: string;
  readonly message: string;
}

/** A running pod; give it back to `removePod`. */
export interface CriPod {
  readonly id: string;
  readonly config: object;
  readonly log_directory: string;
}

type Service = 'RuntimeService' | 'ImageService';
type Methods = Readonly<Record<string, MethodDefinition<object, object> | undefined>>;

const definition = loadSync(join(import.meta.dirname, 'cri.proto'), {
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  arrays: true,
});
const services = loadPackageDefinition(definition)['runtime'] as unknown as {
  readonly v1: Readonly<Record<Service, ServiceClientConstructor>>;
};
// The kubelet's pods use the host's network here: there is no CNI plugin.
const HOST_NETWORK = { network: 'NODE', pid: 'CONTAINER', ipc: 'POD' };

/** Speaks CRI on a unix socket. Failures are grpc-js `ServiceError`s with containerd's status code. */
export class CriClient {
  readonly #client: Client;
  readonly #cgroup_parent: string;
  #pods = 0;

  constructor(socket: string, cgroup_parent: string) {
    this.#client = new Client(`unix://${socket}`, credentials.createInsecure(), {
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 500,
    });
    this.#cgroup_parent = `/${cgroup_parent}`;
  }

  close(): void {
    this.#client.close();
  }

  async version(
    options: CallOptions = {},
  ): Promise<{ readonly runtime_name: string; readonly runtime_version: string }> {
    return this.#call('RuntimeService', 'Version', { version: 'v1' }, options);
  }

  /** The runtime's conditions by type, e.g. `RuntimeReady`. */
  async conditions(): Promise<Readonly<Record<string, boolean>>> {
    const answer = await this.#call<{
      readonly status: { readonly conditions: readonly { type: string; status: boolean }[] };
    }>('RuntimeService', 'Status', {});
    return Object.fromEntries(answer.status.conditions.map((c) => [c.type, c.status]));
  }

  /** Pulls an image as the kubelet does; resolves to the image id (the digest of its config). */
  async pullImage(image: string, options: CallOptions = {}): Promise<string> {
    const request = { image: { image } };
    const { image_ref } = await this.#call<{ image_ref: string }>(
      'ImageService',
      'PullImage',
      request,
      options,
    );
    return image_ref;
  }

  async imageStatus(image: string): Promise<CriImage | undefined> {
    const request = { image: { image } };
    const answer = await this.#call<{ image: CriImage | null }>(
      'ImageService',
      'ImageStatus',
      request,
    );
    return answer.image ?? undefined;
  }

  async listImages(): Promise<readonly CriImage[]> {
    return (await this.#call<{ images: CriImage[] }>('ImageService', 'ListImages', {})).images;
  }

  async removeImage(image: string): Promise<void> {
    await this.#call('ImageService', 'RemoveImage', { image: { image } });
  }

  /** Starts a pod on the host's network. `directory` takes the logs of its containers. */
  async runPod(name: string, directory: string, options: CallOptions = {}): Promise<CriPod> {
    this.#pods += 1;
    const log_directory = join(directory, `pod-${name}-${this.#pods}`);
    await mkdir(log_directory, { recursive: true });
    const config = {
      metadata: { name, uid: `${name}-${this.#pods}`, namespace: 'default', attempt: 0 },
      log_directory,
      linux: {
        cgroup_parent: this.#cgroup_parent,
        security_context: { namespace_options: HOST_NETWORK },
      },
    };
    const answer = await this.#call<{ pod_sandbox_id: string }>(
      'RuntimeService',
      'RunPodSandbox',
      { config },
      options,
    );
    return { id: answer.pod_sandbox_id, config, log_directory };
  }

  /** Creates and starts a container in `pod`, by default with the image's own command; resolves to its id. */
  async startContainer(
    pod: CriPod,
    name: string,
    image: string,
    command: readonly string[] = [],
  ): Promise<string> {
    const config = {
      metadata: { name, attempt: 0 },
      image: { image },
      command,
      log_path: `${name}.log`,
      linux: { security_context: { namespace_options: HOST_NETWORK } },
    };
    const request = { pod_sandbox_id: pod.id, config, sandbox_config: pod.config };
    const { container_id } = await this.#call<{ container_id: string }>(
      'RuntimeService',
      'CreateContainer',
      request,
    );
    await this.#call('RuntimeService', 'StartContainer', { container_id });
    return container_id;
  }

  async containerStatus(container_id: string): Promise<CriContainerStatus> {
    const answer = await this.#call<{ status: CriContainerStatus }>(
      'RuntimeService',
      'ContainerStatus',
      { container_id },
    );
    return answer.status;
  }

  /** Waits until a container has ended. */
  async containerExit(
    container_id: string,
    options: CallOptions = {},
  ): Promise<CriContainerStatus> {
    const deadline = performance.now() + (options.deadline_ms ?? DEADLINE_MS);
    for (;;) {
      options.signal?.throwIfAborted();
      const status = await this.containerStatus(container_id);
      if (status.state === 'CONTAINER_EXITED') return status;
      if (performance.now() > deadline)
        throw new Error(`container ${container_id} is still ${status.state}`);
      await pause(50);
    }
  }

  /** What a container printed on stdout, without CRI's timestamps. */
  async containerOutput(pod: CriPod, name: string): Promise<string> {
    const text = await readFile(join(pod.log_directory, `${name}.log`), 'utf8');
    const lines = text.matchAll(/^\S+ stdout [FP] (.*)$/gm);
    return [...lines].map((line) => `${line[1]!}\n`).join('');
  }

  /** Stops and removes a pod with all its containers. */
  async removePod(pod: CriPod): Promise<void> {
    const request = { pod_sandbox_id: pod.id };
    await this.#call('RuntimeService', 'StopPodSandbox', request);
    await this.#call('RuntimeService', 'RemovePodSandbox', request);
  }

  async #call<T>(
    service: Service,
    name: string,
    request: object,
    options: CallOptions = {},
  ): Promise<T> {
    options.signal?.throwIfAborted();
    const method = (services.v1[service].service as unknown as Methods)[name];
    if (method === undefined) throw new Error(`cri.proto has no ${service}.${name}`);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const call = this.#client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      { deadline: Date.now() + (options.deadline_ms ?? DEADLINE_MS) },
      (error: ServiceError | null, answer?: object) => {
        if (error === null) resolve(answer as T);
        else reject(error);
      },
    );
    const cancel = () => call.cancel();
    options.signal?.addEventListener('abort', cancel, { once: true });
    return promise.finally(() => options.signal?.removeEventListener('abort', cancel));
  }
}
