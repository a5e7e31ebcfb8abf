import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkCrates, crateNotices } from './crate-notices.ts';
import { bundledPackages, type Metafile, type Notice, npmNotice } from './npm-notices.ts';

const RULE = '='.repeat(78);

/** What the notices are made from. */
export type NoticeSources = {
  readonly root: string;
  readonly metafile: Metafile;
  readonly node: { readonly version: string; readonly licence: string };
  /** The native part of QUIC; undefined in a package without it. */
  readonly addon: string | undefined;
};

/**
 * The file NOTICES: every part of the package that others wrote, with its licence in full. Equal texts stand once. Fails naming the part that
 * has none.
 */
export function renderNotices({ root, metafile, node, addon }: NoticeSources): string {
  const table = join(root, 'packaging/quic-crates.json');
  if (addon !== undefined) checkCrates(table, addon);
  const packages = unique(bundledPackages(metafile).map((at) => npmNotice(root, at)));
  const crates = addon === undefined ? [] : crateNotices(table);
  const needed = new Set([...packages, ...crates].flatMap((notice) => notice.standard_texts));
  const standard = [...needed].sort().map((id) => `${id}\n\n${standardText(root, id)}`);
  return [
    'This package contains software of others, listed here with its licences.',
    section('JavaScript packages in the program', packages.filter(hasText).map(asText)),
    section(
      'JavaScript packages under the Apache License 2.0 (in full below)',
      packages.filter((notice) => !hasText(notice)).map(asLine),
    ),
    addon === undefined
      ? ''
      : section(
          'Rust crates in the native part of QUIC (native/libp2p-quic.node), licences in full below',
          crates.map(asLine),
        ),
    section('Licences in full', standard),
    section(`Node.js ${node.version} and what it contains`, [readFileSync(node.licence, 'utf8')]),
  ]
    .filter((part) => part !== '')
    .join('\n');
}

/** One package often lies in node_modules several times; notices that say the same stand once, with all versions. */
function unique(notices: readonly Notice[]): Notice[] {
  const by_words = new Map<string, Notice[]>();
  for (const notice of notices) {
    const words = JSON.stringify([notice.name, notice.licence, notice.preface, notice.text]);
    by_words.set(words, [...(by_words.get(words) ?? []), notice]);
  }
  return [...by_words.values()].map((same) => ({
    ...same[0]!,
    version: [...new Set(same.map(({ version }) => version))].sort().join(', '),
  }));
}

function hasText(notice: Notice): boolean {
  return notice.text !== undefined;
}

function asText({ name, version, licence, text }: Notice): string {
  return `${name} ${version} (${licence})\n\n${(text ?? '').replaceAll('\r\n', '\n')}\n`;
}

function asLine({ name, version, licence, preface, standard_texts }: Notice): string {
  const chosen = standard_texts.join(' AND ');
  const terms = chosen === licence ? licence : `${licence}; used under ${chosen}`;
  return [`${name} ${version} (${terms})`, ...preface.map((line) => `    ${line}`)].join('\n');
}

function section(title: string, parts: readonly string[]): string {
  return parts.length === 0 ? '' : `\n${RULE}\n${title}\n${RULE}\n\n${parts.join('\n')}\n`;
}

function standardText(root: string, id: string): string {
  // Ours is the Apache License 2.0, too.
  const file = id === 'Apache-2.0' ? 'LICENSE' : `packaging/licences/${id}.txt`;
  return readFileSync(join(root, file), 'utf8');
}
