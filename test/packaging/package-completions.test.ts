import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type CommandNode, commandTree } from '../../packaging/command-tree.ts';
import { bashCompletion, fishCompletion, zshCompletion } from '../../packaging/completions.ts';
import { needTools, removeTree, ROOT, scratch } from './package-bench.ts';

const tree = commandTree();
let directory = '';

before(() => {
  needTools();
  directory = scratch();
});
after(() => removeTree(directory));

function put(name: string, text: string): string {
  const file = join(directory, name);
  writeFileSync(file, text);
  return file;
}

const shells = [
  { shell: 'bash', text: bashCompletion(tree) },
  { shell: 'zsh', text: zshCompletion(tree) },
  { shell: 'fish', text: fishCompletion(tree) },
];

for (const { shell, text } of shells) {
  test(`the completion for ${shell} is good ${shell}`, () => {
    const { status, stderr } = spawnSync(shell, ['-n', put(`c.${shell}`, text)], {
      encoding: 'utf8',
    });
    assert.equal(stderr, '');
    assert.equal(status, 0);
  });

  test(`the completion for ${shell} knows every command and option`, () => {
    for (const { node, words } of nodes(tree)) {
      for (const word of words) assert.ok(text.includes(word), word);
      for (const { names } of node.options) {
        for (const name of names) assert.ok(text.includes(name.replace(/^--?/, '')), name);
      }
    }
  });
}

const typed = [
  {
    line: ['layerswarm', ''],
    offers: 'daemon status config setup teardown doctor keygen',
    least: true,
  },
  { line: ['layerswarm', 'te'], offers: 'teardown' },
  { line: ['layerswarm', 'config', ''], offers: 'check show migrate', least: true },
  { line: ['layerswarm', 'setup', '--do'], offers: '--door' },
  { line: ['layerswarm', 'setup', '--door', ''], offers: 'content' },
  { line: ['layerswarm', 'status', '--json', '--w'], offers: '--watch' },
  { line: ['layerswarm', 'config', 'migrate', '--d'], offers: '--dry-run' },
  { line: ['layerswarm', 'nonsense', 'x'], offers: '' },
];

for (const { line, offers, least = false } of typed) {
  test(`bash offers for "${line.join(' ')}" what fits there`, () => {
    const script = `. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _layerswarm; echo "\${COMPREPLY[*]}"`;
    const file = put('offer.bash', bashCompletion(tree));
    const said = execFileSync('bash', ['-c', script, file, ...line], { encoding: 'utf8' }).trim();
    const words = new Set(said.split(' '));
    if (least) for (const word of offers.split(' ')) assert.ok(words.has(word), said);
    else assert.equal(said, offers);
  });
}

test('hidden options are in no completion', () => {
  for (const { text } of shells) assert.doesNotMatch(text, /--root|-l root/);
});

test('the manual names every command and each of its options', () => {
  const manual = readFileSync(join(ROOT, 'packaging/man/layerswarm.1'), 'utf8');
  const synopsis = manual.slice(manual.indexOf('.Sh SYNOPSIS'), manual.indexOf('.Sh DESCRIPTION'));
  const blocks = synopsis.split('.Nm\n');
  for (const { words, node } of nodes(tree).filter(({ words }) => words.length > 0)) {
    if (node.commands.length > 0) continue;
    const block = blocks.find((text) => text.startsWith(`.Cm ${words.join(' ')}\n`));
    assert.ok(block !== undefined, `no synopsis of ${words.join(' ')}`);
    for (const name of node.options.flatMap(({ names }) => names)) {
      if (name === '--help' || name === '-h') continue;
      assert.ok(block.includes(`Fl Fl ${name.slice(2)}`), `${words.join(' ')} ${name}`);
    }
  }
});

function nodes(
  node: CommandNode,
  words: readonly string[] = [],
): { readonly words: readonly string[]; readonly node: CommandNode }[] {
  return [
    { words, node },
    ...node.commands.flatMap((child) => nodes(child, [...words, child.name])),
  ];
}
