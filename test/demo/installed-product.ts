// layerswarm as its package installs it, unpacked into a scratch tree instead of into the machine.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../host/lab/run-command.ts';
import { scratchDir } from '../host/lab/residue.ts';
import { builtPackages } from '../packaging/lab/packages.ts';

/** The installed tree of a deb. Closing it removes the tree. */
export class InstalledProduct implements AsyncDisposable {
  /** The package's version. */
  readonly version: string;
  /** Command line of layerswarm: the package's own Node and bundle, without a subcommand. */
  readonly program: readonly string[];
  readonly #dir: string;

  private constructor(dir: string, version: string) {
    const library = join(dir, 'usr/lib/layerswarm');
    this.version = version;
    this.program = [join(library, 'node'), join(library, 'main.js')];
    this.#dir = dir;
  }

  /** The deb of this checkout: built when the sources have changed since the last time. */
  static async build(signal: AbortSignal): Promise<string> {
    return (await builtPackages({ signal })).deb;
  }

  /** Unpacks `deb`; its maintainer scripts do not run. */
  static async unpack(deb: string): Promise<InstalledProduct> {
    const version = (await runCommand(['dpkg-deb', '--field', deb, 'Version'])).stdout.trim();
    const dir = await scratchDir('package');
    try {
      await runCommand(['dpkg-deb', '--extract', deb, dir], { deadline_ms: 120_000 });
      return new InstalledProduct(dir, version);
    } catch (error) {
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#dir, { recursive: true, force: true });
  }
}
