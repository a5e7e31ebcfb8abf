import { parseArgs } from 'node:util';
import { type Architecture, TARGETS } from './architecture.ts';

export type Format = 'deb' | 'rpm';

export type Options = {
  readonly architectures: readonly Architecture[];
  readonly formats: readonly Format[];
  /** Directory the packages go to. */
  readonly out: string;
  /** Least compression: for tests. */
  readonly fast: boolean;
  /** Another version than package.json's: to try upgrades. */
  readonly version: string | undefined;
  /** A program that is built already, instead of `npm run build`. */
  readonly dist: string | undefined;
  readonly lint: boolean;
};

export const USAGE = `npm run package [-- OPTION …]
  --arch amd64|arm64|all  default: all
  --format deb|rpm        default: both
  --out DIR               default: out
  --fast                  least compression
  --version X.Y.Z         default: that of package.json
  --dist DIR              take the built program from here; default: npm run build
  --no-lint               without lintian and rpmlint
`;

/** Reads the command line. Throws with one sentence that names the option. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    allowNegative: true,
    options: {
      arch: { type: 'string', default: 'all' },
      format: { type: 'string' },
      out: { type: 'string', default: 'out' },
      fast: { type: 'boolean', default: false },
      version: { type: 'string' },
      dist: { type: 'string' },
      lint: { type: 'boolean', default: true },
    },
  });
  const { arch, format, version } = values;
  const all = Object.keys(TARGETS) as Architecture[];
  const architectures = arch === 'all' ? all : all.filter((name) => name === arch);
  if (architectures.length === 0)
    throw new Error(`--arch ${arch}: expected ${all.join(', ')}, all`);
  if (format !== undefined && format !== 'deb' && format !== 'rpm') {
    throw new Error(`--format ${format}: expected deb or rpm`);
  }
  // No dash or tilde: deb and rpm read them differently.
  if (version !== undefined && !/^\d+(\.\d+){1,3}$/.test(version)) {
    throw new Error(`--version ${version}: expected numbers with dots between them`);
  }
  return {
    architectures,
    formats: format === undefined ? ['deb', 'rpm'] : [format],
    out: values.out,
    fast: values.fast,
    version,
    dist: values.dist,
    lint: values.lint,
  };
}
