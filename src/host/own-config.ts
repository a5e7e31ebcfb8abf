import { parseConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { appendString, findEntry, insertIntoTable, replaceValue } from './toml-edit.ts';

/** What setup settles in layerswarm's own configuration. */
export type OwnSettings = {
  readonly content_directory: string;
  /** Peers to look for, beyond those that are configured already. */
  readonly join: readonly string[];
};

/**
 * layerswarm's configuration with these settings, only where they differ from what is in force: comments and everything
 * else stay. `undefined` is a missing file, and stays one when the defaults are right. The result has passed the
 * schema: `config_invalid` names the key and the value.
 */
export function settleOwnConfig(
  text: string | undefined,
  file: string,
  settings: OwnSettings,
): { readonly text: string | undefined; readonly config: Config } {
  let edited = text ?? '';
  const config = parseConfig(edited, file, {});
  if (config.store.content_directory !== settings.content_directory) {
    edited = setValue(edited, 'store', 'content_directory', settings.content_directory);
  }
  const fresh = settings.join.filter((address) => !config.swarm.bootstrap.includes(address));
  for (const address of new Set(fresh)) edited = addPeer(edited, address);
  const settled = parseConfig(edited, file, {});
  return { text: edited === '' && text === undefined ? undefined : edited, config: settled };
}

function setValue(text: string, section: string, key: string, value: string): string {
  const entry = findEntry(text, [section], key);
  const literal = JSON.stringify(value);
  return entry === undefined
    ? insertIntoTable(text, [section], key, literal)
    : replaceValue(text, entry, literal);
}

function addPeer(text: string, address: string): string {
  const entry = findEntry(text, ['swarm'], 'bootstrap');
  return entry === undefined
    ? insertIntoTable(text, ['swarm'], 'bootstrap', `[${JSON.stringify(address)}]`)
    : appendString(text, entry, address);
}
