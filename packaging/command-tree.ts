import type { Command, Option } from 'commander';
import { buildProgram, type CommandModules } from '../src/cli/program.ts';

/** What a shell offers for a value. */
type ValueKind = 'file' | 'word' | 'none';

export type CommandOption = {
  /** `--json`, and `-j` where there is one; the long one first. */
  readonly names: readonly string[];
  readonly about: string;
  readonly value: ValueKind;
  /** The words that are taken, where the list is closed. */
  readonly choices: readonly string[];
};

/** A command with what can follow it. */
export type CommandNode = {
  readonly name: string;
  readonly about: string;
  readonly options: readonly CommandOption[];
  readonly argument: ValueKind;
  readonly commands: readonly CommandNode[];
};

/** The command line as the program itself defines it; hidden commands and options are left out. */
export function commandTree(): CommandNode {
  // Building the program calls nothing; only actions do, and none runs here.
  const modules = {
    output: { out: () => undefined, err: () => undefined, terminal: false },
    environment: {},
    version: '0',
  } as unknown as CommandModules;
  return nodeOf(buildProgram(modules, { code: 0 }));
}

function nodeOf(command: Command): CommandNode {
  const help = command.createHelp();
  return {
    name: command.name(),
    about: command.description(),
    options: help.visibleOptions(command).map(optionOf),
    argument: valueOf(command.registeredArguments[0]?.name()),
    // "help" repeats every command.
    commands: help
      .visibleCommands(command)
      .filter((child) => child.name() !== 'help')
      .map(nodeOf),
  };
}

function optionOf(option: Option): CommandOption {
  const names = [option.long, option.short].filter((name) => name !== undefined);
  const placeholder = /[<[]([^\]>]+)[\]>]/.exec(option.flags)?.[1];
  const { description: about, argChoices: choices = [] } = option;
  return { names, about, value: valueOf(placeholder), choices };
}

/** By the word in the help text: `--config <file>`. */
function valueOf(placeholder: string | undefined): ValueKind {
  if (placeholder === undefined) return 'none';
  return /^(file|path|dir|directory)$/i.test(placeholder) ? 'file' : 'word';
}
