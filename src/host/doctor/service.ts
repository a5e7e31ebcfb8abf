import { stat } from 'node:fs/promises';
import { hasCode } from '../../base/errors.ts';
import type { Check } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

const UNITS = ['layerswarm.socket', 'layerswarm.service'] as const;
const PROPERTIES =
  'Id,LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,NeedDaemonReload,MainPID';
/** This many restarts since the unit was loaded are no accident. */
const RESTARTS_NOTED = 3;

type UnitFacts = Readonly<Record<string, string>>;

export type ServiceFacts =
  | { readonly systemd: false }
  | {
      readonly systemd: true;
      readonly units: readonly UnitFacts[];
      /** Of the daemon that answers on the socket, if one does. */
      readonly daemon_pid: number | undefined;
    };

/** Do the units stand, run, and start again with the host? */
export const serviceCheck: Check<ServiceFacts> = {
  deadline_ms: 5_000,
  gather: async (context, signal) => {
    // systemd's own test for "booted with systemd": sd_booted(3).
    const is_booted = await stat('/run/systemd/system').then(
      () => true,
      () => false,
    );
    if (!is_booted) return { systemd: false };
    try {
      const argv = ['systemctl', 'show', '--no-pager', `--property=${PROPERTIES}`, ...UNITS];
      const { stdout } = await context.run(argv, { signal, deadline_ms: 4_000 });
      const daemon = await context.daemon();
      const daemon_pid = daemon.kind === 'answers' ? daemon.view.pid : undefined;
      return { systemd: true, units: parseUnits(stdout), daemon_pid };
    } catch (error) {
      if (hasCode(error, 'not_found')) return { systemd: false };
      throw error;
    }
  },
  judge: judgeService,
};

/** `systemctl show` of several units: `Name=value` lines, an empty line between units. */
export function parseUnits(output: string): UnitFacts[] {
  return output
    .split(/\n\n+/)
    .map((block) =>
      Object.fromEntries(
        block
          .split('\n')
          .filter((line) => line.includes('='))
          .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
      ),
    )
    .filter((unit) => unit['Id'] !== undefined);
}

export function judgeService(facts: ServiceFacts): Finding {
  if (!facts.systemd) {
    const text = 'systemd does not run here: nothing restarts the daemon or ends it when it hangs';
    return findingOf('service', '', [remark('note', text)], { systemd: false });
  }
  const remarks = facts.units.flatMap((unit) => unitRemarks(unit));
  const main = facts.units.find((unit) => unit['Id'] === 'layerswarm.service');
  const main_pid = Number(main?.['MainPID'] ?? 0);
  if (main_pid > 0 && facts.daemon_pid !== undefined && facts.daemon_pid !== main_pid) {
    remarks.push(
      remark(
        'warn',
        `the daemon on the socket (pid ${facts.daemon_pid}) is not the one of the unit (pid ${main_pid})`,
        `kill ${facts.daemon_pid}`,
        'systemctl restart layerswarm.service',
      ),
    );
  }
  const fine = 'layerswarm.socket and layerswarm.service are active and start with the host';
  const shown = facts.units.map((unit) => ({ ...unit }));
  return findingOf('service', fine, remarks, { systemd: true, units: shown });
}

function unitRemarks(unit: UnitFacts): Remark[] {
  const name = unit['Id'] ?? '';
  const active = unit['ActiveState'] ?? '';
  if (unit['LoadState'] === 'not-found') {
    const text = `${name} is not installed`;
    return [remark('warn', text, 'install the layerswarm package of this host again')];
  }
  if (unit['LoadState'] === 'masked') {
    const mend = [`systemctl unmask ${name}`, `systemctl enable --now ${name}`];
    return [remark('fail', `${name} is masked`, ...mend)];
  }
  const remarks: Remark[] = [];
  if (active === 'failed') {
    remarks.push(
      remark(
        'fail',
        `${name} has failed (${unit['Result'] ?? 'unknown'})`,
        'journalctl -u layerswarm -n 50',
        `systemctl reset-failed ${name}`,
        `systemctl restart ${name}`,
      ),
    );
  } else if (active !== 'active') {
    const level = active === 'inactive' ? 'fail' : 'warn';
    remarks.push(remark(level, `${name} is ${active}`, `systemctl start ${name}`));
  }
  if (['disabled', 'indirect'].includes(unit['UnitFileState'] ?? '')) {
    const text = `${name} does not start with the host`;
    remarks.push(remark('warn', text, `systemctl enable ${name}`));
  }
  if (unit['NeedDaemonReload'] === 'yes') {
    const text = `${name} has changed on disk since systemd read it`;
    remarks.push(remark('warn', text, 'systemctl daemon-reload', `systemctl restart ${name}`));
  }
  const restarts = Number(unit['NRestarts'] ?? 0);
  if (restarts >= RESTARTS_NOTED) {
    const text = `${name} was started again ${restarts} times by systemd`;
    remarks.push(remark('note', text, 'journalctl -u layerswarm -p warning -n 50'));
  }
  return remarks;
}
