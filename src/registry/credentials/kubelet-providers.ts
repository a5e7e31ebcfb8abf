import { isAbsolute, join } from 'node:path';
import { DaemonError } from '../../base/errors.ts';
import { goDurationMs } from '../ground/go-duration.ts';
import type { RunProgram } from '../ground/run-program.ts';
import { readSmallFile } from '../ground/small-file.ts';
import type { CredentialAnswer, CredentialProblem } from './credential.ts';
import { passwordOf } from './docker-config.ts';
import { type ImagePlace, matchesImage } from './image-pattern.ts';

/** Longest a provider may take, in ms: the kubelet gives it a minute, a pull has no such patience. */
const DEADLINE_MS = 10_000;
const OUTPUT_MAX_BYTES = 256 * 1024;
/** Most providers and entries of an answer that are looked at. */
const MAX_PROVIDERS = 32;
const MAX_AUTHS = 64;
const API_GROUP = 'credentialprovider.kubelet.k8s.io';

/** Where the kubelet's flags `--image-credential-provider-config` and `-bin-dir` point. */
export type KubeletProviderPlaces = { readonly config: string; readonly bin_directory: string };

type Provider = {
  readonly name: string;
  readonly api_version: string;
  readonly match_images: readonly string[];
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly default_lasts_ms: number;
  /** It wants the token of a pod's service account, which only the kubelet has. */
  readonly needs_pod: boolean;
};

/**
 * Asks the kubelet's credential providers that are configured for an image, as the kubelet does: the image on stdin, credentials by pattern
 * on stdout. Providers that need a pod's token are passed over and named among the problems. What they print is never shown.
 */
export async function askKubeletProviders(
  run: RunProgram,
  places: KubeletProviderPlaces,
  image: ImagePlace,
  signal: AbortSignal,
): Promise<CredentialAnswer> {
  const providers = await readProviders(places.config);
  const fitting = providers.filter(({ match_images }) =>
    match_images.some((pattern) => matchesImage(pattern, image)),
  );
  const answers: CredentialAnswer[] = [];
  for (const provider of fitting) {
    answers.push(await askProvider(run, places, provider, image, signal));
  }
  const lasting = answers.flatMap(({ lasts_ms }) => (lasts_ms === undefined ? [] : [lasts_ms]));
  return {
    credentials: answers.flatMap(({ credentials }) => credentials),
    problems: answers.flatMap(({ problems }) => problems),
    ...(lasting.length > 0 && { lasts_ms: Math.min(...lasting) }),
  };
}

async function askProvider(
  run: RunProgram,
  { bin_directory }: KubeletProviderPlaces,
  provider: Provider,
  image: ImagePlace,
  signal: AbortSignal,
): Promise<CredentialAnswer> {
  const name = `kubelet's credential provider ${provider.name}`;
  const failed = (why: string): CredentialAnswer => {
    const problem: CredentialProblem = { name, why };
    return { credentials: [], problems: [problem] };
  };
  if (provider.needs_pod) return failed("it needs a pod's token, which only the kubelet has");
  const input = JSON.stringify({
    apiVersion: provider.api_version,
    kind: 'CredentialProviderRequest',
    image: `${image.registry}/${image.repository}`,
  });
  try {
    const { code, stdout } = await run([join(bin_directory, provider.name), ...provider.args], {
      ...{ signal, deadline_ms: DEADLINE_MS, output_max_bytes: OUTPUT_MAX_BYTES },
      ...{ input, environment: provider.environment },
    });
    if (code !== 0) return failed(`it ended with ${String(code)}`);
    const answer = fieldsOf(parseJson(stdout));
    if (answer['kind'] !== 'CredentialProviderResponse') {
      return failed('its answer is not what credential providers say');
    }
    const credentials = Object.entries(fieldsOf(answer['auth']))
      .slice(0, MAX_AUTHS)
      .filter(([pattern]) => matchesImage(pattern, image))
      .sort(([a], [b]) => b.length - a.length)
      .flatMap(([pattern, auth]) => {
        const { username, password } = fieldsOf(auth);
        if (typeof username !== 'string' || typeof password !== 'string') return [];
        return [passwordOf(username, password, `${name} (auth "${pattern}")`)];
      });
    const { cacheDuration } = answer;
    const lasts_ms =
      typeof cacheDuration === 'string'
        ? (goDurationMs(cacheDuration) ?? 0)
        : provider.default_lasts_ms;
    return { credentials, problems: [], lasts_ms };
  } catch (error) {
    if (!(error instanceof DaemonError) || error.code === 'cancelled') throw error;
    return failed(error.message);
  }
}

/** The providers of the kubelet's file, which is YAML (and so may be JSON). `config_invalid` names the file. */
async function readProviders(file: string): Promise<readonly Provider[]> {
  const bad = (why: string): DaemonError =>
    new DaemonError('config_invalid', `${file} cannot be used: ${why}`, { file });
  const text = await readSmallFile(file);
  if (text === undefined) throw bad('there is no such file');
  // Only hosts of a cluster have such a file: nobody else loads the parser.
  const { parse } = await import('yaml');
  let table: Record<string, unknown>;
  try {
    // Aliases can make a small text into a huge value.
    table = fieldsOf(parse(text, { maxAliasCount: 0 }));
  } catch {
    // The parser's message quotes the text, and an environment variable in it may be a secret.
    throw bad('it is not YAML');
  }
  const { kind, providers } = table;
  if (kind !== 'CredentialProviderConfig' || !Array.isArray(providers)) {
    throw bad('it is no CredentialProviderConfig with providers');
  }
  return (providers as unknown[]).slice(0, MAX_PROVIDERS).map((value) => {
    const provider = providerOf(fieldsOf(value));
    if (provider === undefined) throw bad('one of its providers has no usable name');
    return provider;
  });
}

function providerOf(fields: Record<string, unknown>): Provider | undefined {
  const { name, apiVersion, matchImages, args, env, defaultCacheDuration, tokenAttributes } =
    fields;
  // It becomes a path below the directory of the programs.
  if (typeof name !== 'string' || !/^[\w-][\w.-]{0,127}$/.test(name)) return undefined;
  const variables = Array.isArray(env) ? (env as unknown[]).map(fieldsOf) : [];
  return {
    name,
    api_version:
      typeof apiVersion === 'string' && apiVersion.startsWith(API_GROUP)
        ? apiVersion
        : `${API_GROUP}/v1`,
    match_images: stringsOf(matchImages),
    args: stringsOf(args),
    environment: Object.fromEntries(
      variables.flatMap(({ name: key, value }) =>
        typeof key === 'string' && typeof value === 'string' ? [[key, value]] : [],
      ),
    ),
    default_lasts_ms:
      typeof defaultCacheDuration === 'string' ? (goDurationMs(defaultCacheDuration) ?? 0) : 0,
    needs_pod: tokenAttributes !== undefined && tokenAttributes !== null,
  };
}

/** True when both flags are set to where something can be. */
export function areKubeletPlaces({ config, bin_directory }: KubeletProviderPlaces): boolean {
  return isAbsolute(config) && isAbsolute(bin_directory);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Told by the caller; the parser's message quotes the secret.
    return undefined;
  }
}

function stringsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((v): v is string => typeof v === 'string') : [];
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}
