/** Most lines of either side that are compared one by one; beyond that a change is told in one line. */
const LINES_MAX = 4000;
/** Unchanged lines shown around a change. */
const CONTEXT = 3;

type Row = { readonly mark: ' ' | '-' | '+'; readonly line: string };

/** A unified diff of two texts; undefined is a file that does not exist. Empty when they are equal. */
export function unifiedDiff(
  path: string,
  before: string | undefined,
  after: string | undefined,
): string {
  if (before === after) return '';
  const head = `--- ${before === undefined ? '/dev/null' : path}\n+++ ${after === undefined ? '/dev/null' : path}\n`;
  const [old, fresh] = [linesOf(before ?? ''), linesOf(after ?? '')];
  if (old.length > LINES_MAX || fresh.length > LINES_MAX) {
    return `${head}@@ ${old.length} lines become ${fresh.length} @@\n`;
  }
  return head + hunks(compare(old, fresh)).join('');
}

function linesOf(text: string): string[] {
  if (text === '') return [];
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  else lines.push(`${lines.pop() ?? ''}\n\\ No newline at end of file`);
  return lines;
}

/** Longest common subsequence, after what both sides share at either end. */
function compare(old: readonly string[], fresh: readonly string[]): Row[] {
  let head = 0;
  while (head < old.length && head < fresh.length && old[head] === fresh[head]) head += 1;
  let tail = 0;
  const most = Math.min(old.length, fresh.length) - head;
  while (tail < most && old.at(-1 - tail) === fresh.at(-1 - tail)) tail += 1;
  const same = (lines: readonly string[]): Row[] => lines.map((line) => ({ mark: ' ', line }));
  return [
    ...same(old.slice(0, head)),
    ...middle(old.slice(head, old.length - tail), fresh.slice(head, fresh.length - tail)),
    ...same(old.slice(old.length - tail)),
  ];
}

function middle(old: readonly string[], fresh: readonly string[]): Row[] {
  const width = fresh.length + 1;
  const longest = new Uint16Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = fresh.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] =
        old[i] === fresh[j]
          ? longest[(i + 1) * width + j + 1]! + 1
          : Math.max(longest[(i + 1) * width + j]!, longest[i * width + j + 1]!);
    }
  }
  const rows: Row[] = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      rows.push({ mark: ' ', line: old[i]! });
      i += 1;
      j += 1;
    } else if (
      j >= fresh.length ||
      (i < old.length && longest[(i + 1) * width + j]! >= longest[i * width + j + 1]!)
    ) {
      rows.push({ mark: '-', line: old[i]! });
      i += 1;
    } else {
      rows.push({ mark: '+', line: fresh[j]! });
      j += 1;
    }
  }
  return rows;
}

function hunks(rows: readonly Row[]): string[] {
  const shown = rows.map((_, i) =>
    rows.slice(Math.max(0, i - CONTEXT), i + CONTEXT + 1).some((r) => r.mark !== ' '),
  );
  const result: string[] = [];
  let [old, fresh] = [1, 1];
  let at = 0;
  while (at < rows.length) {
    let end = at;
    while (end < rows.length && shown[end] === shown[at]) end += 1;
    const part = rows.slice(at, end);
    const removed = part.filter((r) => r.mark !== '+').length;
    const added = part.filter((r) => r.mark !== '-').length;
    if (shown[at] === true) {
      const from = (start: number, count: number) => `${count === 0 ? start - 1 : start},${count}`;
      const body = part.map((r) => `${r.mark}${r.line}\n`).join('');
      result.push(`@@ -${from(old, removed)} +${from(fresh, added)} @@\n${body}`);
    }
    old += removed;
    fresh += added;
    at = end;
  }
  return result;
}
