/** The shape of the file that Debian's containerd has: version 2, a few settings of CRI. */
export const DEBIAN = `version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
`;

/** The shape of the file that the containerd.io packages install: no version, one setting, the rest as comments. */
export const CONTAINERD_IO = `#   a licence

disabled_plugins = ["cri"]

#root = "/var/lib/containerd"
#oom_score = 0

#[grpc]
#  address = "/run/containerd/containerd.sock"
`;
