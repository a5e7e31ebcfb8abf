import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { effectiveConfigPath, isTakenWhole } from '../../src/host/cri-registries.ts';
import { dumpFacts } from '../../src/host/config-dump.ts';
import {
  judgeRegistries,
  registriesCheck,
  type RegistriesFacts,
} from '../../src/host/doctor/registries.ts';
import { doctorModules, judgeTable } from './doctor-bench.ts';

const FILE = '/etc/containerd/certs.d/reg.example/hosts.toml';
const LIST = '/etc/containerd/certs.d:/etc/docker/certs.d';

function runs(over: Partial<Extract<RegistriesFacts, { kind: 'runs' }>>): RegistriesFacts {
  return {
    kind: 'runs',
    version: '2.3.4',
    config_file: '/etc/containerd/config.toml',
    config_path: '/etc/containerd/certs.d',
    is_taken_whole: false,
    files: [{ file: FILE, kind: 'hosts' }],
    restart: 'systemctl restart containerd',
    ...over,
  };
}

judgeTable('registries', judgeRegistries, [
  { id: 'one directory', facts: runs({}), level: 'ok', says: /1 hosts.toml counts/ },
  { id: 'no file', facts: runs({ files: [] }), level: 'ok', says: /no hosts.toml/ },
  {
    id: 'the default list of 2.3 without any file',
    facts: runs({ config_path: LIST, is_taken_whole: true, files: [] }),
    level: 'ok',
    says: /no hosts.toml/,
  },
  {
    id: 'a list that 2.x takes for one directory',
    facts: runs({ config_path: LIST, is_taken_whole: true }),
    level: 'warn',
    says: /2\.3\.4 takes .* for one directory: \/etc\/containerd\/certs\.d\/reg\.example\/hosts\.toml does not count/,
    mend: 'config_path = "/etc/containerd/certs.d"',
  },
  {
    id: 'a list with 1.7',
    facts: runs({ config_path: LIST, version: '1.7.24' }),
    level: 'ok',
    says: /counts/,
  },
  {
    id: 'a file with a server alone, and 1.7',
    facts: runs({ version: '1.7.24', files: [{ file: FILE, kind: 'server_only' }] }),
    level: 'warn',
    says: /1\.7\.24 ignores .*hosts\.toml/,
    mend: FILE,
  },
  {
    id: 'a file with a server alone, and 2.3',
    facts: runs({ files: [{ file: FILE, kind: 'server_only' }] }),
    level: 'ok',
    says: /counts/,
  },
  {
    id: 'a file that is no TOML',
    facts: runs({ files: [{ file: FILE, kind: 'broken' }] }),
    level: 'warn',
    says: /cannot read .*hosts\.toml/,
  },
  { id: 'no containerd', facts: { kind: 'absent' }, level: 'note', says: /no containerd/ },
  {
    id: 'a containerd that does not say',
    facts: { kind: 'unknown', why: 'it ended with 1' },
    level: 'note',
    says: /it ended with 1/,
  },
]);

test('the files of every root are looked at, and what is in them is told apart', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'layerswarm-registries-'));
  t.after(() => rmSync(root, { recursive: true }));
  const put = (path: string, text: string): string => {
    mkdirSync(join(root, path), { recursive: true });
    const file = join(root, path, 'hosts.toml');
    writeFileSync(file, text);
    return file;
  };
  const files = [
    { file: put('a/one', 'server = "https://x"\n[host."https://y"]\n'), kind: 'hosts' },
    { file: put('a/two', 'server = "https://x"\n'), kind: 'server_only' },
    { file: put('b/one', 'server ='), kind: 'broken' },
  ];
  mkdirSync(join(root, 'b/empty'));
  const effective = {
    ...dumpFacts({}),
    imports: [],
    cri_registries: {
      config_path: `${root}/a:${root}/b:${root}/none`,
      has_mirrors: false,
      pulls_locally: false,
    },
  };
  const process = {
    binary: '/usr/bin/containerd',
    config_file: '/etc/containerd/config.toml',
    unit: 'containerd.service',
  };
  const probe = { kind: 'runs', process, version: '1.7.24', effective } as never;
  const context = {
    ...doctorModules(),
    daemon: () => Promise.reject(new Error('not asked')),
    containerd: async () => probe,
  };
  const facts = await registriesCheck.gather(context, new AbortController().signal);
  assert.deepEqual(facts.kind === 'runs' && facts.files, files);
});

const images = 'io.containerd.cri.v1.images';

/** A dump with these settings of CRI's plugin, and what becomes of its `config_path`. */
const dumps = [
  {
    id: '1.7',
    version: '1.7.24',
    plugins: { 'io.containerd.grpc.v1.cri': { registry: { config_path: LIST } } },
    effective: LIST,
    is_taken_whole: false,
  },
  {
    id: '2.1 with a list',
    version: '2.1.9',
    plugins: { [images]: { registry: { config_path: LIST } } },
    effective: LIST,
    is_taken_whole: true,
  },
  {
    id: '2.1 with a list and layers discarded, which makes it pull by itself',
    version: '2.1.9',
    plugins: { [images]: { discard_unpacked_layers: true, registry: { config_path: LIST } } },
    effective: LIST,
    is_taken_whole: false,
  },
  {
    id: '2.1 without any',
    version: '2.1.9',
    plugins: { [images]: { registry: { config_path: '' } } },
    effective: '',
    is_taken_whole: false,
  },
  {
    id: '2.3 without any, whose default the dump does not show',
    version: '2.3.7',
    plugins: { [images]: { max_concurrent_downloads: 3, registry: { config_path: '' } } },
    effective: LIST,
    is_taken_whole: true,
  },
  {
    id: '2.3 with mirrors of old',
    version: '2.3.7',
    plugins: { [images]: { registry: { config_path: '', mirrors: { 'docker.io': {} } } } },
    effective: '',
    is_taken_whole: false,
  },
  {
    id: '2.3 with one directory',
    version: '2.3.7',
    plugins: { [images]: { registry: { config_path: '/certs' } } },
    effective: '/certs',
    is_taken_whole: false,
  },
];

for (const { id, version, plugins, effective, is_taken_whole } of dumps) {
  test(`the config_path in force: containerd ${id}`, () => {
    const { cri_registries } = dumpFacts({ plugins });
    assert.equal(effectiveConfigPath(cri_registries, version), effective);
    assert.equal(isTakenWhole(cri_registries, version), is_taken_whole);
  });
}
