import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One part of the package that others wrote. */
export type Notice = {
  readonly name: string;
  readonly version: string;
  /** SPDX expression. */
  readonly licence: string;
  /** Copyright lines, author or other words that go before the licence text. */
  readonly preface: readonly string[];
  /** The licence in full, as the part itself has it; undefined where it is one of the standard texts. */
  readonly text: string | undefined;
  /** Standard texts it needs, by SPDX id. */
  readonly standard_texts: readonly string[];
};

/** The part of esbuild's metafile that is looked at. */
export type Metafile = { readonly inputs: Readonly<Record<string, unknown>> };

const LICENCE_FILE = /^(licen[cs]e|copying|notice)([-._].*)?$/i;
const PACKAGE_DIRECTORY = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//;

/** Directories of the npm packages of which anything went into the bundle, sorted. */
export function bundledPackages(metafile: Metafile): string[] {
  const found = Object.keys(metafile.inputs).map((input) => PACKAGE_DIRECTORY.exec(input)?.[1]);
  return [...new Set(found.filter((directory) => directory !== undefined))].sort();
}

/**
 * The notice of an npm package. One without a licence text in it is let through only when it offers the Apache License 2.0 (whose text we carry, and
 * which asks for no copyright line of the package's own); otherwise this fails and names it.
 */
export function npmNotice(root: string, directory: string): Notice {
  const at = join(root, directory);
  const about = JSON.parse(readFileSync(join(at, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
    license?: unknown;
    author?: string | { name?: string };
  };
  const licence = typeof about.license === 'string' ? about.license : 'unknown';
  const author = typeof about.author === 'string' ? about.author : about.author?.name;
  const common = { name: about.name, version: about.version, licence };
  const files = readdirSync(at)
    .filter((name) => LICENCE_FILE.test(name))
    .sort();
  const text = files.map((name) => readFileSync(join(at, name), 'utf8').trim()).join('\n\n');
  if (text !== '') return { ...common, preface: [], text, standard_texts: [] };
  if (licence !== 'Apache-2.0' && !/(^|\()(.* OR )?Apache-2\.0( OR .*)?(\)|$)/.test(licence)) {
    throw new Error(
      `${about.name} ${about.version} is in the bundle and has no licence text (it says "${licence}"): nothing may be shipped without one`,
    );
  }
  return {
    ...common,
    preface: author === undefined || author === '' ? [] : [`Author: ${author}`],
    text: undefined,
    standard_texts: ['Apache-2.0'],
  };
}
