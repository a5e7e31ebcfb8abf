import type { CommandNode, CommandOption } from './command-tree.ts';

/** A command with the words that lead to it: `config check`. */
type Place = { readonly words: readonly string[]; readonly node: CommandNode };

const places = (root: CommandNode): Place[] => below(root, []);

function below(node: CommandNode, words: readonly string[]): Place[] {
  return [
    { words, node },
    ...node.commands.flatMap((child) => below(child, [...words, child.name])),
  ];
}

const longNames = (options: readonly CommandOption[]): string[] =>
  options.flatMap(({ names }) => names);

/** For bash, with nothing but bash itself (bash-completion is not needed). */
export function bashCompletion(root: CommandNode): string {
  const { name } = root;
  const cases = places(root).map(({ words, node }) => {
    const offered = [...node.commands.map((child) => child.name), ...longNames(node.options)];
    const files = node.argument === 'file' ? ' files=1' : '';
    return `    '${words.join(' ')}') words='${offered.join(' ')}'${files} ;;`;
  });
  const with_files = valueNames(root, 'file');
  const with_words = valueNames(root, 'word');
  const with_choices = places(root)
    .flatMap(({ node }) => node.options)
    .filter(({ choices }) => choices.length > 0)
    .map(
      ({ names, choices }) =>
        `    ${names.join('|')}) mapfile -t COMPREPLY < <(compgen -W '${choices.join(' ')}' -- "$current"); return ;;`,
    );
  const commands = [...new Set(places(root).flatMap(({ words }) => words))];
  return `# bash completion for ${name}, made from its command line.
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} at='' word words='' files=''
  COMPREPLY=()
  case $previous in
    ${with_files.join('|')}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
${with_choices.join('\n')}
    ${with_words.join('|')}) return ;;
  esac
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in
      ${commands.join('|')}) at="\${at:+$at }$word" ;;
    esac
  done
  case $at in
${cases.join('\n')}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [[ -n $files && $current != -* ]]; then
    compopt -o filenames
    mapfile -t -O "\${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -F _${name} ${name}
`.replace(/^ {4}\) return ;;\n/gm, '');
}

/** For zsh; one function per command. */
export function zshCompletion(root: CommandNode): string {
  const functions = places(root).map((place) => zshFunction(place));
  return `#compdef ${root.name}
# zsh completion for ${root.name}, made from its command line.

${functions.join('\n')}
_${root.name} "$@"
`;
}

function zshFunction({ words, node }: Place): string {
  const name = zshName(words);
  const specs = node.options.map(zshOption);
  const argument = node.argument === 'file' ? ["'1:file:_files'"] : [];
  if (node.commands.length === 0) {
    return `${name}() {\n  _arguments -s ${[...specs, ...argument].join(' \\\n    ')}\n}\n`;
  }
  const commands = node.commands.map((c) => `    ${shellQuoted(`${c.name}:${c.about}`)}`);
  const branches = node.commands.map((c) => `        ${c.name}) ${zshName([...words, c.name])} ;;`);
  return `${name}() {
  local context state state_descr line
  local -A opt_args
  local -a commands=(
${commands.join('\n')}
  )
  _arguments -C -s ${[...specs, "'1:command:->command'", "'*::argument:->argument'"].join(' \\\n    ')}
  case $state in
    command) _describe command commands ;;
    argument)
      case $line[1] in
${branches.join('\n')}
      esac ;;
  esac
}
`;
}

const zshName = (words: readonly string[]): string => ['_layerswarm', ...words].join('_');

function zshOption({ names, about, value, choices }: CommandOption): string {
  const text = about.replaceAll(/[[\]:\\]/g, '\\$&');
  const words = choices.length > 0 ? `(${choices.join(' ')})` : ' ';
  const tail = value === 'none' ? '' : value === 'file' ? ':file:_files' : `:value:${words}`;
  const specs = names.map((name) => shellQuoted(`(${names.join(' ')})${name}[${text}]${tail}`));
  return specs.join(' \\\n    ');
}

/** For fish. */
export function fishCompletion(root: CommandNode): string {
  const { name } = root;
  const lines = [
    `# fish completion for ${name}, made from its command line.`,
    `complete -c ${name} -f`,
  ];
  for (const { words, node } of places(root)) {
    const seen = words.map((word) => `__fish_seen_subcommand_from ${word}`);
    const children = node.commands.map((child) => child.name);
    const none_yet =
      children.length > 0 ? [`not __fish_seen_subcommand_from ${children.join(' ')}`] : [];
    const when = shellQuoted([...seen, ...none_yet].join('; and '));
    const condition = seen.length + none_yet.length > 0 ? ` -n ${when}` : '';
    for (const child of node.commands) {
      lines.push(`complete -c ${name}${condition} -a ${child.name} -d ${fishQuoted(child.about)}`);
    }
    for (const option of node.options) lines.push(fishOption(name, condition, option));
    if (node.argument === 'file') lines.push(`complete -c ${name}${condition} -F`);
  }
  return `${lines.join('\n')}\n`;
}

function fishOption(
  name: string,
  condition: string,
  { names, about, value, choices }: CommandOption,
): string {
  const flags = names.map((flag) =>
    flag.startsWith('--') ? ` -l ${flag.slice(2)}` : ` -s ${flag.slice(1)}`,
  );
  const takes =
    value === 'none'
      ? ''
      : value === 'file'
        ? ' -r -F'
        : ` -x${choices.length > 0 ? ` -a ${shellQuoted(choices.join(' '))}` : ''}`;
  return `complete -c ${name}${condition}${flags.join('')}${takes} -d ${fishQuoted(about)}`;
}

function valueNames(root: CommandNode, kind: CommandOption['value']): string[] {
  const all = places(root)
    .flatMap(({ node }) => node.options)
    .filter(({ choices }) => choices.length === 0);
  return [...new Set(longNames(all.filter(({ value }) => value === kind)))];
}

const shellQuoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const fishQuoted = (text: string): string => `'${text.replaceAll(/['\\]/g, '\\$&')}'`;
