import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCommand } from './options.ts';
import { planHosts } from './plan.ts';

test('without flags three hosts of all containerd lines pull 160 MiB', () => {
  const command = parseCommand([], '/somewhere');
  assert.deepEqual(command, {
    kind: 'run',
    options: {
      hosts: 3,
      image_mib: 160,
      containerd: 'mixed',
      igzip: false,
      from_package: false,
    },
  });
  assert.deepEqual(
    planHosts({ hosts: 5, containerd: 'mixed' }).map((h) => `${h.label} ${h.client} ${h.line}`),
    ['A ctr 1.7', 'B ctr 2.1', 'C cri 1.6', 'D ctr 1.7', 'E cri 2.1'],
  );
});

test('every flag reaches the run, and paths are those of the caller', () => {
  const args =
    '--hosts 16 --image-mib 500 --containerd 2.1 --igzip --from-package --json a.json --keep-logs /l';
  assert.deepEqual(parseCommand(args.split(' '), '/home/me'), {
    kind: 'run',
    options: {
      hosts: 16,
      image_mib: 500,
      containerd: '2.1',
      igzip: true,
      from_package: true,
      json: '/home/me/a.json',
      keep_logs: '/l',
    },
  });
  assert.deepEqual(
    new Set(planHosts({ hosts: 3, containerd: '2.1' }).map((h) => h.line)),
    new Set(['2.1']),
  );
  assert.deepEqual(parseCommand(['--help', '--igzip'], '/'), { kind: 'help' });
});

test('a wrong flag is told in one sentence', () => {
  const cases = [
    ['--hosts', '1'],
    ['--hosts', '17'],
    ['--hosts', '3.5'],
    ['--hosts'],
    ['--image-mib', '15'],
    ['--image-mib', '-5'],
    ['--containerd', '1.5'],
    ['--json', ''],
    ['--nonsense'],
    ['word'],
  ];
  for (const args of cases) {
    const command = parseCommand(args, '/');
    if (command.kind !== 'wrong') assert.fail(`${args.join(' ')} is taken`);
    assert.match(command.message, /^[^\n]{10,120}$/);
  }
});
