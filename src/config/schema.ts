/**
 * The configuration reference: every key with meaning, unit, bounds and default stands here and nowhere else. The
 * documented `packaging/config.toml` is rendered from it (`reference.ts`), a test compares the two.
 */
import * as z from 'zod';
import {
  addressList,
  bootstrapList,
  bytes,
  bytesPerSecond,
  choice,
  choiceList,
  count,
  flag,
  label,
  listenOrOff,
  milliseconds,
  path,
  pathList,
  port,
  registryList,
  socketPath,
} from './keys.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const store = z.strictObject({
  content_directory: path(
    '/var/lib/containerd/io.containerd.content.v1.content',
    "containerd's content directory. layerswarm keeps containerd's own layout there, so that the built-in content plugin can take over again at any time.",
  ),
  state_directory: path(
    '/var/lib/layerswarm',
    "layerswarm's own state: peer identity, piece lists, labels, lock, and a copy of the configuration that served last.",
  ),
  work_directory: path(
    '',
    'Blobs under construction and quarantined files. Must be on the file system of content_directory. Empty: ".layerswarm" inside content_directory.',
  ),
  cache_max_bytes: bytes({
    default: 10 * GIB,
    doc: 'Bytes of blobs that containerd has deleted and that are kept for the peers, oldest dropped first. 0 keeps none.',
  }),
  disk_floor_bytes: bytes({
    default: GIB,
    doc: 'Free bytes on the disk below which nothing more is cached or announced. Pulls go on.',
  }),
  open_files_max: count({
    default: 256,
    min: 16,
    max: 65_536,
    doc: 'Blob files kept open between reads.',
  }),
  staged_max: count({
    default: 64,
    min: 1,
    max: 4096,
    doc: 'Blobs under construction at the same time.',
  }),
  backfill_bytes_per_second: bytesPerSecond({
    default: 128 * MIB,
    doc: 'Reading rate of the background pass over blobs that were there before layerswarm, so that they can be shared. 0: no limit.',
  }),
  create_content_directory: flag(
    false,
    'Make content_directory when it is missing. Otherwise that is an error, because containerd makes it and a wrong path would go unnoticed.',
  ),
});

const content = z.strictObject({
  socket_path: socketPath(
    '/run/layerswarm/layerswarm.sock',
    "Unix socket that containerd's proxy plugin and the command line connect to. Not used when systemd hands over a socket.",
  ),
  server: choice(
    ['h2', 'grpc-js'],
    'h2',
    'gRPC server implementation: "h2" is our own and costs less per read, "grpc-js" is the fallback.',
  ),
  sharing_policy: choice(
    ['shared', 'isolated'],
    'shared',
    'containerd\'s content_sharing_policy, which must be the same. With "isolated" a namespace gets no byte that it has not fetched itself: pulls come from the registry, and this host only serves its peers.',
  ),
  drain_ms: milliseconds({
    default: 20_000,
    doc: 'Longest time in milliseconds that calls in flight may take to end when the daemon stops.',
  }),
});

const swarm = z.strictObject({
  enabled: flag(
    true,
    'Share blobs with other hosts. Without a cluster key file that can be used the daemon says so, stays alone, and looks for one every few seconds.',
  ),
  listen_port: port(7878, 'UDP port (QUIC) and TCP port that peers connect to. 0: any free port.'),
  listen_addresses: addressList(['0.0.0.0', '::'], 'Local IP addresses to listen on.'),
  transports: choiceList(
    ['quic', 'tcp'],
    ['quic', 'tcp'],
    'Transports in order of preference: "quic" over UDP, "tcp" where UDP is blocked.',
  ),
  bootstrap: bootstrapList(
    'First peers to look for: "host:port" (names are resolved again at every try) or multiaddrs. One address that leads to any peer is enough; own addresses are skipped.',
  ),
  cluster_key_file: path(
    '/etc/layerswarm/cluster.key',
    'File with one key, or two while keys are rotated; every host of a swarm has the same. Make one with "layerswarm keygen --out FILE". Mode 0600.',
  ),
  zone: label(
    'Name of the place this host stands in (rack, zone, site). Peers of the same zone are asked first.',
  ),
  max_peers: count({ default: 150, min: 1, max: 1000, doc: 'Most peers connected at once.' }),
  max_upload_bytes_per_second: bytesPerSecond({
    default: 0,
    doc: 'Most bytes per second sent to all peers together, shared evenly; each upload gets at least 256 KiB of them, or waits. 0: no limit.',
  }),
  upload_slots: count({
    default: 16,
    min: 1,
    max: 1024,
    doc: 'Pieces sent at the same time, each up to 4 MiB of memory. Peers take turns; who would wait too long is told when to come back. Lists and blobs up to 64 KiB need no slot.',
  }),
  dial_timeout_ms: milliseconds({
    default: 5_000,
    min: 100,
    doc: 'Longest time in milliseconds to connect to a peer.',
  }),
  silent_peer_ms: milliseconds({
    default: 10_000,
    min: 1_000,
    doc: 'Time in milliseconds without a sign of life after which a peer counts as dead.',
  }),
  ban_ms: milliseconds({
    default: 600_000,
    min: 1_000,
    doc: 'First ban in milliseconds of a peer that sent wrong bytes; doubles with each further one.',
  }),
});

const pull = z.strictObject({
  sessions_max: count({
    default: 64,
    min: 1,
    max: 1024,
    doc: 'Blobs fetched from peers at the same time.',
  }),
  pieces_in_flight_max: count({
    default: 16,
    min: 1,
    max: 256,
    doc: 'Pieces (4 MiB each, held in memory) fetched at the same time over all blobs.',
  }),
  first_byte_timeout_ms: milliseconds({
    default: 1_000,
    min: 50,
    doc: 'Time in milliseconds within which the first byte of a piece must come before it is asked for elsewhere.',
  }),
  min_bytes_per_second: bytesPerSecond({
    default: 64 * KIB,
    doc: 'Rate below which a piece is asked for elsewhere too.',
  }),
  small_wait_ms: milliseconds({
    default: 100,
    doc: 'Longest time in milliseconds that manifests, configs and other small blobs wait for a peer before the registry is asked.',
  }),
  busy_wait_ms: milliseconds({
    default: 2_000,
    doc: 'Longest time in milliseconds to wait while every holder of a blob is busy.',
  }),
  no_progress_ms: milliseconds({
    default: 10_000,
    min: 1_000,
    doc: 'Time in milliseconds without any new byte after which a blob goes on from the registry with what is there.',
  }),
  linger_ms: milliseconds({
    default: 30_000,
    doc: 'Time in milliseconds that a fetch goes on after the last one who waited for it has gone, so that a retried pull finds it.',
  }),
});

const registry = z.strictObject({
  hosts: registryList(
    "Registries with a port that nothing else on this host tells. containerd notes for an image its registry without the port; the port is found in the names of certs_directories, of images and of the kubelet's pulls, and here.",
  ),
  certs_directories: pathList(
    ['/etc/containerd/certs.d', '/etc/docker/certs.d'],
    "Directories of containerd's hosts.toml files, looked through in this order after those that containerd's own configuration names.",
  ),
  credential_files: pathList(
    [
      '/etc/layerswarm/registry.json',
      '/var/lib/kubelet/config.json',
      '/root/.docker/config.json',
      '/.docker/config.json',
    ],
    "Files in the form of Docker's config.json: auths, credHelpers and credsStore. Looked through in this order; those that are not there are passed over.",
  ),
  kubelet_directory: path(
    '/var/lib/kubelet',
    "The kubelet's root directory. The names of the images it is pulling are read there, and nothing else.",
  ),
  kubelet_provider_config: path(
    '',
    "The kubelet's --image-credential-provider-config. Its providers are asked for credentials only when this and kubelet_provider_directory are set.",
  ),
  kubelet_provider_directory: path(
    '',
    "The kubelet's --image-credential-provider-bin-dir: the programs of the providers.",
  ),
});

const metrics = z.strictObject({
  listen: listenOrOff(
    '127.0.0.1:9479',
    'Address and port of /metrics, /healthz and /readyz. Port 0: any free port. Empty: no endpoint.',
  ),
  allow_remote: flag(
    false,
    'Allow a listen address that other hosts can reach. The endpoint has no authentication.',
  ),
});

const log = z.strictObject({
  level: choice(
    ['error', 'warn', 'info', 'debug', 'silent'],
    'warn',
    'Least level that is written, as JSON lines on standard output. The environment variable LAYERSWARM_LOG_LEVEL overrides it.',
  ),
});

/** The sections with one sentence each, in the order of the reference. */
export const SECTIONS = {
  store: { doc: 'Where blobs and state lie, and how much disk they may take.', schema: store },
  content: { doc: "The socket that stands in for containerd's content store.", schema: content },
  swarm: { doc: 'The other hosts.', schema: swarm },
  pull: { doc: 'How blobs are fetched from peers.', schema: pull },
  registry: { doc: 'Where registries are, and what they are shown.', schema: registry },
  metrics: { doc: 'What monitoring sees.', schema: metrics },
  log: { doc: 'What is written to the journal.', schema: log },
} as const;

export type SectionName = keyof typeof SECTIONS;

type DeepReadonly<T> = T extends readonly (infer E)[]
  ? readonly E[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** The effective configuration: every key is there, nothing can be changed. Each room gets its own section. */
export type Config = {
  readonly [S in SectionName]: DeepReadonly<z.output<(typeof SECTIONS)[S]['schema']>>;
};
