/** The drop-in of our unit that setup writes when this host differs from what the package assumes. */
export const UNIT_OVERRIDE = '/etc/systemd/system/layerswarm.service.d/50-layerswarm-setup.conf';

/** What the packaged unit assumes. */
const PACKAGED = {
  content_directory: '/var/lib/containerd/io.containerd.content.v1.content',
  containerd_unit: 'containerd.service',
} as const;

/**
 * The text of the drop-in, or undefined when the packaged unit is right as it is. `ReadWritePaths` has the `-` of the
 * packaged one: without it the service would not start while the directory is missing.
 */
export function unitOverrideText(host: {
  readonly content_directory: string;
  readonly containerd_unit: string | undefined;
}): string | undefined {
  const { content_directory, containerd_unit } = host;
  const lines: string[] = [];
  if (containerd_unit !== undefined && containerd_unit !== PACKAGED.containerd_unit) {
    lines.push('', '[Unit]', `Before=${containerd_unit}`);
  }
  if (content_directory !== PACKAGED.content_directory) {
    lines.push('', '[Service]', `ReadWritePaths=${quoted(`-${content_directory}`)}`);
    // The packaged unit hides these altogether, and ReadWritePaths does not bring them back.
    if (/^\/(home|root|run\/user)\//.test(content_directory)) lines.push('ProtectHome=no');
  }
  if (lines.length === 0) return undefined;
  const head = '# Written by "layerswarm setup", removed by "layerswarm teardown".';
  return `${[head, ...lines].join('\n')}\n`;
}

/** As systemd.unit(5) reads a word: `%` begins a specifier, a space a new word. */
function quoted(word: string): string {
  const plain = word.replaceAll('%', '%%');
  return /[\s"'\\]/.test(plain) ? `"${plain.replaceAll(/["\\]/g, '\\$&')}"` : plain;
}
