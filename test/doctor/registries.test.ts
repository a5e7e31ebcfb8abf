import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
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
    facts: runs({ config_path: LIST, files: [] }),
    level: 'ok',
    says: /no hosts.toml/,
  },
  {
    id: 'a list that 2.x takes for one directory',
    facts: runs({ config_path: LIST }),
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
    cri_config_path: `${root}/a:${root}/b:${root}/none`,
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

test("CRI's config_path is found in the dumps of 1.x and 2.x", () => {
  const registry = { config_path: '/certs' };
  for (const name of ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images']) {
    assert.equal(dumpFacts({ plugins: { [name]: { registry } } }).cri_config_path, '/certs');
  }
  assert.equal(dumpFacts({}).cri_config_path, '');
});
