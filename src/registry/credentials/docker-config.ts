import { DaemonError } from '../../base/errors.ts';
import { DOCKER_HUB } from '../../oci/reference.ts';
import { Secret } from '../ground/secret.ts';
import type { Credential } from './credential.ts';
import { type ImagePlace, matchesImage } from './image-pattern.ts';

/** What Docker calls its Hub in `auths` and to credential programs. */
const HUB_KEY = 'https://index.docker.io/v1/';
/** Names under which the Hub stands in files. */
const HUB_NAMES = [DOCKER_HUB, 'index.docker.io', 'registry-1.docker.io'];
/** Most entries of one file that are looked at. */
const MAX_ENTRIES = 512;

/** A docker-style `config.json`, as far as it is about credentials. */
export type DockerConfig = {
  readonly file: string;
  readonly auths: Readonly<Record<string, unknown>>;
  /** Registry to program, by its last name: `ecr-login` is `docker-credential-ecr-login`. */
  readonly credHelpers: Readonly<Record<string, unknown>>;
  readonly credsStore: string | undefined;
};

/** A credential program that a file names, and what it is to be asked. */
export type ProgramCall = {
  readonly name: string;
  /** The last name, made of letters, digits, dots, dashes and underscores. */
  readonly program: string;
  readonly server: string;
};

/** Parses the file. `config_invalid` names it; what is in it is in no message. */
export function parseDockerConfig(text: string, file: string): DockerConfig {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message quotes the text.
    throw new DaemonError('config_invalid', `${file} cannot be used: it is not JSON`, { file });
  }
  const { auths, credHelpers, credsStore } = recordOf(value);
  return {
    file,
    auths: recordOf(auths),
    credHelpers: recordOf(credHelpers),
    credsStore: typeof credsStore === 'string' && credsStore !== '' ? credsStore : undefined,
  };
}

/** The programs that may know a credential for a registry: the one of `credHelpers` for it, else the one of `credsStore`. */
export function programCalls(
  { file, credHelpers, credsStore }: DockerConfig,
  { registry }: Pick<ImagePlace, 'registry'>,
): readonly ProgramCall[] {
  const is_hub = HUB_NAMES.includes(registry);
  const keys = is_hub ? [HUB_KEY, ...HUB_NAMES] : [registry, `https://${registry}`];
  const key = keys.find((k) => Object.hasOwn(credHelpers, k));
  const program = key === undefined ? credsStore : credHelpers[key];
  // It becomes part of a program's name: nothing in it may lead to another directory.
  if (typeof program !== 'string' || !/^[\w-][\w.-]{0,63}$/.test(program)) return [];
  const said_in = key === undefined ? 'credsStore' : `credHelpers["${key}"]`;
  const name = `docker-credential-${program} (${said_in} of ${file})`;
  return [{ name, program, server: is_hub ? HUB_KEY : registry }];
}

/** The credentials of `auths` that fit an image: whole hosts as Docker compares them, patterns and paths as the kubelet does; the longest key first. */
export function credentialsOf(config: DockerConfig, place: ImagePlace): readonly Credential[] {
  const registries = HUB_NAMES.includes(place.registry) ? HUB_NAMES : [place.registry];
  return Object.entries(config.auths)
    .slice(0, MAX_ENTRIES)
    .filter(([key]) =>
      registries.some((registry) => {
        const as_pattern = matchesImage(key, { ...place, registry });
        // Docker's own keys end in an API's path: https://host/v1/.
        return as_pattern || matchesImage(key.replace(/\/v[12]\/?$/, ''), { ...place, registry });
      }),
    )
    .sort(([a], [b]) => b.length - a.length)
    .flatMap(([key, entry]) => {
      const found = credentialOf(recordOf(entry), `auths["${key}"] of ${config.file}`);
      return found === undefined ? [] : [found];
    });
}

function credentialOf(
  { auth, identitytoken, username, password }: Record<string, unknown>,
  name: string,
): Credential | undefined {
  if (typeof identitytoken === 'string' && identitytoken !== '') {
    return { kind: 'identity_token', name, token: new Secret(identitytoken) };
  }
  if (typeof auth === 'string' && auth !== '') {
    const pair = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
    const colon = pair.indexOf(':');
    return colon <= 0 ? undefined : passwordOf(pair.slice(0, colon), pair.slice(colon + 1), name);
  }
  if (typeof username !== 'string' || typeof password !== 'string' || username === '') {
    return undefined;
  }
  return passwordOf(username, password, name);
}

/** A user's name and password as a credential. */
export function passwordOf(username: string, password: string, name: string): Credential {
  return {
    kind: 'password',
    name,
    username: new Secret(username),
    password: new Secret(password),
  };
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}
