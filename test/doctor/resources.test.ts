// What the checks of disk, decompressors and kernel limits make of what they saw.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type DecompressorFacts,
  judgeDecompressors,
  parseDistribution,
} from '../../src/host/doctor/decompressors.ts';
import { type DirectoryFacts, judgeDisk } from '../../src/host/doctor/disk.ts';
import { judgeSocketBuffers } from '../../src/host/doctor/socket-buffers.ts';
import { judgeTable as table } from './doctor-bench.ts';

const GIB = 1024 ** 3;
type There = Extract<DirectoryFacts['found'], { state: 'there' }>;
const there = (over: Partial<There> = {}): There => ({
  state: 'there',
  device: 1,
  free_bytes: 100 * GIB,
  inodes_free: 1e6,
  unwritable: undefined,
  daemon_unwritable: undefined,
  ...over,
});
const disk = (
  content: DirectoryFacts['found'],
  work: DirectoryFacts['found'] = there(),
  state: DirectoryFacts['found'] = there(),
  creates_content = false,
) => ({
  floor_bytes: GIB,
  creates_content,
  directories: [
    { name: 'content', path: '/c', found: content },
    { name: 'work', path: '/c/w', found: work },
    { name: 'state', path: '/s', found: state },
  ] as const,
});

table('disk', judgeDisk, [
  { id: 'room enough', facts: disk(there()), level: 'ok', says: /100\.0 GiB free/ },
  {
    id: 'no content directory',
    facts: disk({ state: 'missing' }),
    level: 'fail',
    says: /\/c is not there/,
    mend: 'layerswarm setup',
  },
  {
    id: 'the daemon will make it',
    facts: disk({ state: 'missing' }, { state: 'missing' }, there(), true),
    level: 'note',
    says: /makes it/,
  },
  {
    id: 'before the first start',
    facts: disk(there(), { state: 'missing' }, { state: 'missing' }),
    level: 'note',
    says: /\/s is not there yet/,
  },
  {
    id: 'a file in its place',
    facts: disk({ state: 'no-directory' }),
    level: 'fail',
    says: /no|not a directory/,
  },
  {
    id: 'read-only',
    facts: disk(there({ unwritable: 'EROFS' })),
    level: 'fail',
    says: /read-only/,
    mend: 'remount,rw',
  },
  {
    id: 'not ours',
    facts: disk(there({ unwritable: 'EACCES' })),
    level: 'fail',
    says: /EACCES/,
    mend: 'sudo',
  },
  {
    id: 'read-only for the daemon',
    facts: disk(there({ daemon_unwritable: 'EROFS' })),
    level: 'fail',
    says: /the daemon cannot write/,
    mend: 'systemctl restart layerswarm.service',
  },
  {
    id: 'below the floor',
    facts: disk(there({ free_bytes: GIB / 2 })),
    level: 'warn',
    says: /512 MiB free, below its floor of 1\.0 GiB/,
    mend: 'rmi --prune',
  },
  {
    id: 'full',
    facts: disk(there({ free_bytes: 1e6 })),
    level: 'fail',
    says: /full/,
    mend: 'rmi --prune',
  },
  {
    id: 'few inodes',
    facts: disk(there({ inodes_free: 12 })),
    level: 'warn',
    says: /12 inodes/,
    mend: 'rmi',
  },
  {
    id: 'no inodes',
    facts: disk(there({ inodes_free: 0 })),
    level: 'fail',
    says: /0 inodes/,
    mend: 'rmi',
  },
  {
    id: 'inodes without limit',
    facts: disk(there({ inodes_free: undefined })),
    level: 'ok',
    says: /free/,
  },
  {
    id: 'another file system for the work',
    facts: disk(there(), there({ device: 2 })),
    level: 'fail',
    says: /not on the file system/,
    mend: 'work_directory',
  },
  {
    id: 'another file system for the state',
    facts: disk(there(), there(), there({ device: 2 })),
    level: 'ok',
    says: /free/,
  },
  {
    id: 'a full one for the state',
    facts: disk(there(), there(), there({ device: 2, free_bytes: 1 })),
    level: 'fail',
    says: /\/s is full/,
    mend: 'rmi',
  },
]);

const unpackers = (
  over: Partial<Extract<DecompressorFacts, { kind: 'runs' }>>,
): DecompressorFacts => ({
  kind: 'runs',
  version: '2.1.9',
  search_path: '/bin',
  found: {},
  disabled: [],
  distribution: 'debian',
  restart: 'systemctl restart containerd',
  ...over,
});
const igzip = { igzip: { path: '/bin/igzip', is_new: false } };
const unpigz = { unpigz: { path: '/bin/unpigz', is_new: false } };

table<DecompressorFacts>('decompressors', judgeDecompressors, [
  { id: 'no containerd', facts: { kind: 'absent' }, level: 'note', says: /no containerd/ },
  {
    id: '2.1 with igzip',
    facts: unpackers({ found: igzip }),
    level: 'ok',
    says: /igzip \(\/bin\/igzip\)/,
  },
  {
    id: '2.1 with unpigz only',
    facts: unpackers({ found: unpigz }),
    level: 'note',
    says: /igzip it would/,
    mend: 'apt install isal',
  },
  {
    id: '2.1 with neither',
    facts: unpackers({}),
    level: 'note',
    says: /no igzip or unpigz/,
    mend: 'apt install isal',
  },
  {
    id: '2.1 of unknown distribution',
    facts: unpackers({ distribution: 'other' }),
    level: 'note',
    says: /no igzip/,
    mend: 'igzip',
  },
  {
    id: '1.7 with unpigz',
    facts: unpackers({ version: '1.7.24', found: unpigz }),
    level: 'ok',
    says: /unpigz/,
  },
  {
    id: '1.7 with igzip only',
    facts: unpackers({ version: '1.7.24', found: igzip }),
    level: 'note',
    says: /no unpigz/,
    mend: 'apt install pigz',
  },
  {
    id: '2.0 knows unpigz only',
    facts: unpackers({ version: '2.0.5', found: igzip }),
    level: 'note',
    says: /no unpigz/,
    mend: 'pigz',
  },
  {
    id: '1.6 on Fedora',
    facts: unpackers({ version: '1.6.20', distribution: 'fedora' }),
    level: 'note',
    says: /1\.6\.20/,
    mend: 'dnf install pigz',
  },
  {
    id: 'switched off',
    facts: unpackers({ found: igzip, disabled: ['igzip'] }),
    level: 'note',
    says: /environment/,
    mend: 'CONTAINERD_DISABLE_IGZIP',
  },
  {
    id: 'installed a moment ago',
    facts: unpackers({ found: { igzip: { path: '/bin/igzip', is_new: true } } }),
    level: 'note',
    says: /after containerd's start/,
    mend: 'systemctl restart containerd',
  },
]);

const buffers = (over: object = {}) => ({
  uses_quic: true,
  rmem_max: 4_194_304,
  wmem_max: 4_194_304,
  has_drop_in: true,
  ...over,
});

table('socket buffers', judgeSocketBuffers, [
  { id: 'large enough', facts: buffers(), level: 'ok', says: /4 MiB/ },
  {
    id: 'small, the packaged file is not in force',
    facts: buffers({ rmem_max: 212_992 }),
    level: 'warn',
    says: /rmem_max is 212992/,
    mend: 'sysctl --system',
  },
  {
    id: 'small, without the packaged file',
    facts: buffers({ wmem_max: 1, has_drop_in: false }),
    level: 'warn',
    says: /wmem_max/,
    mend: 'sysctl -w net.core.wmem_max=4194304',
  },
  {
    id: 'small, without QUIC',
    facts: buffers({ uses_quic: false, rmem_max: 1 }),
    level: 'ok',
    says: /do not matter/,
  },
  { id: 'hidden', facts: buffers({ rmem_max: undefined }), level: 'note', says: /does not show/ },
]);

test('the way to install is chosen by os-release, also of those that are like another', () => {
  const cases: [string, string][] = [
    ['ID=debian\nVERSION_ID="12"\n', 'debian'],
    ['NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n', 'debian'],
    ['ID="rocky"\nID_LIKE="rhel centos fedora"\n', 'fedora'],
    ['ID=fedora\n', 'fedora'],
    ['ID=arch\n', 'other'],
    ['', 'other'],
  ];
  for (const [text, expected] of cases) assert.equal(parseDistribution(text), expected, text);
});
