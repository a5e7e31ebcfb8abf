// The command line of the demo.
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { ContainerdLine } from '../host/lab/debian-packages.ts';

const HOSTS = { least: 2, most: 16, usual: 3 } as const;
/** Below 16 MiB a pull is over before anything can be seen; above 4 GiB the push would pass its deadline. */
const IMAGE_MIB = { least: 16, most: 4096, usual: 160 } as const;
const CONTAINERDS = ['1.6', '1.7', '2.1', 'mixed'] as const;

/** Exit code of a command line that is wrong (sysexits' EX_USAGE). */
export const EXIT_USAGE = 64;

/** What the demo is asked to do. Paths are absolute. */
export interface DemoOptions {
  readonly hosts: number;
  /** Size of the image's compressed layers, in MiB. */
  readonly image_mib: number;
  readonly containerd: ContainerdLine | 'mixed';
  readonly igzip: boolean;
  /** Run layerswarm from the built package instead of from the checkout's sources. */
  readonly from_package: boolean;
  /** File that takes one object per pull. */
  readonly json?: string;
  /** Directory that takes the logs and configurations of every host. */
  readonly keep_logs?: string;
}

/** A command line, understood or not. `message` is one sentence. */
export type DemoCommand =
  | { readonly kind: 'run'; readonly options: DemoOptions }
  | { readonly kind: 'help' }
  | { readonly kind: 'wrong'; readonly message: string };

/** What `--help` prints. */
export const HELP = `npm run demo [-- FLAGS]

Makes hosts out of network namespaces on this machine, each with its own containerd and its own layerswarm. Host A pulls
an image from a registry; B pulls it by ctr and C over CRI, and their layers come from the hosts that have them.
Needs root on Linux. Everything is removed at the end, also after Ctrl-C.

  --hosts N          ${HOSTS.least} to ${HOSTS.most} hosts (default ${HOSTS.usual}); from D on, ctr and CRI take turns
  --image-mib N      compressed size of the image, ${IMAGE_MIB.least} to ${IMAGE_MIB.most} MiB (default ${IMAGE_MIB.usual})
  --containerd LINE  1.6, 1.7, 2.1 or mixed (default mixed: A 1.7, B 2.1, C 1.6, and so on)
  --igzip            let containerd decompress with igzip, as where isal is installed
  --from-package     build the package and run what it installs: its own Node, its bundled layerswarm
  --json FILE        write an array with one object per pull
  --keep-logs DIR    copy every host's logs and configuration to DIR, and log at level debug
  --help             this text

Exit codes: 0 shown; 1 failed, or a host other than A was served a layer byte by the registry, or a digest is wrong;
64 a flag is wrong; 130 after Ctrl-C.
`;

/** Reads the flags; paths are resolved against `directory`. */
export function parseCommand(args: readonly string[], directory: string): DemoCommand {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        hosts: { type: 'string' },
        'image-mib': { type: 'string' },
        containerd: { type: 'string', default: 'mixed' },
        igzip: { type: 'boolean', default: false },
        'from-package': { type: 'boolean', default: false },
        json: { type: 'string' },
        'keep-logs': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return { kind: 'help' };
    const { json, 'keep-logs': keep_logs } = values;
    const options: DemoOptions = {
      hosts: wholeNumber('--hosts', values.hosts, HOSTS),
      image_mib: wholeNumber('--image-mib', values['image-mib'], IMAGE_MIB),
      containerd: lineOf(values.containerd),
      igzip: values.igzip,
      from_package: values['from-package'],
      ...(json === undefined ? {} : { json: pathOf('--json', json, directory) }),
      ...(keep_logs === undefined
        ? {}
        : { keep_logs: pathOf('--keep-logs', keep_logs, directory) }),
    };
    return { kind: 'run', options };
  } catch (error) {
    // parseArgs explains in several sentences how to quote odd values; the first one names the flag.
    const text = error instanceof Error ? error.message : String(error);
    return { kind: 'wrong', message: text.split(/\.\s|\n/)[0]!.replace(/\.$/, '') };
  }
}

function wholeNumber(
  flag: string,
  text: string | undefined,
  range: { readonly least: number; readonly most: number; readonly usual: number },
): number {
  if (text === undefined) return range.usual;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= range.least && value <= range.most) return value;
  throw new Error(
    `${flag} takes a whole number from ${range.least} to ${range.most}, not "${text}"`,
  );
}

function lineOf(text: string): DemoOptions['containerd'] {
  const found = CONTAINERDS.find((line) => line === text);
  if (found !== undefined) return found;
  throw new Error(`--containerd takes ${CONTAINERDS.join(', ')}, not "${text}"`);
}

function pathOf(flag: string, text: string, directory: string): string {
  if (text === '') throw new Error(`${flag} takes a path, not an empty text`);
  return resolve(directory, text);
}
