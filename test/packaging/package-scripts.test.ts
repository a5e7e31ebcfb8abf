import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { DEB_SCRIPTS, maintainerScript, RPM_SCRIPTS } from '../../packaging/maintainer-script.ts';
import { removeTree, ROOT, scratch } from './package-bench.ts';

const names = [
  ...DEB_SCRIPTS.map((name) => `deb-${name}`),
  ...RPM_SCRIPTS.map((name) => `rpm-${name}`),
];

for (const name of names) {
  test(`${name} is plain sh and stands alone`, () => {
    const text = maintainerScript(ROOT, name);
    assert.doesNotMatch(text, /^#include/m);
    const { status, stderr } = spawnSync('dash', ['-n'], { input: text, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  });

  test(`${name} never touches containerd`, () => {
    const commands = maintainerScript(ROOT, name)
      .split('\n')
      .filter((line) => /systemctl|deb-systemd-invoke/.test(line) && !/^\s*#/.test(line));
    for (const line of commands) assert.doesNotMatch(line, /containerd/);
  });
}

/** A script whose paths lead into a tree of the test, with programs that only say how they were called. */
function bench(t: TestContext, name: string) {
  const root = scratch();
  t.after(() => removeTree(root));
  const bin = join(root, 'bin');
  mkdirSync(bin);
  const program = (file: string, body: string): void => {
    writeFileSync(join(bin, file), `#!/bin/sh\n${body}\n`);
    chmodSync(join(bin, file), 0o755);
  };
  for (const file of ['systemctl', 'deb-systemd-helper', 'deb-systemd-invoke']) {
    program(
      file,
      `echo "${file} $*" >>"${root}/calls"\ncase " $* " in *" is-active "*) exit 3 ;; esac`,
    );
  }
  program('layerswarm', 'exit 0');
  mkdirSync(join(root, 'run/systemd/system'), { recursive: true });
  const text = maintainerScript(ROOT, name).replaceAll(
    /(?<![\w.])\/(etc|run|var|usr\/lib\/systemd|lib\/systemd)\//g,
    `${root}/$1/`,
  );
  // These scripts remove things: not one of their paths may lead out of the tree.
  const paths = text.match(/\/[\w./-]*/g) ?? [];
  for (const path of paths.filter((at) => /^\/(etc|run|var|usr\/lib|lib)\//.test(at))) {
    assert.fail(`${name} would touch ${path}`);
  }
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync('dash', ['-s', ...args], {
      input: text,
      encoding: 'utf8',
      env: { PATH: `${bin}:/usr/bin:/bin` },
    });
    return { status, said: stdout + stderr };
  };
  const put = (path: string, content: string): void => {
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  const calls = (): string => spawnSync('cat', [join(root, 'calls')], { encoding: 'utf8' }).stdout;
  const files = (): string[] =>
    ['etc', 'var']
      .flatMap((top) =>
        existsSync(join(root, top))
          ? readdirSync(join(root, top), { recursive: true, withFileTypes: true })
              .filter((entry) => entry.isFile())
              .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
          : [],
      )
      .sort();
  return { run, put, calls, program, files };
}

const removals = [
  { name: 'deb-prerm', args: ['remove'] },
  { name: 'rpm-preun', args: ['0'] },
];
const wirings = [
  { id: 'by the drop-in', path: 'etc/containerd/conf.d/50-layerswarm.toml', content: '' },
  {
    id: 'by hand in the main file',
    path: 'etc/containerd/config.toml',
    content: 'version = 2\n[proxy_plugins.layerswarm]\n  type = "content"\n',
  },
];

for (const { name, args } of removals) {
  for (const { id, path, content } of wirings) {
    test(`${name} refuses a removal while containerd is wired ${id}, and says the command`, (t) => {
      const { run, put, calls } = bench(t, name);
      put(path, content);
      const { status, said } = run(...args);
      assert.equal(status, 1);
      assert.match(said, /layerswarm teardown/);
      assert.doesNotMatch(calls(), /stop|disable/);
    });
  }

  test(`${name} refuses a removal that "teardown --check" forbids`, (t) => {
    const { run, program } = bench(t, name);
    program('layerswarm', '[ "$*" = "teardown --check" ] && exit 1');
    assert.equal(run(...args).status, 1);
  });

  test(`${name} lets a broken installation be removed`, (t) => {
    const { run, program } = bench(t, name);
    program('layerswarm', 'exit 70');
    assert.equal(run(...args).status, 0);
  });

  test(`${name} stops both units when nothing is wired, a commented-out wiring included`, (t) => {
    const { run, put, calls } = bench(t, name);
    put('etc/containerd/config.toml', 'version = 2\n# [proxy_plugins.layerswarm]\n');
    const { status, said } = run(...args);
    assert.equal(status, 0, said);
    assert.match(calls(), /(stop|disable --now) layerswarm\.service layerswarm\.socket/);
  });
}

for (const { name, args } of [
  { name: 'deb-prerm', args: ['upgrade', '0.2.0-1'] },
  { name: 'rpm-preun', args: ['1'] },
]) {
  test(`${name} leaves the daemon running at an upgrade, wired or not`, (t) => {
    const { run, put, calls } = bench(t, name);
    put('etc/containerd/conf.d/50-layerswarm.toml', '');
    assert.equal(run(...args).status, 0);
    assert.equal(calls(), '');
  });
}

for (const { name, args } of [
  { name: 'deb-postinst', args: ['configure', ''] },
  { name: 'rpm-post', args: ['1'] },
]) {
  test(`${name} does not start without a cluster key at the first installation, and says what to do`, (t) => {
    const { run, calls } = bench(t, name);
    const { status, said } = run(...args);
    assert.equal(status, 0, said);
    assert.match(said, /layerswarm setup --cluster-key FILE/);
    assert.doesNotMatch(calls(), /(invoke|systemctl) start/);
  });

  test(`${name} enables and starts nothing at the first installation, even with a key: that is setup's work`, (t) => {
    const { run, put, calls } = bench(t, name);
    put('etc/layerswarm/cluster.key', 'k');
    const { said } = run(...args);
    assert.doesNotMatch(calls(), /(^|[- ])(start|enable) /m);
    assert.match(said, /installed, not started.*layerswarm setup/);
  });

  test(`${name} enables and starts socket and service when containerd is wired to them already`, (t) => {
    const { run, put, calls } = bench(t, name);
    put('etc/containerd/conf.d/50-layerswarm.toml', '');
    run(...args);
    assert.match(calls(), /enable /);
    assert.match(calls(), /start layerswarm\.socket layerswarm\.service/);
  });
}

test('an upgrade of the deb restarts the service only if it runs', (t) => {
  const idle = bench(t, 'deb-postinst');
  idle.put('etc/layerswarm/cluster.key', 'k');
  assert.equal(idle.run('configure', '0.1.0-1').status, 0);
  assert.doesNotMatch(idle.calls(), /deb-systemd-invoke/);
  const running = bench(t, 'deb-postinst');
  running.program('systemctl', 'exit 0');
  assert.equal(running.run('configure', '0.1.0-1').said, '');
  assert.match(running.calls(), /deb-systemd-invoke restart layerswarm\.service/);
  assert.doesNotMatch(running.calls(), /layerswarm\.socket.*restart|restart .*layerswarm\.socket/);
});

test('an upgrade of the rpm restarts the service only if it runs, the last removal not at all', (t) => {
  const upgrade = bench(t, 'rpm-postun');
  assert.equal(upgrade.run('1').status, 0);
  assert.match(upgrade.calls(), /try-restart layerswarm\.service/);
  const removal = bench(t, 'rpm-postun');
  assert.equal(removal.run('0').status, 0);
  assert.doesNotMatch(removal.calls(), /restart/);
});

test('a removed deb keeps key and state; a purged one leaves nothing but what others put there', (t) => {
  const { run, put, files } = bench(t, 'deb-postrm');
  const ours = [
    'etc/layerswarm/cluster.key',
    'etc/systemd/system/layerswarm.service.d/50-layerswarm-setup.conf',
    'var/lib/containerd/io.containerd.content.v1.content/.layerswarm/lock',
    'var/lib/layerswarm/identity.key',
  ];
  const others = [
    'etc/systemd/system/layerswarm.service.d/mine.conf',
    'var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/aa',
  ];
  for (const path of [...ours, ...others, 'var/cache/layerswarm/v8/x']) put(path, 'x');
  assert.equal(run('remove').status, 0);
  assert.deepEqual(files(), [...ours, ...others].sort());
  assert.equal(run('purge').status, 0);
  assert.deepEqual(files(), others);
  assert.equal(run('purge').status, 0, 'a second time it has nothing to do');
});
