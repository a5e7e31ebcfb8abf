/**
 * The house as a table: a room imports only from the floors below it, never a neighbour on its own floor.
 * `daemon.ts` (the roof) is the one file that joins rooms; `main.ts` picks the subcommand.
 */
const ground = '(base|oci|piece)/|ops/(register|logger)\\.ts';
const rooms = {
  base: '',
  oci: 'base/',
  piece: '(base|oci)/',
  config: 'base/',
  ops: '(base|config)/',
  store: ground,
  swarm: `${ground}|store/blob-store\\.ts`,
  registry: ground,
  pull: `${ground}|store/blob-store\\.ts`,
  rpc: `${ground}|gen/`,
  host: 'base/|config/|oci/|ops/(register|logger)\\.ts',
  content: `${ground}|rpc/|pull/pull-port\\.ts|store/blob-store\\.ts|gen/`,
  control: `${ground}|rpc/|gen/`,
  cli: `${ground}|rpc/|config/|gen/|host/|registry/`,
};
/**
 * Rooms inside the store, the lower ones first: each may import only from those it names. `local-store.ts` at its door joins them;
 * the promises (blob-store.ts), the settings and the metrics there are for all.
 */
const storeDoor = '(blob-store|store-config|metrics)\\.ts';
const storeRooms = {
  disk: storeDoor,
  blobs: `${storeDoor}|disk/`,
  staging: `${storeDoor}|(disk|blobs)/`,
  sharing: `${storeDoor}|(disk|blobs)/`,
  ingests: `${storeDoor}|(disk|blobs|staging)/`,
};
/**
 * The swarm's inner rooms, by the same rule. A room imports only from the rooms named beside it; `swarm.ts` joins them. The door's
 * `config.ts`, `metrics.ts` and `peer-directory.ts` are known to all, as types.
 */
const transport = 'transport|ground';
const swarmRooms = {
  ground: '',
  transport: 'ground',
  admission: transport,
  inventory: transport,
  exchange: transport,
  membership: `admission|inventory|exchange|${transport}`,
};
const swarmDoor = '(config|metrics|peer-directory)\\.ts';
const swarmRules = [
  ...Object.entries(swarmRooms).map(([room, may]) => ({
    name: `swarm-${room}`,
    comment: `src/swarm/${room} may import of the swarm only: ${may || 'nothing'}, and the door's types`,
    severity: 'error',
    from: { path: `^src/swarm/${room}/` },
    to: { path: '^src/swarm/', pathNot: `^src/swarm/((${room}${may ? `|${may}` : ''})/|${swarmDoor}$)` },
  })),
  {
    name: 'swarm-door-as-types',
    comment: "the swarm's rooms take nothing but types from its door",
    severity: 'error',
    from: { path: '^src/swarm/[^/]+/' },
    to: { path: `^src/swarm/${swarmDoor}$`, dependencyTypesNot: ['type-only'] },
  },
  {
    name: 'swarm-door-is-low',
    comment: 'what all rooms of the swarm know knows none of them but the ground',
    severity: 'error',
    from: { path: `^src/swarm/${swarmDoor}$` },
    to: { path: '^src/swarm/', pathNot: `^src/swarm/(ground/|${swarmDoor}$)` },
  },
];
/**
 * The registry's inner rooms, the lower ones first, by the same rule; `registry-client.ts` at its door joins them.
 */
const registryRooms = {
  ground: '',
  places: 'ground',
  credentials: 'ground',
  wire: 'ground|places|credentials',
};
const registryRules = [
  ...Object.entries(registryRooms).map(([room, may]) => ({
    name: `registry-${room}`,
    comment: `src/registry/${room} may import of the registry only: ${may || 'nothing'}`,
    severity: 'error',
    from: { path: `^src/registry/${room}/` },
    to: { path: '^src/registry/', pathNot: `^src/registry/(${room}${may ? `|${may}` : ''})/` },
  })),
  {
    name: 'registry-inner-rooms-are-private',
    comment: 'the other rooms and the roof see the door only',
    severity: 'error',
    from: { path: '^src/', pathNot: '^src/registry/' },
    to: { path: '^src/registry/[a-z]+/' },
  },
];
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } } },
    ...Object.entries(rooms).map(([room, may]) => ({
      name: `floor-${room}`,
      comment: `src/${room} may import only: ${may || 'nothing of ours'}`,
      severity: 'error',
      from: { path: `^src/${room}/` },
      to: { path: '^src/', pathNot: `^src/(${room}/${may ? `|${may}` : ''})` },
    })),
    ...Object.entries(storeRooms).map(([room, may]) => ({
      name: `store-${room}`,
      comment: `src/store/${room} may import of the store only: ${may}`,
      severity: 'error',
      from: { path: `^src/store/${room}/` },
      to: { path: '^src/store/', pathNot: `^src/store/(${room}/|${may})` },
    })),
    {
      name: 'store-door-is-low',
      comment: 'what all rooms of the store import knows none of them',
      severity: 'error',
      from: { path: `^src/store/${storeDoor}` },
      to: { path: '^src/store/', pathNot: `^src/store/${storeDoor}` },
    },
    {
      name: 'store-inner-rooms-are-private',
      comment: 'the other rooms and the roof see the door only',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/store/' },
      to: { path: '^src/store/[a-z]+/' },
    },
    ...swarmRules,
    ...registryRules,
    { name: 'only-registry-knows-undici', severity: 'error', from: { path: '^src/', pathNot: '^src/registry/wire/' }, to: { path: 'node_modules/undici' } },
    { name: 'only-swarm-knows-libp2p', severity: 'error', from: { path: '^src/', pathNot: '^src/swarm/' }, to: { path: 'node_modules/(@libp2p|libp2p|@chainsafe/libp2p|@multiformats)' } },
    { name: 'only-rpc-and-doors-know-grpc', severity: 'error', from: { path: '^src/', pathNot: '^src/(rpc|content|control)/' }, to: { path: 'node_modules/@grpc' } },
    { name: 'pure-ground', comment: 'oci and piece do no input or output', severity: 'error', from: { path: '^src/(oci|piece)/' }, to: { path: '^(node:)?(fs|net|http|https|http2|tls|dgram|child_process)' } },
    { name: 'product-never-imports-tests', severity: 'error', from: { path: '^src/' }, to: { path: '^test/' } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|src/gen)' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.json'] },
  },
};
