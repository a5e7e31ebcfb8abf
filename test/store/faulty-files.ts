import { type Files, systemFiles } from '../../src/store/disk/files.ts';

type Operation = keyof Files;

/** Operations whose result says nothing about the disk, or that the system never refuses. */
const NEVER_FAILS: ReadonlySet<Operation> = new Set<Operation>(['close', 'lookNow']);

/** What a full disk refuses. */
export const NEEDS_ROOM: ReadonlySet<string> = new Set<Operation>([
  'write',
  'writeFile',
  'mkdir',
  'sync',
  'rename',
  'renameNow',
]);

/** The operating system's files, of which one operation, or all from one on, fail with a chosen error. */
export class FaultyFiles {
  /** What was done since `arm` or the beginning, in order. */
  readonly done: Operation[] = [];
  readonly files: Files;
  #fail_at = Number.POSITIVE_INFINITY;
  #errno = 'EIO';
  #lasting = false;

  constructor() {
    const wrap = (name: Operation) => {
      const real = Reflect.get(systemFiles, name) as (...args: unknown[]) => unknown;
      const now = name.endsWith('Now');
      return (...args: unknown[]): unknown => {
        const error = NEVER_FAILS.has(name) ? undefined : this.#count(name);
        if (error === undefined) return real(...args);
        if (now) throw error;
        return Promise.reject(error);
      };
    };
    const names = Object.keys(systemFiles) as Operation[];
    this.files = Object.fromEntries(names.map((name) => [name, wrap(name)])) as unknown as Files;
  }

  /** The n-th operation from here on fails (counted from 1), or all from it on when `lasting`. */
  arm(fail_at: number, errno: string, lasting = false): void {
    this.done.length = 0;
    this.#fail_at = fail_at;
    this.#errno = errno;
    this.#lasting = lasting;
  }

  disarm(): void {
    this.arm(Number.POSITIVE_INFINITY, 'EIO');
  }

  #count(name: Operation): Error | undefined {
    this.done.push(name);
    const n = this.done.length;
    // Without room everything that needs none goes on.
    if (this.#errno === 'ENOSPC' && !NEEDS_ROOM.has(name)) return undefined;
    if (n !== this.#fail_at && !(this.#lasting && n > this.#fail_at)) return undefined;
    return Object.assign(new Error(`${this.#errno}: injected, ${name}`), { code: this.#errno });
  }
}
