import type {
  ContainerdDoor,
  HeldResource,
  KnownBlob,
} from '../../src/host/repair/containerd-door.ts';

type Held = {
  readonly id: string;
  readonly until_epoch_ms: number;
  readonly resources: readonly HeldResource[];
};

/** containerd's metadata as `repair` sees it: records and images by namespace. `log` keeps the order of what changed. */
export class FakeContainerd implements ContainerdDoor {
  plugins: { id: string; address: string | undefined }[] = [
    { id: 'layerswarm', address: '/run/x.sock' },
  ];
  readonly records = new Map<string, Map<string, KnownBlob>>();
  readonly named = new Map<string, { name: string; target: string }[]>();
  readonly held: (Held & { namespace: string })[] = [];
  readonly log: string[] = [];
  closed = false;

  /** A namespace's record of a blob. */
  knows(namespace: string, digest: string, labels: Readonly<Record<string, string>> = {}): void {
    const records = this.records.get(namespace) ?? new Map<string, KnownBlob>();
    this.records.set(namespace, records.set(digest, { size_bytes: 10, labels }));
  }

  contentPlugins = async () => this.plugins;
  namespaces = async () => [...this.records.keys()];
  images = async (namespace: string) => this.named.get(namespace) ?? [];
  blob = async (namespace: string, digest: string) => this.records.get(namespace)?.get(digest);

  async forget(namespace: string, digest: string): Promise<boolean> {
    this.log.push(`forget ${namespace} ${digest.slice(0, 9)}`);
    return this.records.get(namespace)?.delete(digest) ?? false;
  }

  async hold(namespace: string, lease: Held): Promise<void> {
    this.log.push(`hold ${namespace}`);
    this.held.push({ ...lease, namespace });
  }

  [Symbol.dispose](): void {
    this.closed = true;
  }
}
