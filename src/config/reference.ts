import type { z } from 'zod';
import type { KeyDoc } from './keys.ts';
import { type Config, SECTIONS, type SectionName } from './schema.ts';

/** One key of the reference. */
export type KeyReference = KeyDoc & {
  readonly section: SectionName;
  readonly key: string;
  readonly default: unknown;
};

const WIDTH = 100;

/** Every key there is, in the order of the reference. */
export function keyReferences(): readonly KeyReference[] {
  return (Object.keys(SECTIONS) as SectionName[]).flatMap((section) => {
    const { schema } = SECTIONS[section];
    const defaults: Readonly<Record<string, unknown>> = schema.parse({});
    const shape: Readonly<Record<string, z.ZodType>> = schema.shape;
    return Object.entries(shape).map(([key, value]) => ({
      ...(value.meta() as unknown as KeyDoc),
      section,
      key,
      default: defaults[key],
    }));
  });
}

/** A value as TOML writes it. Only the kinds the schema has: strings, numbers, booleans, lists of them. */
export function tomlValue(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(', ')}]`;
  if (typeof value === 'number' && value >= 10_000) {
    return String(value).replace(/\B(?=(\d{3})+$)/g, '_');
  }
  return JSON.stringify(value);
}

/** The documented default configuration: the text of `packaging/config.toml`. */
export function renderReference(): string {
  const lines = [
    '# layerswarm configuration. Every key is listed with its default; delete the "#" before a key to change it.',
    '# Check the file with "layerswarm config check FILE", see what is in force with "layerswarm config show".',
  ];
  for (const name of Object.keys(SECTIONS) as SectionName[]) {
    lines.push('', `# ${SECTIONS[name].doc}`, `[${name}]`);
    for (const k of keyReferences().filter((k) => k.section === name)) {
      lines.push('', ...wrap(k.doc), `# Expected: ${k.expected}.`);
      lines.push(`#${k.key} = ${tomlValue(k.default)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** The effective configuration as TOML that loads to the same configuration. */
export function renderConfig(config: Config): string {
  return Object.entries(config)
    .map(([section, keys]) => {
      const lines = Object.entries(keys).map(([key, value]) => `${key} = ${tomlValue(value)}`);
      return `[${section}]\n${lines.join('\n')}\n`;
    })
    .join('\n');
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '#';
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = '#';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
