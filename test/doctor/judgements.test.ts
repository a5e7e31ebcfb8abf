// What the checks of the daemon itself make of what they saw: one table per check.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DegradedFacts, judgeDegraded } from '../../src/host/doctor/degraded.ts';
import { judgeClusterKey, type ClusterKeyFacts } from '../../src/host/doctor/cluster-key.ts';
import { judgeConfig } from '../../src/host/doctor/config.ts';
import { judgeService, parseUnits, type ServiceFacts } from '../../src/host/doctor/service.ts';
import { judgeSocket, type SocketFacts } from '../../src/host/doctor/socket.ts';
import { healthyView, judgeTable as table } from './doctor-bench.ts';

const failed = (
  kind: 'no-file' | 'refused' | 'no-permission' | 'hangs' | 'broken',
): SocketFacts => ({
  socket_path: '/run/x.sock',
  probe: { kind, message: 'why' },
});

table('socket', judgeSocket, [
  {
    id: 'a daemon that answers is ok',
    facts: {
      socket_path: '/run/x.sock',
      probe: { kind: 'answers', view: healthyView(), elapsed_ms: 3 },
    },
    level: 'ok',
    says: /pid 42.*\/run\/x\.sock/,
  },
  {
    id: 'a daemon that drains is warned of',
    facts: {
      socket_path: '/run/x.sock',
      probe: { kind: 'answers', view: healthyView({ state: 'draining' }), elapsed_ms: 3 },
    },
    level: 'warn',
    says: /draining/,
    mend: 'status --watch',
  },
  {
    id: 'no file',
    facts: failed('no-file'),
    level: 'fail',
    says: /no socket/,
    mend: 'enable --now',
  },
  {
    id: 'refused',
    facts: failed('refused'),
    level: 'fail',
    says: /nobody listens/,
    mend: 'restart',
  },
  {
    id: 'no permission',
    facts: failed('no-permission'),
    level: 'fail',
    says: /root/,
    mend: 'sudo',
  },
  { id: 'hangs', facts: failed('hangs'), level: 'fail', says: /1000 ms/, mend: 'journalctl' },
  { id: 'something else', facts: failed('broken'), level: 'fail', says: /why/, mend: 'restart' },
]);

const unit = (id: string, over: Record<string, string> = {}) => ({
  Id: id,
  LoadState: 'loaded',
  ActiveState: 'active',
  UnitFileState: 'enabled',
  Result: 'success',
  NRestarts: '0',
  NeedDaemonReload: 'no',
  MainPID: id.endsWith('service') ? '42' : '0',
  ...over,
});
const units = (over: Record<string, string> = {}, daemon_pid = 42): ServiceFacts => ({
  systemd: true,
  units: [unit('layerswarm.socket'), unit('layerswarm.service', over)],
  daemon_pid,
});

table<ServiceFacts>('service', judgeService, [
  { id: 'all active', facts: units(), level: 'ok', says: /start with the host/ },
  { id: 'no systemd', facts: { systemd: false }, level: 'note', says: /systemd does not run/ },
  {
    id: 'a failed unit',
    facts: units({ ActiveState: 'failed', Result: 'watchdog' }),
    level: 'fail',
    says: /watchdog/,
    mend: 'systemctl reset-failed layerswarm.service',
  },
  {
    id: 'a stopped unit',
    facts: units({ ActiveState: 'inactive' }),
    level: 'fail',
    says: /inactive/,
    mend: 'systemctl start layerswarm.service',
  },
  {
    id: 'a unit that starts',
    facts: units({ ActiveState: 'activating' }),
    level: 'warn',
    says: /activating/,
    mend: 'start',
  },
  {
    id: 'a unit that is not enabled',
    facts: units({ UnitFileState: 'disabled' }),
    level: 'warn',
    says: /does not start with the host/,
    mend: 'systemctl enable layerswarm.service',
  },
  {
    id: 'a unit that is not there',
    facts: units({ LoadState: 'not-found' }),
    level: 'warn',
    says: /not installed/,
    mend: 'install',
  },
  {
    id: 'a masked unit',
    facts: units({ LoadState: 'masked' }),
    level: 'fail',
    says: /masked/,
    mend: 'systemctl unmask',
  },
  {
    id: 'a unit that changed on disk',
    facts: units({ NeedDaemonReload: 'yes' }),
    level: 'warn',
    says: /changed on disk/,
    mend: 'systemctl daemon-reload',
  },
  {
    id: 'a unit that was restarted often',
    facts: units({ NRestarts: '7' }),
    level: 'note',
    says: /7 times/,
    mend: 'journalctl',
  },
  {
    id: 'another daemon on the socket',
    facts: units({}, 99),
    level: 'warn',
    says: /pid 99.*pid 42/,
    mend: 'kill 99',
  },
]);

test('service: the answer of systemctl show is read unit by unit', () => {
  const text = 'Id=a.socket\nActiveState=active\n\nId=b.service\nResult=exit=1\n';
  assert.deepEqual(parseUnits(text), [
    { Id: 'a.socket', ActiveState: 'active' },
    { Id: 'b.service', Result: 'exit=1' },
  ]);
});

table('config', judgeConfig, [
  { id: 'right', facts: { file: '/c', state: 'loaded', problems: [] }, level: 'ok', says: /right/ },
  {
    id: 'absent',
    facts: { file: '/c', state: 'absent', problems: [] },
    level: 'note',
    says: /default/,
  },
  {
    id: 'every problem is told',
    facts: { file: '/c', state: 'unusable', problems: ['one is wrong', 'two is wrong'] },
    level: 'fail',
    says: /one is wrong/,
    mend: 'layerswarm config check /c',
  },
]);

table<DegradedFacts>('degraded', judgeDegraded, [
  { id: 'nothing', facts: { conditions: [] }, level: 'ok', says: /misses nothing/ },
  { id: 'no daemon', facts: { conditions: undefined }, level: 'note', says: /no daemon/ },
  {
    id: 'a condition',
    facts: {
      conditions: [
        { cause: 'cluster_key', what: 'no key', mend: ['chmod 600 /k'], sinceSeconds: 3 },
      ],
    },
    level: 'fail',
    says: /cluster_key: no key/,
    mend: 'chmod 600 /k',
  },
]);

const key = (
  file: Partial<Extract<ClusterKeyFacts['file'], { state: 'there' }>>,
  started?: number,
) =>
  ({
    swarm_enabled: true,
    path: '/k',
    file: {
      state: 'there',
      mode: 0o600,
      uid: 0,
      modified_epoch_ms: 1e12,
      problem: undefined,
      ...file,
    },
    swarm_started_epoch_ms: started,
  }) as const;

table<ClusterKeyFacts>('cluster key', judgeClusterKey, [
  { id: 'good', facts: key({}, 2e12), level: 'ok', says: /root alone/ },
  {
    id: 'no swarm, no key',
    facts: { ...key({}), swarm_enabled: false, file: { state: 'missing' } },
    level: 'note',
    says: /off/,
  },
  {
    id: 'missing',
    facts: { ...key({}), file: { state: 'missing' } },
    level: 'fail',
    says: /no cluster key/,
    mend: 'layerswarm keygen --out /k',
  },
  {
    id: 'not for our eyes',
    facts: { ...key({}), file: { state: 'unreadable', errno: 'EACCES' } },
    level: 'fail',
    says: /EACCES/,
    mend: 'sudo',
  },
  {
    id: 'mode 0644',
    facts: key({ mode: 0o644, problem: 'x' }),
    level: 'fail',
    says: /0644/,
    mend: 'chmod 600 /k',
  },
  {
    id: 'mode 0640',
    facts: key({ mode: 0o640 }),
    level: 'fail',
    says: /0640/,
    mend: 'chmod 600 /k',
  },
  {
    id: 'malformed',
    facts: key({ problem: 'holds 0 keys' }),
    level: 'fail',
    says: /0 keys/,
    mend: 'setup --cluster-key',
  },
  {
    id: 'of another owner',
    facts: key({ uid: 1000 }),
    level: 'warn',
    says: /user 1000/,
    mend: 'chown root',
  },
  {
    id: 'newer than the daemon',
    facts: key({}, 0.9e12),
    level: 'warn',
    says: /changed since/,
    mend: 'restart',
  },
]);
