import { BUILTIN_CONTENT, PROXY_NAME } from './containerd-config.ts';
import type { HostFiles } from './host-files.ts';

/** Who writes a containerd's configuration. All but `plain` generate it anew and would undo an edit. */
export type Distribution = 'plain' | 'k3s' | 'rke2' | 'k0s' | 'microk8s' | 'docker' | 'talos';

/** Tells from its paths, its parent process and the operating system who a containerd belongs to. */
export function distributionOf(facts: {
  readonly binary: string;
  readonly config_file: string;
  readonly parent: string;
  readonly unit: string | undefined;
  readonly files: Pick<HostFiles, 'text'>;
}): Distribution {
  const { binary, config_file, parent, unit, files } = facts;
  const paths = `${binary} ${config_file}`;
  if (paths.includes('/rke2/') || unit?.startsWith('rke2') === true) return 'rke2';
  if (paths.includes('/k3s/') || unit?.startsWith('k3s') === true) return 'k3s';
  if (paths.includes('/k0s/')) return 'k0s';
  if (paths.includes('/snap/microk8s/')) return 'microk8s';
  if (parent === 'dockerd' || paths.includes('/run/docker/')) return 'docker';
  if (/^ID="?talos"?$/m.test(files.text('/etc/os-release') ?? '')) return 'talos';
  return 'plain';
}

/** What to do by hand where somebody else generates containerd's configuration. Lines for a terminal. */
export function managedInstructions(
  distribution: Exclude<Distribution, 'plain'>,
  facts: {
    readonly config_file: string;
    readonly root: string | undefined;
    readonly socket: string;
  },
): readonly string[] {
  const { config_file, socket } = facts;
  const content = `${facts.root ?? ROOTS[distribution]}/${BUILTIN_CONTENT}`;
  const first = [
    `In /etc/layerswarm/config.toml, under [store]: content_directory = "${content}"`,
    `In /etc/systemd/system/layerswarm.service.d/50-local.conf: [Service] ReadWritePaths=-${content}`,
    'systemctl daemon-reload; systemctl enable --now layerswarm.socket layerswarm.service',
  ];
  const wiring = [
    `  disabled_plugins = ["${BUILTIN_CONTENT}"]`,
    `  [proxy_plugins.${PROXY_NAME}]`,
    '    type = "content"',
    `    address = "${socket}"`,
  ];
  switch (distribution) {
    case 'k3s':
    case 'rke2': {
      const directory = config_file.replace(/\/[^/]*$/, '');
      const unit =
        distribution === 'k3s' ? 'k3s (k3s-agent on agents)' : 'rke2-server or rke2-agent';
      return [
        `${distribution} writes ${config_file} anew at every start, from a template that may be extended:`,
        ...first,
        `Write ${directory}/config-v3.toml.tmpl (config.toml.tmpl where its containerd is 1.x), the first line before the base, the table after it:`,
        wiring[0]!,
        '  {{ template "base" . }}',
        ...wiring.slice(1),
        `Where the generated file has disabled_plugins of its own, add the entry to that list instead. Then restart ${unit}.`,
      ];
    }
    case 'k0s':
      return [
        `k0s writes ${config_file}, and imports what lies in /etc/k0s/containerd.d/:`,
        ...first,
        'Write /etc/k0s/containerd.d/50-layerswarm.toml, then restart k0scontroller or k0sworker:',
        ...wiring,
      ];
    case 'microk8s':
      return [
        'MicroK8s makes its configuration from /var/snap/microk8s/current/args/containerd-template.toml:',
        ...first,
        'Add to that template (the first line before the first table), then run: microk8s stop; microk8s start',
        ...wiring,
      ];
    case 'docker':
      return [
        `dockerd runs this containerd itself and writes ${config_file} anew at every start.`,
        'Let Docker use a containerd of the system instead: install containerd (or containerd.io), start containerd.service, restart docker, and run layerswarm setup again.',
        'Docker pulls through containerd only with its containerd image store: "features": {"containerd-snapshotter": true} in /etc/docker/daemon.json.',
      ];
    case 'talos':
      return [
        'Talos generates its configuration and runs no daemons beside its own.',
        'The drop-in belongs into machine.files of the machine configuration (path /etc/cri/conf.d/20-customization.part), the daemon into a system extension:',
        ...wiring,
      ];
  }
}

const ROOTS: Readonly<Record<Exclude<Distribution, 'plain'>, string>> = {
  k3s: '/var/lib/rancher/k3s/agent/containerd',
  rke2: '/var/lib/rancher/rke2/agent/containerd',
  k0s: '/var/lib/k0s/containerd',
  microk8s: '/var/snap/microk8s/common/var/lib/containerd',
  docker: '/var/lib/docker/containerd/daemon',
  talos: '/var/lib/containerd',
};
