import { readFileSync } from 'node:fs';
import type { Notice } from './npm-notices.ts';

/** `packaging/quic-crates.json`: the Rust crates that the native part of QUIC is made of, as its lock file and cargo name them. */
type Crate = {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  readonly copyright: readonly string[];
};

/** Standard texts we carry, and in which order one is chosen where a crate leaves the choice. */
const CHOICE = ['Apache-2.0', 'MIT', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', 'Unicode-3.0'];

/** In the dependency tree, but left out by the linker because another provider of the same algorithms is used. */
const NEVER_LINKED = /aws[-_]lc/i;

/** The licences to abide by for an expression of AND and OR. Fails when a text is missing for what cannot be avoided. */
export function chosenLicences(expression: string): string[] {
  return expression.split(' AND ').map((part) => {
    const offered = part.replaceAll(/[()]/g, '').split(' OR ');
    const chosen = CHOICE.find((id) => offered.includes(id));
    if (chosen === undefined) throw new Error(`there is no text for the licence "${expression}"`);
    return chosen;
  });
}

/** Notices of all crates of the table. Fails naming the crate when there is no text for its licence. */
export function crateNotices(table: string): Notice[] {
  return readCrates(table).map(({ name, version, licence, copyright }) => {
    try {
      const standard_texts = chosenLicences(licence);
      return { name, version, licence, preface: copyright, text: undefined, standard_texts };
    } catch (cause) {
      throw new Error(`crate ${name} ${version} has no licence text`, { cause });
    }
  });
}

/**
 * Compares the table with the addon that is shipped: Rust leaves the paths of sources in it, and with them the names and versions of
 * crates. Fails naming each crate that the table lacks.
 */
export function checkCrates(table: string, addon: string): void {
  const bytes = readFileSync(addon).toString('latin1');
  const known = new Set(readCrates(table).map(({ name, version }) => `${name}-${version}`));
  const found = new Set(
    [...bytes.matchAll(/registry\/src\/[^/]+\/([A-Za-z0-9_-]+-\d[A-Za-z0-9.+-]*)\//g)].map(
      (match) => match[1] ?? '',
    ),
  );
  const lacking = [...found].filter((crate) => !known.has(crate)).sort();
  if (NEVER_LINKED.test(bytes)) lacking.push('aws-lc-sys');
  if (lacking.length > 0) {
    throw new Error(`${table} lacks crates of ${addon}: ${lacking.join(', ')}`);
  }
  if (found.size === 0) throw new Error(`${addon} names no crate at all: is it another build?`);
}

function readCrates(table: string): Crate[] {
  return JSON.parse(readFileSync(table, 'utf8')) as Crate[];
}
