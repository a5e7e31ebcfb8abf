// containerd's own configuration, in the dialect of each supported line.

/** Where blobs live: containerd's built-in plugin, or a content plugin behind a unix socket. */
export type ContentStore =
  | { readonly kind: 'builtin' }
  | { readonly kind: 'proxy'; readonly address: string };

/** Name of the proxy plugin, as an operator would write it. */
export const PROXY_NAME = 'layerswarm';

export interface ContainerdSettings {
  /** Actual version, e.g. `1.7.24`; decides the dialect. */
  readonly version: string;
  /** Directory of this containerd: root, state, sockets, certs below it. */
  readonly dir: string;
  readonly store: ContentStore;
  readonly runc: string;
  /** Reference of the pod sandbox image. */
  readonly sandbox_image: string;
  /** Default: containerd's, `shared`. */
  readonly sharing_policy?: 'isolated';
  /** Socket that serves Go's own profiles; none when left out. */
  readonly debug_socket?: string;
}

/** The text of config.toml: `version = 2` for 1.x, `version = 3` for 2.0 to 2.2, `version = 4` since 2.3. */
export function containerdConfig(settings: ContainerdSettings): string {
  const { dir, store, version } = settings;
  const modern = !version.startsWith('1.');
  const dialect = !modern ? 2 : Number(version.split('.')[1]) < 3 ? 3 : 4;
  const disabled = ['io.containerd.nri.v1.nri'];
  if (store.kind === 'proxy') disabled.unshift('io.containerd.content.v1.content');
  const proxy =
    store.kind === 'proxy'
      ? `[proxy_plugins.${PROXY_NAME}]\n  type = "content"\n  address = "${store.address}"\n`
      : '';
  // Version 4 has made plugins of its servers.
  const server = (name: string) =>
    dialect === 4 ? `plugins."io.containerd.server.v1.${name}"` : name;
  return `version = ${dialect}
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = [${disabled.map((id) => `"${id}"`).join(', ')}]
[${server('grpc')}]
  address = "${dir}/containerd.sock"
[${server('ttrpc')}]
  address = "${dir}/containerd.sock.ttrpc"
${settings.debug_socket === undefined ? '' : `[${server('debug')}]\n  address = "${settings.debug_socket}"\n`}${settings.sharing_policy === undefined ? '' : `[plugins."io.containerd.metadata.v1.bolt"]\n  content_sharing_policy = "${settings.sharing_policy}"\n`}${modern ? criOfTwo(settings) : criOfOne(settings)}${proxy}`;
}

/** hosts.toml for a registry that speaks plain HTTP. */
export function plainHttpHosts(registry: string): string {
  return `server = "http://${registry}"
[host."http://${registry}"]
  capabilities = ["pull", "resolve", "push"]
`;
}

function criOfOne(settings: ContainerdSettings): string {
  const { dir, runc, sandbox_image } = settings;
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  // restrict_oom_score_adj: pods start without CAP_SYS_RESOURCE too.
  return `[${cri}]
  restrict_oom_score_adj = true
  sandbox_image = "${sandbox_image}"
  [${cri}.registry]
    config_path = "${dir}/certs"
  [${cri}.cni]
    bin_dir = "${dir}/cnibin"
    conf_dir = "${dir}/cninet"
  [${cri}.containerd]
    snapshotter = "overlayfs"
    [${cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [${cri}.containerd.runtimes.runc.options]
        BinaryName = "${runc}"
`;
}

function criOfTwo(settings: ContainerdSettings): string {
  const { dir, runc, sandbox_image } = settings;
  const images = 'plugins."io.containerd.cri.v1.images"';
  const runtime = 'plugins."io.containerd.cri.v1.runtime"';
  return `[${images}]
  snapshotter = "overlayfs"
  [${images}.registry]
    config_path = "${dir}/certs"
  [${images}.pinned_images]
    sandbox = "${sandbox_image}"
[${runtime}]
  enable_selinux = false
  restrict_oom_score_adj = true
  [${runtime}.cni]
    bin_dirs = ["${dir}/cnibin"]
    conf_dir = "${dir}/cninet"
  [${runtime}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [${runtime}.containerd.runtimes.runc.options]
      BinaryName = "${runc}"
`;
}
