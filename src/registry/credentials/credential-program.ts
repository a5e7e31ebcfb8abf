import { DaemonError } from '../../base/errors.ts';
import type { RunProgram } from '../ground/run-program.ts';
import { Secret } from '../ground/secret.ts';
import { type CredentialAnswer, NO_CREDENTIALS } from './credential.ts';
import { passwordOf, type ProgramCall } from './docker-config.ts';

/** Longest a credential program may take, in ms; those of clouds ask a service of theirs. */
const DEADLINE_MS = 10_000;
/** Most bytes of its answer; tokens of clouds have some KiB. */
const OUTPUT_MAX_BYTES = 64 * 1024;
/** The user's name that means: the secret is an identity token (docker-credential-helpers). */
const TOKEN_USER = '<token>';

/**
 * Asks a `docker-credential-…` program: the server on stdin, JSON on stdout, no shell. One that knows nothing ends with another code than 0,
 * which is no problem worth telling; one that cannot be run, or answers nonsense, is. What it prints is never shown.
 */
export async function askProgram(
  run: RunProgram,
  { name, program, server }: ProgramCall,
  signal: AbortSignal,
): Promise<CredentialAnswer> {
  const failed = (why: string): CredentialAnswer => ({
    credentials: [],
    problems: [{ name, why }],
  });
  try {
    const { code, stdout } = await run([`docker-credential-${program}`, 'get'], {
      ...{ signal, deadline_ms: DEADLINE_MS, output_max_bytes: OUTPUT_MAX_BYTES },
      input: server,
    });
    if (code !== 0) {
      // The one sentence that the protocol has for "none": no secret can be in it.
      const has_none = /credentials not found/.test(stdout);
      return has_none ? NO_CREDENTIALS : failed(`it ended with ${String(code)}`);
    }
    const pair = parseAnswer(stdout);
    if (pair === undefined) return failed('its answer is not what docker-credential programs say');
    const { username, secret } = pair;
    if (username === '' && secret === '') return NO_CREDENTIALS;
    const credential =
      username === TOKEN_USER
        ? ({ kind: 'identity_token', name, token: new Secret(secret) } as const)
        : passwordOf(username, secret, name);
    return { credentials: [credential], problems: [] };
  } catch (error) {
    if (!(error instanceof DaemonError) || error.code === 'cancelled') throw error;
    return failed(error.message);
  }
}

function parseAnswer(text: string): { username: string; secret: string } | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { Username, Secret: secret } = value as { Username?: unknown; Secret?: unknown };
    if (typeof Username !== 'string' || typeof secret !== 'string') return undefined;
    return { username: Username, secret };
  } catch {
    // Told by the caller; the parser's message quotes the secret.
    return undefined;
  }
}
