import { randomBytes } from 'node:crypto';
import { link, mkdir, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys';
import type { PrivateKey } from '@libp2p/interface';
import { DaemonError, errnoOf } from '../../base/errors.ts';
import { readPrivateFile } from '../ground/private-file.ts';

/** File in the state directory: the Ed25519 key as libp2p writes it (protobuf), mode 0600. */
const IDENTITY_FILE = 'identity.key';

/**
 * The host's own key, created at the first start, so that the peer id survives restarts. `config_invalid` when the file
 * is unreadable, damaged, of another kind, or open to others: a new identity is never made in place of an old one.
 */
export async function loadIdentity(state_dir: string): Promise<PrivateKey> {
  const path = join(state_dir, IDENTITY_FILE);
  const found = await readPrivateFile(path);
  if (found !== undefined) return parseIdentity(found, path);
  const key = await generateKeyPair('Ed25519');
  try {
    await mkdir(state_dir, { recursive: true, mode: 0o700 });
    await writeOnce(path, privateKeyToProtobuf(key));
  } catch (error) {
    throw new DaemonError(
      'config_invalid',
      `The identity file ${path} cannot be created (${errnoOf(error) ?? 'unknown error'}); check the state directory.`,
      { path },
      { cause: error },
    );
  }
  const written = await readPrivateFile(path);
  return parseIdentity(written ?? new Uint8Array(), path);
}

function parseIdentity(bytes: Uint8Array, path: string): PrivateKey {
  try {
    const key = privateKeyFromProtobuf(bytes);
    if (key.type === 'Ed25519') return key;
  } catch {
    // Falls through to the one sentence for every kind of damage; the parser's own text may quote key bytes.
  }
  throw new DaemonError(
    'config_invalid',
    `The identity file ${path} is damaged or not an Ed25519 key; restore it, or remove it to get a new peer id.`,
    { path },
  );
}

/** Creates the file whole or not at all. A file that another process created meanwhile stays. */
async function writeOnce(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  {
    await using file = await open(temporary, 'wx', 0o600);
    await file.writeFile(bytes);
    await file.sync();
  }
  try {
    await link(temporary, path);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  } finally {
    await unlink(temporary);
  }
}
