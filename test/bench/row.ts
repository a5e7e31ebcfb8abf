/** One figure of the bench and what it is held against. `--json` writes exactly this. */
export type Row = {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What `ratio` is relative to, measured in the same run; null when the bound is on the value itself. */
  readonly yardstick: string | null;
  readonly ratio: number | null;
  /** Bound of the ratio when there is a yardstick, else of the value; null = for information. */
  readonly bound: Bound | null;
  readonly ok: boolean | null;
};

export type Bound = { readonly kind: 'at most' | 'at least'; readonly value: number };

export const atMost = (value: number): Bound => ({ kind: 'at most', value });
export const atLeast = (value: number): Bound => ({ kind: 'at least', value });

/** A row; `against` names the yardstick and gives its value. */
export function row(
  name: string,
  value: number,
  unit: string,
  options: {
    readonly against?: { readonly name: string; readonly value: number };
    readonly bound?: Bound;
  } = {},
): Row {
  const { against, bound } = options;
  const ratio = against === undefined ? null : value / against.value;
  const held = ratio ?? value;
  const ok = bound === undefined ? null : within(held, bound);
  return { name, value, unit, yardstick: against?.name ?? null, ratio, bound: bound ?? null, ok };
}

/** Middle of the values, the upper of two. NaN of none. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which the fraction `q` of the values lies. NaN of none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

/** The rows for people: figure, ratio and yardstick, bound, verdict. */
export function tableOf(rows: readonly Row[]): string {
  const cells = rows.map((r) => [
    r.name,
    `${short(r.value)} ${r.unit}`,
    r.ratio === null ? '' : `${r.ratio.toFixed(2)} x ${r.yardstick ?? ''}`,
    boundText(r),
    r.ok === null ? '' : r.ok ? 'ok' : 'MISS',
  ]);
  const head = ['what', 'measured', 'relative to', 'bound', ''];
  const all = [head, ...cells];
  const widths = head.map((_, i) => Math.max(...all.map((line) => line[i]!.length)));
  return all
    .map((line) =>
      line
        .map((cell, i) => (i === 1 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function boundText({ bound, yardstick, unit }: Row): string {
  if (bound === null) return '';
  const sign = bound.kind === 'at most' ? '<=' : '>=';
  return `${sign} ${bound.value} ${yardstick === null ? unit : 'x'}`;
}

function within(value: number, bound: Bound): boolean {
  return bound.kind === 'at most' ? value <= bound.value : value >= bound.value;
}

function short(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
