/** A blob as containerd's metadata has it in one namespace. */
export type KnownBlob = {
  readonly size_bytes: number;
  readonly labels: Readonly<Record<string, string>>;
};

/** Something that a lease keeps from containerd's garbage collection: `content`, or `snapshots/<snapshotter>`. */
export type HeldResource = { readonly type: string; readonly id: string };

/**
 * containerd's own API, on its own socket, as `repair` needs it. Every call has a deadline. Never to be called while a call of containerd
 * waits for our answer: Delete and leases take the lock that containerd holds then.
 */
export interface ContainerdDoor extends Disposable {
  /** Content plugins that run, with the address of those behind a socket. */
  contentPlugins(
    signal: AbortSignal,
  ): Promise<readonly { readonly id: string; readonly address: string | undefined }[]>;
  namespaces(signal: AbortSignal): Promise<readonly string[]>;
  images(
    namespace: string,
    signal: AbortSignal,
  ): Promise<readonly { readonly name: string; readonly target: string }[]>;
  /** What its metadata says, without looking at the bytes; undefined when this namespace does not know the blob. */
  blob(namespace: string, digest: string, signal: AbortSignal): Promise<KnownBlob | undefined>;
  /** Makes the namespace forget the blob. False when it did not know it. */
  forget(namespace: string, digest: string, signal: AbortSignal): Promise<boolean>;
  /** Keeps resources until `until_epoch_ms`. */
  hold(
    namespace: string,
    lease: {
      readonly id: string;
      readonly until_epoch_ms: number;
      readonly resources: readonly HeldResource[];
    },
    signal: AbortSignal,
  ): Promise<void>;
}
