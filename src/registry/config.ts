/** What `[registry]` of the configuration and containerd's own say, joined by whoever opens a client. */
export type RegistryConfig = {
  /** Registries with a port that nothing else tells, as `host:port`. */
  readonly hosts: readonly string[];
  /** Roots of containerd's `hosts.toml` directories, in the order in which they are looked through. */
  readonly certs_directories: readonly string[];
  /** Docker-style files with credentials, in order. */
  readonly credential_files: readonly string[];
  /** The kubelet's root directory. */
  readonly kubelet_directory: string;
  /** The kubelet's `--image-credential-provider-config` and `-bin-dir`; empty = its providers are not asked. */
  readonly kubelet_provider_config: string;
  readonly kubelet_provider_directory: string;
};
