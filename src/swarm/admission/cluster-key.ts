import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { DaemonError } from '../../base/errors.ts';
import { readPrivateFile } from '../ground/private-file.ts';

/** Least length of a key, in bytes; also the length of a proof (HMAC-SHA256). */
const KEY_BYTES = 32;
/** Two keys may be valid at a time: the new one and the one it replaces. */
const MAX_KEYS = 2;

/** Bytes of one proof. */
export const PROOF_BYTES = 32;

/** A fresh key as a line for the cluster key file. */
export function generateClusterKey(): string {
  return randomBytes(KEY_BYTES).toString('hex');
}

/** The keys that admit to the cluster. They stay inside: only proofs come out, and nothing prints them. */
export class ClusterKeys {
  readonly #keys: readonly Buffer[];

  private constructor(keys: readonly Buffer[]) {
    this.#keys = keys;
  }

  /** One key per line, hex or base64; empty lines and lines that start with `#` do not count. `config_invalid`. */
  static parse(text: string, path: string): ClusterKeys {
    const lines = text
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'));
    if (lines.length === 0 || lines.length > MAX_KEYS) {
      throw refuse(path, `holds ${lines.length} keys where one or two are expected`);
    }
    return new ClusterKeys(lines.map((line) => parseKey(line, path)));
  }

  /** Reads the file. `config_invalid` when it is missing: there is no swarm without a key. */
  static async load(path: string): Promise<ClusterKeys> {
    const bytes = await readPrivateFile(path);
    if (bytes === undefined) {
      throw new DaemonError(
        'config_invalid',
        `The cluster key file ${path} does not exist; write one with "layerswarm keygen" and give the same file to every host.`,
        { path },
      );
    }
    return ClusterKeys.parse(bytes.toString('utf8'), path);
  }

  /** One proof per key, back to back, newest key first. */
  prove(message: Uint8Array): Uint8Array {
    return Buffer.concat(
      this.#keys.map((key) => createHmac('sha256', key).update(message).digest()),
    );
  }

  /** True when one of the proofs was made with one of our keys. Takes the same time whichever it is. */
  verify(message: Uint8Array, proofs: Uint8Array): boolean {
    let right = false;
    for (const key of this.#keys) {
      const mine = createHmac('sha256', key).update(message).digest();
      for (let at = 0; at + PROOF_BYTES <= proofs.length; at += PROOF_BYTES) {
        right = timingSafeEqual(mine, proofs.subarray(at, at + PROOF_BYTES)) || right;
      }
    }
    return right;
  }
}

function parseKey(line: string, path: string): Buffer {
  const isHex = /^([0-9a-fA-F]{2})+$/.test(line);
  if (!isHex && !/^[A-Za-z0-9+/_-]+={0,2}$/.test(line)) {
    throw refuse(path, 'holds a line that is neither hex nor base64');
  }
  const key = Buffer.from(line, isHex ? 'hex' : 'base64');
  if (key.length < KEY_BYTES) {
    throw refuse(path, `holds a key of ${key.length} bytes where at least ${KEY_BYTES} are needed`);
  }
  return key;
}

function refuse(path: string, what: string): DaemonError {
  return new DaemonError(
    'config_invalid',
    `The cluster key file ${path} ${what}; make a key with "layerswarm keygen".`,
    { path },
  );
}
